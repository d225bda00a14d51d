"""A fit that lasts a known number of iterations, scripts that run it, and what to do where a server is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from commands import ROOT, TIMEOUT
from servers.slurm import poll

ITERATIONS = 40
FIT = ("-k", 3, "--seed", 3, "--tol", 0, "--max-iter", ITERATIONS)


# On the fixture `place`, where the same takes long on S3.
SLOW_ON_S3 = pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)


def need(missing: str) -> None:
    """Skip, saying why, where programs are not installed; in CI, which installs them, fail."""
    if missing:
        reason = f"not installed: {missing}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def assert_done_once(text: str, stops: int) -> None:
    """No iteration was done again; a stop may come when one is on disk and has not been told yet."""
    told = [int(number) for number in re.findall(r"^iteration (\d+):", text, re.M)]
    assert len(set(told)) == len(told), f"iterations {told}"
    assert max(told) - stops <= len(told) <= max(told), f"iterations {told}"


class Script:
    """A running script of jobs/, and what it has written."""

    def __init__(self, name: str, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", ROOT / "jobs" / name],
                cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, text: str) -> None:
        poll(lambda: text in self.log.read_text(), TIMEOUT, self.log.read_text)

    def finish(self) -> tuple[int, str]:
        return self.process.wait(TIMEOUT), self.log.read_text()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
