"""A driver killed at any moment: the same fit again, elsewhere, ends with the bits of an unbroken one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from drivers import WHERE, Drivers
from facts import new_seed, tell

from dgmm import load
from dgmm.engine import archive

KILLS = 3


@dataclass
class Rows:
    """What is fitted, and the drivers that do it."""

    folder: Path
    drivers: Drivers

    def start(self, directory: str, model: str, where: str, seed: int | None = 5) -> int:
        return self.drivers.start(
            data=str(self.folder / "rows.zarr"),
            weights=str(self.folder / "weights.npy"),
            directory=directory, model=model, where=where, seed=seed, folder=str(self.folder),
            environment={name: value for name, value in os.environ.items() if name.startswith("AWS_")},
        )  # fmt: skip

    def labels(self, directory: str) -> bytes:
        return (self.folder / f"{Path(directory).name}.labels.npy").read_bytes()


@dataclass
class Unbroken:
    directory: str
    model: Path
    lines: list[str]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Rows of mixed magnitude in 70 blocks, and weights."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(11)
    n = 14_000
    rows = rng.standard_normal((n, 2)) * np.array([1, 1e3]) + 5 * rng.integers(3, size=(n, 1)) * np.array([1, 700])
    rows *= np.exp(0.7 * rng.standard_normal((n, 1)))
    data = zarr.create_array(folder / "rows.zarr", shape=rows.shape, chunks=(200, 2), dtype="f8")
    data[:] = rows
    np.save(folder / "weights.npy", rng.uniform(0.1, 3, n).astype("f4"))
    drivers = Drivers(folder / "log")
    yield Rows(folder, drivers)
    drivers.close()


@pytest.fixture(scope="module")
def unbroken(rows: Rows) -> Unbroken:
    """A run that nobody disturbed, and what it told."""
    directory, model = str(rows.folder / "unbroken"), rows.folder / "unbroken.dgmm"
    rows.start(directory, str(model), "sync")
    lines = rows.drivers.rest()
    assert lines.count("Searched") >= 3
    assert lines.count("Iterated") >= 6
    return Unbroken(directory, model, lines)


def killed_and_resumed(rows: Rows, unbroken: Unbroken, place: str, where: list[str]) -> float:
    """Run, kill and resume at each of the places in turn, and finish at the last; the longest wait."""
    events = sum(not line.startswith("rows") for line in unbroken.lines)
    directory, model = f"{place}/checkpoint{time.monotonic_ns()}", f"{place}/model{time.monotonic_ns()}"
    acknowledged, recoveries = 0, []
    for life in where[:-1]:
        began = time.monotonic()
        pid = rows.start(directory, model, life)
        events_left, rows_left = random.randint(0, events // len(where)), random.randrange(20)
        while events_left or rows_left:
            line = rows.drivers.line()
            assert not line.startswith("end"), rows.drivers.log.read_text()
            if line.startswith("rows"):
                rows_left = max(0, rows_left - 1)
            elif events_left:
                events_left -= 1
                acknowledged += line == "Iterated"
                recoveries.append(time.monotonic() - began)
                began = time.monotonic()
            else:
                acknowledged += line == "Iterated"
                break
        time.sleep(random.random() * 0.005)
        # Of a cluster the driver alone, or all of it.
        os.kill(pid, signal.SIGKILL) if random.random() < 0.5 else os.killpg(pid, signal.SIGKILL)
        while not (line := rows.drivers.line()).startswith("end"):
            acknowledged += line == "Iterated"
        assert line == f"end {-signal.SIGKILL}"
    began = time.monotonic()
    rows.start(directory, model, where[-1])
    first = ""
    while first != "Iterated":
        first = rows.drivers.line()
    recoveries.append(time.monotonic() - began)
    rest = [first, *rows.drivers.rest()]
    assert archive.content(model) == unbroken.model.read_bytes()
    assert rows.labels(directory) == rows.labels(unbroken.directory)
    assert rest.count("Iterated") <= unbroken.lines.count("Iterated") - acknowledged, "nothing is done again"
    return max(recoveries)


# In the default size most lives need no cluster, whose start takes seconds.
DEFAULT = [["sync", "threads", "threads", "2"], ["threads", "sync", "threads", "sync"]]


@pytest.mark.parametrize(
    ("runs", "place"),
    [
        (2, "disk"),
        pytest.param(2, "s3", marks=pytest.mark.slow),
        pytest.param(15, "disk", marks=pytest.mark.slow),
        pytest.param(100, "disk", marks=pytest.mark.long),
    ],
    indirect=["place"],
)
def test_killed_drivers(runs: int, place: str, rows: Rows, unbroken: Unbroken) -> None:
    random.seed(new_seed())
    lives = DEFAULT if runs == 2 else [random.choices(WHERE, k=random.randint(KILLS, 5) + 1) for _ in range(runs)]
    recovery = max(killed_and_resumed(rows, unbroken, place, where) for where in lives)
    kills = sum(len(where) - 1 for where in lives)
    tell(f"driver killed, {runs} runs", kills, kills, recovery, "parameters, history, labels")


def test_a_finished_fit_returns_at_once(rows: Rows, unbroken: Unbroken, tmp_path: Path) -> None:
    rows.start(unbroken.directory, str(tmp_path / "model"), "sync", seed=None)  # none: the recorded one
    assert rows.drivers.rest() == []
    one, two = load(unbroken.model), load(tmp_path / "model")
    assert one.covariances_.tobytes() == two.covariances_.tobytes()
    assert one.lower_bounds_ == two.lower_bounds_
