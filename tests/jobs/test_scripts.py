"""The shell of jobs/: shellcheck, settings, and what happens at a warning where no batch system can be installed.

PBS and LSF are proprietary or not packaged: stand-ins for `dgmm` and `qsub` show what the scripts would call.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from commands import ROOT, in_process
from fittings import Script, need

SCRIPTS = sorted(
    path for path in (ROOT / "jobs").rglob("*") if path.suffix in {".sbatch", ".pbs", ".lsf", ".sge", ".sh"}
)
# Waits for a signal, as a long fit does.
DGMM = """#!/bin/bash
trap 'exit 75' USR1 TERM
echo "started $*"
while :; do sleep 0.05; done
"""
QSUB = '#!/bin/bash\necho "qsub $* of $DATA"\n'


def test_shellcheck():
    need("" if shutil.which("shellcheck") else "shellcheck")
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(SCRIPTS) >= 12


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_exist(path, monkeypatch, capsys):
    """Every option of dgmm in a script is one of its command."""
    for command, rest in re.findall(r"\bdgmm (fit|predict|compare) (.*(?:\\\n.*)*)", path.read_text()):
        assert in_process(monkeypatch, command, "--help") == 0
        shown = capsys.readouterr().out
        for option in re.findall(r" (--?[a-z-]+)", rest):
            assert re.search(rf"{option}\b", shown), f"{option} of {command}"


@pytest.fixture
def run(tmp_path, job_environment):
    for name, text in (("dgmm", DGMM), ("qsub", QSUB)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    started: list[Script] = []

    def call(name: str, **settings: object) -> Script:
        env = {
            **job_environment, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DATA": "rows.zarr",
            "CHECKPOINT": str(tmp_path / "ck"), **{key: str(value) for key, value in settings.items()},
        }  # fmt: skip
        started.append(Script(name, tmp_path / f"{len(started)}.log", env))
        return started[-1]

    yield call
    for script in started:
        script.kill()


@pytest.mark.parametrize(
    ("script", "code", "again"),
    [("pbs/fit.pbs", 75, "qsub jobs/pbs/fit.pbs of rows.zarr"), ("lsf/fit.lsf", 75, ""), ("sge/fit.sge", 99, "")],
)
def test_a_warning_runs_the_job_again_at_most_so_often(script, code, again, run, tmp_path):
    for restart in (1, 2):
        job = run(script, MAX_RESTARTS=2, WARN_AFTER=1000)
        job.wait_for("started fit rows.zarr -k 16")
        job.process.send_signal(signal.SIGUSR1)
        ended, text = job.finish()
        assert ended == code, text
        assert f"restart {restart} of at most 2" in text
        assert again in text
    job = run(script, MAX_RESTARTS=2, WARN_AFTER=1000)
    job.wait_for("started")
    job.process.send_signal(signal.SIGUSR1)
    ended, text = job.finish()
    assert ended == 1
    assert "restarted 2 times, which is MAX_RESTARTS: submit the job again to go on" in text
    assert "qsub" not in text
    assert not (tmp_path / "ck.restarts").exists(), "the next submission counts anew"


def test_the_count_of_a_checkpoint_at_a_url_is_kept_here(run):
    name = uuid.uuid4().hex
    count = ROOT / f"bucket-{name}-1.restarts"
    try:
        ended, text = run("pbs/fit.pbs", CHECKPOINT=f"s3://bucket/{name}/1", WARN_AFTER=0.2).finish()
        assert ended == 75, text
        assert count.read_text().strip() == "1"
    finally:
        count.unlink(missing_ok=True)


def test_where_no_warning_comes_the_script_warns_itself(run):
    ended, text = run("pbs/fit.pbs", WARN_AFTER=0.2).finish()
    assert ended == 75
    assert "qsub jobs/pbs/fit.pbs" in text


@pytest.mark.parametrize("script", ["pbs/fit.pbs", "lsf/fit.lsf", "sge/fit.sge", "ssh/fit.sh"])
def test_a_cancelled_job_does_not_come_back(script, run):
    job = run(script, WARN_AFTER=1000)
    job.wait_for("started")
    job.process.send_signal(signal.SIGTERM)
    ended, text = job.finish()
    assert ended == (143 if "lsf" in script else 75), "what LSF is asked to run again is 75"
    assert "restart" not in text


def test_a_finished_fit_forgets_its_restarts(run, tmp_path):
    (tmp_path / "dgmm").write_text("#!/bin/bash\nexit 0\n")
    (tmp_path / "ck.restarts").write_text("3")
    assert run("pbs/fit.pbs").finish()[0] == 0
    assert not (tmp_path / "ck.restarts").exists()


def test_threads_of_blas_are_pinned(run, tmp_path):
    (tmp_path / "dgmm").write_text('#!/bin/bash\necho "threads $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS"\n')
    for script in ("pbs/fit.pbs", "ssh/fit.sh"):
        assert "threads 1 1" in run(script).finish()[1]


def test_every_script_of_a_batch_system_says_how_it_is_submitted():
    for path in SCRIPTS:
        if path.parent.name != "jobs":
            head = path.read_text().partition("\n\n")[0]
            assert re.search(rf"(sbatch|qsub|bsub <|bash) .*{path.name}|select-array.sbatch", head), path


def test_the_key_of_a_run_is_private(tmp_path):
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    command = 'CHECKPOINT=ck; source jobs/tls.sh; stat -c "%a %n" "$TLS" "$TLS"/*.pem; echo "${TLS_OPTIONS[@]}"'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unable = "CHECKPOINT=/proc/nowhere/ck; source jobs/tls.sh; echo went on"
    failed = subprocess.run(["bash", "-c", unable], cwd=tmp_path, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    modes = [line.split()[0] for line in done.stdout.splitlines()[:3]]
    assert modes[0] == "700"
    assert set(modes[1:]) == {"600"}
    assert not list(Path(tmp_path / "ck.tls").iterdir()), "gone at the end"
