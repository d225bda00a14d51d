"""A fit whose workers are ranks of a real mpiexec."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest
import yaml
from commands import ROOT, TIMEOUT
from fittings import assert_done_once

pytestmark = pytest.mark.slow
RUN = "import sys; sys.argv[0] = 'dgmm'; from dgmm.cli import main; main()"


@pytest.fixture
def script(start_script, tmp_path):
    cluster = yaml.safe_load((ROOT / "cluster-configs" / "mpi.yaml").read_text()) | {"interface": "lo"}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    return lambda **settings: start_script("mpi/fit.sh", RANKS=4, **settings)


def test_stopped_by_each_signal_and_finished(script, tmp_path, unbroken):
    for number, line in ((signal.SIGUSR1, "iteration 2:"), (signal.SIGTERM, "iteration 5:")):
        run = script()
        run.wait_for(line)
        ranks = psutil.Process(run.process.pid).children(recursive=True)
        assert len(ranks) >= 4
        run.process.send_signal(number)
        code, text = run.finish()
        assert code == 75, text
        assert f"Interrupted: stopped by {number.name}" in text
        assert not psutil.wait_procs(ranks, timeout=30)[1], "no rank is left behind"
    code, text = script().finish()
    assert code == 0, text
    assert "mpi cluster: " in text
    assert "tls://127.0.0.1" in text
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken
    assert_done_once("".join(log.read_text() for log in tmp_path.glob("*.log")), stops=2)
    code, text = script().finish()
    assert (code, "is complete already: nothing to compute" in text) == (0, True), text


def test_a_worker_that_is_killed_is_started_again(script, tmp_path, unbroken):
    run = script()
    run.wait_for("iteration 2:")
    ranks = psutil.Process(run.process.pid).children(recursive=True)
    spawned = [p for p in ranks if "multiprocessing.spawn" in " ".join(p.cmdline())]
    assert len(spawned) == 2, "the worker of each nanny"
    spawned[0].kill()
    code, text = run.finish()
    assert code == 0, text
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken


def test_a_scheduler_that_is_frozen_ends_all(script, tmp_path):
    run = script(DASK_DGMM__SCHEDULER_TIMEOUT="10 s")
    run.wait_for("iteration 2:")
    ranks = psutil.Process(run.process.pid).children(recursive=True)
    (first,) = [
        p for p in ranks if p.environ().get("PMI_RANK") == "0" and "multiprocessing" not in str(p.cmdline())
    ]
    first.send_signal(signal.SIGSTOP)
    code, text = run.finish()
    assert code == 1, text
    assert "has not answered for 10.00 s" in text
    assert not psutil.wait_procs(ranks, timeout=30)[1], "no rank is left behind"
    assert list((tmp_path / "ck").glob("iteration-*2*"))


def test_smoke_test_and_too_few_ranks(tmp_path, job_environment):
    cluster = ROOT / "cluster-configs" / "mpi.yaml"
    for ranks, code, said in ((4, 0, "works: "), (2, 1, "found 2 MPI rank(s), expected at least 3")):
        done = subprocess.run(
            ["mpiexec", "-n", str(ranks), sys.executable, "-m", "dgmm", "cluster", "run", cluster, "--set",
             "interface=lo"],
            cwd=tmp_path, env=job_environment, capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr  # of the latter: workers that are being ended may log one


def test_a_rank_that_ends_early_does_not_leave_the_others_waiting(tmp_path, data, job_environment):
    """One machine lacks the file: mpiexec starts one rank with another path."""
    program = [sys.executable, "-c", f"import dgmm.clusters.mpi as m; m._START_SECONDS = 5; {RUN}"]
    options = ["--model", "m", "--cluster", ROOT / "cluster-configs" / "mpi.yaml"]
    commands = [[*program, "fit", path, *options] for path in (data, "nothing.zarr")]
    done = subprocess.run(
        ["mpiexec", "-n", "2", *commands[0], ":", "-n", "1", *commands[1]],
        cwd=tmp_path, env=job_environment, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode != 0
    assert "There is nothing at nothing.zarr" in done.stderr
    assert "Timeout (0:00:05)!" in done.stderr


def test_bad_input_ends_every_rank(tmp_path, job_environment):
    call = ["dgmm", "fit", "nothing.zarr", "--model", "m", "--cluster", ROOT / "cluster-configs" / "mpi.yaml"]
    done = subprocess.run(
        ["mpiexec", "-n", "3", sys.executable, "-m", *call],
        cwd=tmp_path, env=job_environment, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is nothing at nothing.zarr" in done.stderr
