"""Runs the command line as a subprocess, in its own process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import psutil
import pytest

from dgmm.cli import run as run_module

ROOT = Path(__file__).parents[1]
TIMEOUT = 120


def environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DASK_", "PYTEST", "PYTHONWARN", "COV"))}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@dataclass
class Finished:
    code: int
    out: str
    err: str


class Running:
    """A command in flight; its standard error is read line by line."""

    def __init__(self, arguments: tuple[object, ...], cwd: Path, **extra: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dgmm", *map(str, arguments)],
            cwd=cwd,
            env=environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: Queue[str | None] = Queue()
        self._seen: list[str] = []
        self._out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_err, daemon=True),
            threading.Thread(target=lambda: self._out.append(self.process.stdout.read()), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_err(self) -> None:
        for line in self.process.stderr:
            self._seen.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """The first line with `text`."""
        while (line := self._lines.get(timeout=TIMEOUT)) is not None:
            if text in line:
                return line
        message = f"no line with {text!r} in: {''.join(self._seen)}"
        raise AssertionError(message)

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def finish(self) -> Finished:
        code = self.process.wait(timeout=TIMEOUT)
        for reader in self._readers:
            reader.join(timeout=TIMEOUT)
        return Finished(code, "".join(self._out), "".join(self._seen))


@contextmanager
def running(*arguments: object, cwd: Path, **extra: str) -> Iterator[Running]:
    command = Running(arguments, cwd, **extra)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.signal_group(signal.SIGKILL)
        command.process.wait()
        command.process.stdout.close()
        command.process.stderr.close()


def dgmm(*arguments: object, cwd: Path, **extra: str) -> Finished:
    with running(*arguments, cwd=cwd, **extra) as command:
        return command.finish()


def assert_listens_here_only(pid: int) -> None:
    """A command with a cluster, all of it."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    sockets = [c for p in processes for c in connections(p) if c.status == psutil.CONN_LISTEN]
    assert len(sockets) >= 4, "scheduler, dashboard, two workers"
    assert {c.laddr.ip for c in sockets} == {"127.0.0.1"}


def connections(process: psutil.Process) -> list:
    listing = getattr(process, "net_connections", None) or process.connections  # psutil 5 has the latter
    return listing(kind="inet")


def in_process(monkeypatch: pytest.MonkeyPatch, *arguments: object, local: bool = False) -> int:
    """The exit code of a command that starts no cluster; `local`: of one that would, on Dask's local scheduler."""
    monkeypatch.setattr(sys, "argv", ["dgmm", *map(str, arguments)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    if local:
        monkeypatch.setattr("dgmm.cli.options.Where.client", lambda where, source: nullcontext())
    else:
        monkeypatch.setattr("dgmm.cli.options.client_of", _no_cluster)
    return run_module.run()


def _no_cluster(*_: object) -> None:
    message = "a cluster was started"
    raise AssertionError(message)
