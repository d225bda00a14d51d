"""Thousands of iterations: no process of a fit grows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from commands import TIMEOUT, environment, running
from facts import tell
from servers.slurm import poll

EVERY = 50
# Dask keeps so many of the last events and transitions (1,000 unless told), and grows until it has them.
SHORT_LOGS = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "50"}
# And workers the call stacks of the last hour; clusters that dgmm starts do not.
NO_PROFILE = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
MIB = 2**20


@dataclass
class Watched:
    """A process, measured now and then."""

    name: str
    pid: int
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def measure(self) -> None:
        process = psutil.Process(self.pid)
        self.memory.append(process.memory_full_info().uss)
        self.descriptors.append(process.num_fds())
        self.threads.append(process.num_threads())

    @property
    def growth(self) -> float:
        """MiB per 100 iterations, by least squares."""
        return float(np.polyfit(np.arange(len(self.memory)) * EVERY, self.memory, 1)[0]) * 100 / MIB


@contextmanager
def started(folder: Path, **extra: str) -> Iterator[tuple[Path, list[Watched]]]:
    """A scheduler and a worker as processes of their own."""
    file, found = folder / "scheduler.json", []
    listen = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", file]
    processes = []
    try:
        for name, module, options in (
            ("scheduler", "dask_scheduler", ["--port", "0"]),
            ("worker", "dask_worker", ["--nthreads", "1", "--no-nanny", "--death-timeout", str(TIMEOUT)]),
        ):
            command = [sys.executable, "-m", f"distributed.cli.{module}", *listen, *options]
            processes.append(
                subprocess.Popen(command, env=environment(**extra), cwd=folder, stderr=subprocess.DEVNULL)
            )
            poll(lambda: file.exists() and file.read_text(), TIMEOUT, lambda: "no scheduler file")
            found.append(Watched(name, processes[-1].pid))
        yield file, found
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("iterations", "warm_up", "logs"),
    [
        pytest.param(600, 150, SHORT_LOGS, marks=pytest.mark.slow),
        pytest.param(5000, 1500, {}, marks=pytest.mark.long),
    ],
)
def test_no_process_grows(iterations: int, warm_up: int, logs: dict[str, str], tmp_path: Path) -> None:
    # Plain EM for a mixture of normals crawls on heavy tails: here it gains something for over 5,000 iterations.
    rows = np.random.default_rng(2).standard_t(4, size=(2_000, 1))
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(500, 1))
    with started(tmp_path, **logs, **NO_PROFILE) as (file, watched):
        call = (
            *("fit", tmp_path / "x.zarr", "-k", 5, "--seed", 0, "--n-init", 1, "--sample-size", 200),
            *("--tol", 0, "--max-iter", iterations, "--checkpoint", tmp_path / "ck", "--model", tmp_path / "m"),
            *("--no-accelerate", "--scheduler", file, "--json"),
        )
        with running(*call, cwd=tmp_path, DASK_DGMM__BLOCKS_PER_LEAF="1") as command:
            watched.append(Watched("driver", command.process.pid))
            for iteration in range(warm_up, iterations, EVERY):
                command.wait_for(f"iteration {iteration}:")
                for process in watched:
                    process.measure()
            finished = command.finish()
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["n_iter"] == iterations, "EM went on to the end"
    for process in watched:
        told = (
            f"{process.name}: {process.growth:.3f} MiB per 100 iterations, {process.memory[-1] / MIB:.0f} in all"
        )
        print(f"{told}; {process.descriptors[-1]} descriptors, {process.threads[-1]} threads")
        assert process.growth < 1, told
        for counts in (process.descriptors, process.threads):
            # A pool may start a thread late, or two; what leaks grows with the iterations.
            half = len(counts) // 2
            assert max(counts[half:]) <= max(counts[:half]) + 2, f"{process.name}: {counts}"
    worst = max(watched, key=lambda process: process.growth)
    tell(f"{iterations} iterations ({worst.name} grows by {worst.growth:.2f} MiB per 100)", iterations, iterations)
