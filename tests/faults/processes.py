"""A scheduler and workers that are processes of a test's own, to be killed by pid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from commands import ROOT, TIMEOUT, environment
from distributed import Client
from servers.slurm import poll

_PATH = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
_COMMON = ("--host", "127.0.0.1", "--no-dashboard")


@dataclass(frozen=True)
class Scheduler:
    """A running ``dask scheduler``."""

    process: psutil.Popen
    address: str

    @contextmanager
    def workers(self, count: int, *options: str, **variables: str) -> Iterator[None]:
        """Workers of one thread, each with a nanny that starts it again."""
        with _started(
            "dask_worker",
            self.address,
            "--nworkers",
            str(count),
            "--nthreads",
            "1",
            *_COMMON,
            *options,
            **variables,
        ):
            yield


@contextmanager
def scheduler(folder: Path, **variables: str) -> Iterator[Scheduler]:
    """A scheduler on 127.0.0.1."""
    file = folder / f"scheduler-{os.urandom(4).hex()}.json"
    with _started(
        "dask_scheduler", "--port", "0", "--scheduler-file", str(file), *_COMMON, **variables
    ) as process:
        # Dask makes the file first, and fills it then.
        poll(lambda: file.exists() and file.read_text(), TIMEOUT, lambda: f"no scheduler: {process.poll()}")
        yield Scheduler(process, json.loads(file.read_text())["address"])


@contextmanager
def _started(name: str, *arguments: str, **variables: str) -> Iterator[psutil.Popen]:
    process = psutil.Popen(
        [sys.executable, "-m", f"distributed.cli.{name}", *arguments],
        env=environment(**{"PYTHONPATH": _PATH, **variables}),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        left = [process]
        with suppress(psutil.NoSuchProcess):
            left += process.children(recursive=True)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, TIMEOUT)


def pids(client: Client) -> dict[str, int]:
    """The process of each worker, by address."""
    found: dict[str, int] = client.run(os.getpid, on_error="ignore")
    return found


def wait_for(true: Callable[[], object], what: str) -> None:
    """Until it is true, or far too long."""
    poll(true, TIMEOUT, lambda: what)
