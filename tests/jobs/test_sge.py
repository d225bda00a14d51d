"""The script of jobs/sge, submitted to a real Grid Engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
import yaml
from commands import ROOT, dgmm
from fittings import FIT, assert_done_once, need
from servers.sge import Sge, missing, sge
from servers.slurm import poll

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sge]:
    need(missing())
    with sge(tmp_path_factory.mktemp("sge") / "server") as found:
        yield found


def test_warned_run_again_and_finished(server, tmp_path, data, job_environment):
    values = yaml.safe_load((ROOT / "cluster-configs" / "sge.yaml").read_text())
    values |= {
        "queue": "main.q",
        "interface": "lo",
        "log_directory": str(tmp_path),
        "tls_directory": str(tmp_path),
    }
    values["workers"] |= {"count": 2, "memory": "1GiB", "wait": 120}
    (tmp_path / "sge.yaml").write_text(yaml.safe_dump(values))
    log, checkpoint, fit = tmp_path / "log", tmp_path / "ck", (*FIT[:4], "--tol", 0, "--max-iter", 5000)
    settings = {
        "DATA": data, "CHECKPOINT": checkpoint, "CLUSTER": tmp_path / "sge.yaml", "COMPONENTS": 3,
        "OPTIONS": " ".join(map(str, fit[2:])), "MAX_RESTARTS": 1, "WARN_AFTER": 30, "VENV": sys.prefix,
    }  # fmt: skip
    env = job_environment | {name: str(value) for name, value in settings.items()}
    # The fit is endless, and each run of it is warned after so many seconds.
    options = ("-wd", str(ROOT), "-o", str(log))
    job = server.submit(ROOT / "jobs" / "sge" / "fit.sge", *options, env=env)
    server.wait_gone(job, 300)
    text = log.read_text()
    assert [run["exit_status"] for run in server.accounting(job)] == ["99", "1"], text + server.logs()
    assert text.count("Interrupted: stopped by SIGUSR1") == 2, text
    assert "restart 1 of at most 1" in text
    assert "restarted 1 times, which is MAX_RESTARTS: submit the job again to go on" in text
    assert "sge cluster: " in text
    assert_done_once(text, stops=2)
    passes = json.loads(dgmm("info", checkpoint, "--json", cwd=tmp_path).out)["n_passes"]
    print(f"{passes} passes")
    assert passes > 3
    # Both go to where the job came.
    call = ("fit", data, *fit, "--max-passes", passes, "--workers", 2, "--model")
    assert dgmm(*call, tmp_path / "m", "--checkpoint", checkpoint, cwd=tmp_path).code == 0
    assert dgmm(*call, tmp_path / "alone", cwd=tmp_path).code == 0
    assert (tmp_path / "m").read_bytes() == (tmp_path / "alone").read_bytes()
    poll(lambda: not server.states(), 60, server.logs)
