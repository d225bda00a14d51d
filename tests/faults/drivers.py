"""Fits and commands in processes of their own, to be killed: one process imports all, and forks a driver for each.

As a program it reads a line of JSON for each driver, and tells on standard output what becomes of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import dask
import numpy as np

import dgmm.data.parquet_output
import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.cli import options
from dgmm.cli.run import run as run_command
from dgmm.data.zarr_array import ZarrSource
from dgmm.engine.run import Silence

WHERE = ("sync", "threads", "1", "2", "3")
"""Where a driver computes: in itself, or on so many workers."""


def _arrive_in_another_order() -> None:
    """Blocks, here and on workers (which run this module too), take a random time to read."""
    read = ZarrSource.read

    def late(self: ZarrSource, start: int, stop: int) -> Any:
        time.sleep(random.SystemRandom().random() * 0.001)
        return read(self, start, stop)

    ZarrSource.read = late  # type: ignore[method-assign]


if __name__ in ("__main__", "__mp_main__"):
    dgmm.data.zarr_array.BLOCK_BYTES = 1
    dgmm.engine.settings.SAMPLE_ROWS = 2000
    dgmm.data.parquet_output.PART_ROWS = 20_000
    _arrive_in_another_order()


class Tell(Silence):
    def on_rows(self, done: int, total: int) -> None:
        print("rows", done, flush=True)

    def on_event(self, event: object) -> None:
        print(type(event).__name__, flush=True)


def fit(data: str, weights: str, directory: str, model: str, where: str, seed: int | None) -> None:
    mixture = GaussianMixture(3, random_state=seed, n_init=3, tol=0, max_iter=7)

    def run() -> None:
        # Whether blocks are read again or stay in memory is no part of what a fit is.
        kept = random.SystemRandom().choice([0, "1 GiB"])
        with dask.config.set({"dgmm.blocks-per-leaf": 1, "dgmm.kept-bytes": kept}):
            mixture.fit(data, sample_weight=weights, checkpoint=directory, observer=Tell()).save(model)
            np.save(f"{Path(directory).name}.labels.npy", np.asarray(mixture.predict(data)))

    if where.isdigit():
        from distributed import Client, LocalCluster

        listen = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(int(where), threads_per_worker=1, **listen) as cluster, Client(cluster):
            run()
    else:
        with dask.config.set(scheduler="synchronous" if where == "sync" else "threads"):
            run()


def command(call: list[str], where: str) -> None:
    """A command of ``dgmm`` that computes."""
    sys.argv = ["dgmm", *call, *(["--workers", where] if where.isdigit() else [])]
    if not where.isdigit():
        options.Where.client = lambda self, work: contextlib.nullcontext()  # type: ignore[method-assign]
        dask.config.set(scheduler="synchronous" if where == "sync" else "threads")
    with contextlib.redirect_stdout(sys.stderr):
        assert run_command() == 0


def _drive(arguments: dict[str, Any]) -> None:
    os.setsid()
    print(f"pid {os.getpid()}", flush=True)
    os.environ.update(arguments.pop("environment"))
    os.chdir(arguments.pop("folder"))
    code = 1
    try:
        command(**arguments) if "call" in arguments else fit(**arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Drivers:
    """The process that forks, seen from a test."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip

    def start(self, **arguments: Any) -> int:
        """The process id of a new driver."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return int(self.line().removeprefix("pid "))

    def line(self) -> str:
        """What a driver tells next: ``rows N``, the name of an event, or ``end CODE``."""
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return line.strip()

    def rest(self) -> list[str]:
        """What it tells until it ends, without the end; it must have ended well."""
        lines = []
        while not (line := self.line()).startswith("end "):
            lines.append(line)
        assert line == "end 0", self.log.read_text()
        return lines

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _drive(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(f"end {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
