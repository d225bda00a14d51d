"""A prediction that is killed at any moment ends with the bytes of an unbroken one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from commands import TIMEOUT
from drivers import WHERE, Drivers
from facts import new_seed, tell

import dgmm

N, D, K = 160_000, 4, 3
CHUNK = 10_000
WANTED = ["--labels", "--top", "2", "--log-density", "--anomaly-quantile", "0.001", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in 16 blocks, a model, and what an unbroken prediction writes."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, D)) + 3 * rng.integers(K, size=(N, 1))
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(CHUNK, D))
    dgmm.GaussianMixture(K, random_state=0, tol=1e-2).fit(rows[:5_000]).save(folder / "m")
    return folder


@pytest.fixture(scope="module")
def drivers(folder: Path) -> Iterator[Drivers]:
    drivers = Drivers(folder / "log")
    yield drivers
    drivers.close()


def start(drivers: Drivers, folder: Path, out: Path, where: str) -> int:
    call = ["predict", "x.zarr", "--model", "m", *WANTED, "--out", str(out)]
    return drivers.start(call=call, where=where, folder=str(folder), environment={})


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def units(out: Path) -> int:
    """Stored in whole, of what is written last."""
    last = out / "anomalies" / "c" if out.suffix == ".zarr" else out
    return sum(file.suffix in ("", ".parquet") for file in last.iterdir()) if last.is_dir() else 0


def ended(pid: int) -> bool:
    """Whether a driver has come to its end."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def workers(pid: int) -> list[int]:
    """Once there are some; none of a driver that has ended."""
    deadline = time.monotonic() + TIMEOUT
    while not ended(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(pid).children(recursive=True)
            if found := [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]:
                return found
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return []


def kill(pid: int, what: str) -> None:
    """The driver alone, one of its workers, or all of them."""
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        if what == "worker":
            for worker in random.sample(found := workers(pid), min(1, len(found))):
                os.kill(worker, signal.SIGKILL)
        elif what == "driver":
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)


def wait(moment: int, out: Path, pid: int) -> bool:
    """Until so many units are written; whether the driver is there still."""
    deadline = time.monotonic() + TIMEOUT
    while units(out) < moment:
        if ended(pid):
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(random.random() * 0.01)
    return True


def survives(drivers: Drivers, folder: Path, out: Path, lives: list[tuple[str, str]], total: int) -> float:
    """Run and kill at each place, and finish; the longest time until something more is written."""
    recovery = 0.0
    for number, (where, what) in enumerate(lives):
        had, began = units(out), time.monotonic()
        pid = start(drivers, folder, out, where)
        # The first may be killed before anything is there, the others once there is more than was.
        if wait(had + (number > 0), out, pid):
            recovery = max(recovery, time.monotonic() - began)
            if wait(min(had + random.randint(number > 0, max(1, total // len(lives))), total), out, pid):
                kill(pid, what)
        line = drivers.line()
        assert line in ("end 0", "end -9"), drivers.log.read_text()
    began = time.monotonic()
    start(drivers, folder, out, "threads")
    assert drivers.line() == "end 0", drivers.log.read_text()
    return max(recovery, time.monotonic() - began)


DEFAULT = {
    ".zarr": [("threads", "group"), ("1", "driver")],
    ".parquet": [("sync", "group")],
}


@pytest.mark.parametrize("kind", [".zarr", ".parquet"])
@pytest.mark.parametrize(
    "kills", [3, pytest.param(10, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.long)]
)
def test_killed_predictions(kills: int, kind: str, drivers: Drivers, folder: Path, tmp_path: Path) -> None:
    random.seed(new_seed())
    unbroken = tmp_path / f"unbroken{kind}"
    start(drivers, folder, unbroken, "threads")
    assert drivers.line() == "end 0", drivers.log.read_text()
    expected, total = content(unbroken), units(unbroken)
    assert total >= 8

    def life() -> tuple[str, str]:
        where = random.choice(WHERE)
        return where, random.choice(["group", "driver", "worker"] if where.isdigit() else ["group"])

    lives = DEFAULT[kind] if kills == 3 else [life() for _ in range(kills)]
    runs = [lives[i : i + 5] for i in range(0, len(lives), 5)]
    recoveries = []
    for number, part in enumerate(runs):
        out = tmp_path / f"{number}{kind}"
        recoveries.append(survives(drivers, folder, out, part, total))
        assert content(out) == expected
    tell(f"predict killed, to {kind}", len(lives), len(lives), max(recoveries), "all files")
