"""`dgmm cluster check`: what each kind would submit, word for word, and whether the memory is enough."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from commands import ROOT, in_process

from dgmm.clusters import start
from dgmm.clusters.config import load_cluster
from dgmm.errors import MissingExtra

FILES = ROOT / "cluster-configs"
WORKER = (
    "{python} -m distributed.cli.dask_worker tls://SCHEDULER:PORT --name WORKER --nthreads 1 "
    "--memory-limit 4.00GiB {processes}--nanny --death-timeout 60 --lifetime 14160s --lifetime-stagger 120s "
    "--dashboard-address 127.0.0.1:0 --protocol tls:// --tls-ca-file T/temporary-ca.pem "
    "--tls-cert T/temporary-cert.pem --tls-key T/temporary-key.pem"
)
FOUR = WORKER.replace("{processes}", "--nworkers 4 ")
EXPECTED = {
    "slurm": f"""\
2 job(s) of 4 worker(s), each by sbatch of this script:

#!/usr/bin/env bash

#SBATCH -J dgmm-worker
#SBATCH -e dgmm-logs/dgmm-worker-%J.err
#SBATCH -o dgmm-logs/dgmm-worker-%J.out
#SBATCH -p normal
#SBATCH -A my-project
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH -t 04:00:00

{FOUR}
""",
    "pbs": f"""\
2 job(s) of 4 worker(s), each by qsub of this script:

#!/usr/bin/env bash

#PBS -N dgmm-worker
#PBS -q normal
#PBS -A my-project
#PBS -l select=1:ncpus=4:mem=16GB
#PBS -l walltime=04:00:00
#PBS -e dgmm-logs/
#PBS -o dgmm-logs/

{FOUR}
""",
    "lsf": f"""\
2 job(s) of 4 worker(s), each by bsub of this script:

#!/usr/bin/env bash

#BSUB -J dgmm-worker
#BSUB -e dgmm-logs/WORKER-%J.err
#BSUB -o dgmm-logs/WORKER-%J.out
#BSUB -q normal
#BSUB -P "my-project"
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -M 17179870
#BSUB -W 04:00

{FOUR}
""",
    "sge": f"""\
8 job(s) of 1 worker(s), each by qsub of this script:

#!/usr/bin/env bash

#$ -N dgmm-worker
#$ -q all.q
#$ -l h_rt=04:00:00
#$ -e dgmm-logs/
#$ -o dgmm-logs/
#$ -cwd
#$ -j y

