"""A fit on machines that answer to ssh: a real sshd of this one, asked three times."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from commands import ROOT, dgmm
from fittings import assert_done_once, need
from servers.slurm import poll
from servers.sshd import Sshd, missing, sshd

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    need(missing())
    (tmp_path / "sshd").mkdir()
    with sshd(tmp_path / "sshd") as found:
        yield found


@pytest.fixture
def cluster_file(server: Sshd, tmp_path: Path) -> Path:
    """The shipped file with what a user changes."""
    values = yaml.safe_load((ROOT / "cluster-configs" / "ssh.yaml").read_text())
    values |= {
        "hosts": ["127.0.0.1", "localhost"], "user": server.user, "ssh_port": server.port, "interface": "lo",
        "key": str(server.key), "known_hosts": str(server.known_hosts), "tls_directory": str(tmp_path),
    }  # fmt: skip
    values["workers"] |= {"per_host": 1, "memory": "1GiB"}
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield " ".join(process.cmdline())


def test_stopped_and_finished(start_script, server, cluster_file, tmp_path, unbroken):
    run = start_script("ssh/fit.sh")
    run.wait_for("iteration 3:")
    shown = list(command_lines())
    assert any("distributed.cli.dask_spec" in line for line in shown)
    assert not any("PRIVATE KEY" in line for line in shown), "keys travel through ssh, not on command lines"
    run.process.send_signal(signal.SIGUSR1)
    code, text = run.finish()
    assert code == 75, text
    poll(lambda: not server.processes(), 30, lambda: str(server.processes()))
    code, text = start_script("ssh/fit.sh").finish()
    assert code == 0, text
    assert re.search(r"ssh cluster: \d worker\(s\) of 1.00 GiB at tls://127.0.0.1", text)
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken
    poll(lambda: not server.processes(), 30, lambda: str(server.processes()))
    assert list(tmp_path.glob(".dgmm-tls-*")) == [], "temporary certificates are gone"


def test_a_driver_that_is_killed_leaves_nothing(start_script, server, cluster_file, tmp_path):
    run = start_script("ssh/fit.sh")
    run.wait_for("iteration 2:")
    assert len(server.processes()) > 3
    assert len(list(tmp_path.glob(".dgmm-tls-*"))) == 1
    run.kill()
    poll(lambda: not server.processes(), 30, lambda: str(server.processes()))
    assert list(tmp_path.glob(".dgmm-tls-*")) == []


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_scheduler_that_is_lost_is_replaced(start_script, server, cluster_file, tmp_path, unbroken, fault):
    run = start_script("ssh/fit.sh", DASK_DGMM__SCHEDULER_TIMEOUT="10 s")
    run.wait_for("iteration 3:")
    schedulers = [
        process for process in server.processes() if "distributed.Scheduler" in " ".join(process.cmdline())
    ]
    for process in schedulers:  # with the shell that started it
        process.send_signal(fault)
    struck = time.monotonic()
    run.wait_for("Starting a new cluster and going on there (1 of at most 3)")
    run.wait_for("iteration 5:")
    recovered = time.monotonic() - struck
    code, text = run.finish()
    assert code == 0, text
    assert_done_once(text, 0)
    assert (tmp_path / "ck.dgmm").read_bytes() == unbroken
    print(f"| scheduler {fault.name}, new cluster by ssh | 1 | 1 | {recovered:.1f} s | yes |")
    for process in schedulers:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)  # a frozen one leaves when it wakes up
    poll(lambda: not server.processes(), 30, lambda: str(server.processes()))
    assert list(tmp_path.glob(".dgmm-tls-*")) == [], "temporary certificates are gone"


def test_hosts_that_refuse(cluster_file, server, tmp_path):
    (tmp_path / "none").write_text("")
    for setting, why in (
        (f"known_hosts={tmp_path / 'none'}", "HostKeyNotVerifiable"),
        ("user=nobody", "PermissionDenied"),
        ("ssh_port=9", "ConnectionRefusedError"),
        ("python=/nowhere/python", "failed to start"),
    ):
        finished = dgmm("cluster", "run", cluster_file, "--set", setting, cwd=tmp_path)
        assert finished.code == 1, finished.out
        assert "Error: no cluster by ssh: " in finished.err
        assert why in finished.err
        assert "Traceback" not in finished.err
        assert list(tmp_path.glob(".dgmm-tls-*")) == []
