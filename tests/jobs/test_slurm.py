"""The scripts of jobs/slurm, submitted to a real Slurm: interrupted, requeued, finished, to the same bits."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import ROOT, dgmm, running
from fittings import FIT, assert_done_once, need
from servers.slurm import Slurm, missing, poll, slurm

pytestmark = pytest.mark.slow
SCRIPTS = ROOT / "jobs" / "slurm"
OPTIONS = " ".join(map(str, FIT[2:]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    need(missing())
    with slurm(tmp_path_factory.mktemp("slurm") / "server", cpus=8) as found:
        yield found


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    """The shipped file with what a user changes, for a Slurm of one machine."""
    values = yaml.safe_load((ROOT / "cluster-configs" / "slurm.yaml").read_text())
    del values["account"]
    values |= {"queue": "main", "processes": 1, "interface": "lo", "log_directory": str(tmp_path / "logs")}
    values["tls_directory"] = str(tmp_path)
    values["workers"] |= {"count": 2, "memory": "1GiB", "wait": 120}
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Submitted:
    """A script's job, and what it has written."""

    def __init__(self, server: Slurm, log: Path, job: str) -> None:
        self.server, self.log, self.job = server, log, job

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str) -> None:
        poll(lambda: text in self.text(), 120, lambda: f"no {text!r} in {self.text()}\n{self.server.logs()}")

    def finish(self) -> str:
        """The state in which it ends."""
        return self.server.wait(self.job, {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}, 180)


@pytest.fixture
def submit(server: Slurm, tmp_path: Path, data: Path, job_environment: dict[str, str]):
    def call(script: str, *options: str, **settings: object) -> Submitted:
        """As `sbatch jobs/slurm/...` in the checkout, with the settings at its top."""
        log = tmp_path / f"{script}-{len(list(tmp_path.iterdir()))}.log"
        memory = [] if any("--mem" in option for option in options) else ["--mem=1G"]
        where = ("--chdir", str(ROOT), "--output", str(log), *memory, *options)
        env = job_environment | {"DATA": str(data), **{name: str(value) for name, value in settings.items()}}
        return Submitted(server, log, server.submit(SCRIPTS / script, *where, env=env))

    return call


def test_interrupted_requeued_and_finished(submit, tmp_path, cluster_file, unbroken):
    settings = {"CHECKPOINT": tmp_path / "ck", "CLUSTER": cluster_file, "COMPONENTS": 3, "OPTIONS": OPTIONS}
    job = submit("fit.sbatch", **settings)
    job.wait_for("iteration 3:")
    job.server.signal(job.job, "USR1")  # as --signal=B:USR1@120 does
    job.wait_for("restart 1 of at most 20")
    assert "Interrupted: stopped by SIGUSR1" in job.text()
    assert "dgmm ended with exit code 75" in job.text()
    assert job.finish() == "COMPLETED", job.text()
    print(job.text())
    assert job.server.details(job.job)["Restarts"] == "1"
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken
    assert_done_once(job.text(), stops=1)
    again = submit("fit.sbatch", **settings)
    assert again.finish() == "COMPLETED", again.text()
    assert "is complete already: nothing to compute" in again.text()
    assert "slurm cluster" not in again.text(), "no worker was asked for"
    assert not list(tmp_path.glob(".dgmm-tls-*")), "temporary certificates are gone"


def test_a_cancelled_job_keeps_its_state_and_does_not_come_back(submit, tmp_path, cluster_file):
    job = submit("fit.sbatch", CHECKPOINT=tmp_path / "ck", CLUSTER=cluster_file, COMPONENTS=3, OPTIONS=OPTIONS)
    job.wait_for("iteration 2:")
    job.server.cancel(job.job)
    assert job.finish() == "CANCELLED"
    poll(lambda: not job.server.jobs(), 60, job.server.logs)
    assert job.server.details(job.job)["Restarts"] == "0"
    assert list((tmp_path / "ck").glob("iteration-*"))


def test_at_most_so_many_restarts(submit, tmp_path, cluster_file):
    job = submit(
        "fit.sbatch", CHECKPOINT=tmp_path / "ck", CLUSTER=cluster_file, COMPONENTS=3, OPTIONS=OPTIONS,
        MAX_RESTARTS=0,
    )  # fmt: skip
    job.wait_for("iteration 2:")
    job.server.signal(job.job, "USR1")
    assert job.finish() == "FAILED"
    assert "which is MAX_RESTARTS: submit the job again to go on" in job.text()