{WORKER.replace("{processes}", "")}
""",
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_script_of_a_job(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = start.describe(load_cluster(FILES / f"{kind}.yaml")).replace(str(tmp_path), "T")
    assert shown == EXPECTED[kind].replace("{python}", sys.executable)
    assert not list(tmp_path.iterdir()), "nothing is left behind, nothing is submitted"


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        ("slurm", {"directives": ["--constraint=rome"]}, "#SBATCH --constraint=rome\n"),
        ("slurm", {"prologue": ["module load x"]}, "\nmodule load x\n"),
        ("slurm", {"workers.environment": {"A": "two words"}}, "\nexport A='two words'\n"),
        ("slurm", {"workers.scratch": "$TMPDIR"}, " --local-directory $TMPDIR "),
        ("slurm", {"interface": "ib0"}, " --interface ib0 "),
        ("slurm", {"port": 8786, "tls": None}, " tcp://SCHEDULER:8786 "),
        ("slurm", {"workers": {"count": None, "minimum": 2, "maximum": 50}}, "1 to 13 job(s) of 4 worker(s)"),
        ("slurm", {"tls": {"ca": "/c", "cert": "/d", "key": "/e"}}, "--tls-ca-file /c --tls-cert /d --tls-key /e"),
        ("slurm", {"walltime": 600}, "#SBATCH -t 00:10:00\n"),
        ("slurm", {"walltime": 600}, " --lifetime 540s --lifetime-stagger 30s "),
        ("slurm", {"python": "/opt/bin/python"}, "\n/opt/bin/python -m distributed.cli.dask_worker "),
        ("pbs", {"resources": "select=1:ncpus=4:model=rome"}, "#PBS -l select=1:ncpus=4:model=rome\n"),
        ("lsf", {"memory_unit": "gb"}, "#BSUB -M 18\n"),
        ("lsf", {"walltime": 90}, "#BSUB -W 00:01\n"),
        ("lsf", {"walltime": 90}, " --lifetime 54s "),
        ("slurm", {"log_directory": "/nowhere/logs"}, "#SBATCH -e /nowhere/logs/dgmm-worker-%J.err"),
        ("sge", {"processes": 4, "parallel_environment": "smp"}, "#$ -pe smp 4\n"),
        ("sge", {"resources": "h_vmem=5G"}, "#$ -l h_vmem=5G\n"),
        ("sge", {"account": "p"}, "#$ -P p\n"),
        ("local", {}, "2 worker process(es) of 1 thread(s) and 2.00 GiB each"),
        ("mpi", {}, "mpiexec -n"),
        ("ssh", {}, "node1"),
        ("scheduler", {}, "nothing is started: workers of the scheduler at tcp://127.0.0.1:8786 are used"),
        ("kubernetes", {"workers": {"count": None, "minimum": 2, "maximum": 9}}, "between 2 and 9 workers"),
    ],
)
def test_what_a_key_changes(kind, settings, line):
    assert line in start.describe(load_cluster(FILES / f"{kind}.yaml", settings))


def test_check_of_every_file(monkeypatch, capsys):
    for path in sorted(FILES.glob("*.yaml")):
        assert in_process(monkeypatch, "cluster", "check", path, "--json") == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["kind"] == path.stem
        assert facts["submitted"]


def test_memory_against_the_need_of_data(tmp_path, monkeypatch, capsys):
    zarr.create_array(tmp_path / "x.zarr", data=np.ones((1000, 3)), chunks=(100, 3))
    call = ("cluster", "check", FILES / "slurm.yaml", tmp_path / "x.zarr", "-k", 2)
    assert in_process(monkeypatch, *call) == 0
    shown = capsys.readouterr().out
    assert "memory of a worker thread: 4.00 GiB" in shown
    assert "needed for 1,000 x 3 rows of" in shown
    assert "between passes" not in shown, "the sample has all of them"
    assert in_process(monkeypatch, *call, "--set", "workers.memory=100MiB") == 2
    assert "has 100.00 MiB a thread" in capsys.readouterr().err
    assert in_process(monkeypatch, *call, "--set", "workers.memory=1GiB", "--set", "workers.threads=9") == 2
    assert "has 113.78 MiB a thread" in capsys.readouterr().err


def test_what_a_worker_keeps_between_passes(tmp_path, monkeypatch, capsys):
    zarr.create_array(tmp_path / "x.zarr", data=np.ones((200_000, 3)), chunks=(50_000, 3))
    call = ("cluster", "check", FILES / "slurm.yaml", tmp_path / "x.zarr", "-k", 2)
    assert in_process(monkeypatch, *call) == 0
    assert re.search(
        r"keeps up to \d\.\d+ GiB of the data between passes, which are 4\.58 MiB", capsys.readouterr().out
    )
    with dask.config.set({"dgmm.kept-bytes": "1 MiB"}):
        assert in_process(monkeypatch, *call, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept_bytes"] == 2**20


@pytest.mark.parametrize(
    ("kind", "package"),
    [("slurm", "dask_jobqueue"), ("pbs", "dask_jobqueue"), ("lsf", "dask_jobqueue"), ("sge", "dask_jobqueue"),
     ("mpi", "dask_mpi"), ("ssh", "asyncssh"), ("kubernetes", "dask_kubernetes")],
)  # fmt: skip
def test_a_missing_extra_names_the_command(kind, package, monkeypatch, capsys):
    find = start.find_spec
    monkeypatch.setattr(start, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MissingExtra, match=rf"needs the package {package}; pip install 'dgmm\[{kind}\]'"):
        start.describe(load_cluster(FILES / f"{kind}.yaml"))
    assert in_process(monkeypatch, "cluster", "check", FILES / f"{kind}.yaml") == 2
    assert f"pip install 'dgmm[{kind}]'" in capsys.readouterr().err


def test_the_extras_exist():
    extras = (ROOT / "pyproject.toml").read_text()
    for kind in start._NEEDED:
        assert f"\n{kind} = [" in extras


def test_no_key_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = start.describe(load_cluster(FILES / "slurm.yaml"))
    assert "PRIVATE" not in shown
    assert not list(Path(tmp_path).iterdir())