def test_a_worker_job_that_is_cancelled_in_a_pass_is_replaced(
    server, tmp_path, data, cluster_file, job_environment
):
    fit = ("fit", data, *FIT[:4], "--tol", 0, "--max-iter", 5000)
    call = (*fit, "--model", tmp_path / "m", "--checkpoint", tmp_path / "ck")
    env = {**job_environment, **server.environment}
    with running(*call, "--cluster", cluster_file, cwd=tmp_path, **env) as driver:
        driver.wait_for("iteration 3:")
        first = server.jobs()
        assert len(first) == 2
        server.cancel(first[0])
        poll(lambda: len(set(server.jobs()) - set(first)) == 1, 60, server.logs)
        driver.process.send_signal(signal.SIGUSR1)
        finished = driver.finish()
    assert finished.code == 75, finished.err
    assert "Traceback" not in finished.err
    poll(lambda: not server.jobs(), 30, server.logs)
    passes = json.loads(dgmm("info", tmp_path / "ck", "--json", cwd=tmp_path).out)["n_passes"]
    print(f"stopped after {passes} passes")
    assert dgmm(*call, "--max-passes", passes, cwd=tmp_path).code == 0
    assert dgmm(*fit, "--model", tmp_path / "alone", "--max-passes", passes, cwd=tmp_path).code == 0
    assert (tmp_path / "m").read_bytes() == (tmp_path / "alone").read_bytes()


def test_workers_leave_before_their_own_time_is_up_and_new_ones_come(
    server, tmp_path, data, cluster_file, job_environment
):
    fit = ("fit", data, *FIT[:4], "--tol", 0, "--max-iter", 5000)
    call = (*fit, "--model", tmp_path / "m", "--checkpoint", tmp_path / "ck")
    # As many at least as at most: none is sent away because there is too little to do.
    size = ("workers.count=null", "workers.minimum=2", "workers.maximum=2", "walltime=00:00:30")
    settings = [part for value in size for part in ("--set", value)]
    env = {**job_environment, **server.environment}
    with running(*call, "--cluster", cluster_file, *settings, cwd=tmp_path, **env) as driver:
        driver.wait_for("iteration 3:")
        first = set(server.jobs())
        assert first
        poll(lambda: not first & set(server.jobs()) and server.jobs(), 120, server.logs)
        driver.process.send_signal(signal.SIGUSR1)
        finished = driver.finish()
    assert finished.code == 75, finished.err
    assert "Traceback" not in finished.err
    assert {server.state(job) for job in first} == {"COMPLETED"}, "they left by themselves"
    passes = json.loads(dgmm("info", tmp_path / "ck", "--json", cwd=tmp_path).out)["n_passes"]
    assert dgmm(*call, "--max-passes", passes, cwd=tmp_path).code == 0
    assert dgmm(*fit, "--model", tmp_path / "alone", "--max-passes", passes, cwd=tmp_path).code == 0
    assert (tmp_path / "m").read_bytes() == (tmp_path / "alone").read_bytes()


def test_one_allocation_by_srun(submit, tmp_path, unbroken):
    settings = {"CHECKPOINT": tmp_path / "ck", "COMPONENTS": 3, "OPTIONS": OPTIONS, "WORKER_MEMORY": "1GB"}
    job = submit("fit-single-allocation.sbatch", "--ntasks=3", "--mem-per-cpu=100M", **settings)
    job.wait_for("iteration 3:")
    job.server.signal(job.job, "USR1")
    job.wait_for("restart 1 of at most 20")
    assert job.finish() == "COMPLETED", job.text()
    assert "tls://" in job.text()
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken
    assert not list((tmp_path / "ck.tls").iterdir()), "the key is gone"


def test_a_job_array_and_the_best_of_it(submit, tmp_path, data):
    fits = submit("select-array.sbatch", "--array=2-4", "--cpus-per-task=2", FOLDER=tmp_path, OPTIONS="--seed 3")
    best = submit("select-best.sbatch", f"--dependency=afterok:{fits.job}", FOLDER=tmp_path)
    assert best.finish() == "COMPLETED", best.text() + fits.text()
    assert f"lowest BIC: {tmp_path}/3.dgmm" in best.text()
    assert Path(f"{data}.best.dgmm").read_bytes() == (tmp_path / "3.dgmm").read_bytes()


def test_predict(submit, server, tmp_path, unbroken):
    (tmp_path / "m").write_bytes(unbroken)
    job = submit("predict.sbatch", "--cpus-per-task=2", MODEL=tmp_path / "m", OUT=tmp_path / "out.zarr")
    assert job.finish() == "COMPLETED", job.text()
    assert "labels, responsibilities, log density of 200,000 rows, 200,000 written" in job.text()


def test_refused_jobs_end_at_once_with_what_slurm_said(server, tmp_path, data, cluster_file, job_environment):
    call = ("fit", data, *FIT, "--model", tmp_path / "m", "--cluster", cluster_file, "--set", "queue=nowhere")
    with running(*call, cwd=tmp_path, **job_environment, **server.environment) as driver:
        finished = driver.finish()
    assert finished.code == 1
    assert "refused all 2 worker job(s)" in finished.err
    assert "invalid partition specified: nowhere" in finished.err
    assert "Traceback" not in finished.err
