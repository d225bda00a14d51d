"""Killed at any moment, the same fit again ends with the bits of an unbroken one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from fittings import SLOW_ON_S3

from dgmm import load
from dgmm.engine import archive

DRIVER = """
import sys
import dask, dgmm.data.zarr_array, dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.engine.run import Silence

dgmm.data.zarr_array.BLOCK_BYTES = 1
dgmm.engine.settings.SAMPLE_ROWS = 2000

class Tell(Silence):
    def on_rows(self, done, total):
        print("rows", done, flush=True)
    def on_event(self, event):
        print(type(event).__name__, flush=True)

if __name__ == "__main__":
    data, weights, directory, model, workers = sys.argv[1:]
    fit = GaussianMixture(3, random_state=None if workers == "?" else 5, n_init=3, tol=0, max_iter=11)
    def run():
        with dask.config.set({"dgmm.blocks-per-leaf": 1}):
            fit.fit(data, sample_weight=weights, checkpoint=directory, observer=Tell()).save(model)
    if workers.isdigit() and int(workers):
        from distributed import Client, LocalCluster
        with LocalCluster(int(workers), threads_per_worker=1, dashboard_address="127.0.0.1:0") as c, Client(c):
            run()
    else:
        with dask.config.set(scheduler="synchronous" if workers == "sync" else "threads"):
            run()
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Rows of mixed magnitude in 70 blocks, weights in other chunks."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(11)
    n = 14_000
    rows = rng.standard_normal((n, 2)) * np.array([1, 1e3]) + 5 * rng.integers(3, size=(n, 1)) * np.array([1, 700])
    rows *= np.exp(0.7 * rng.standard_normal((n, 1)))
    data = zarr.create_array(folder / "rows.zarr", shape=rows.shape, chunks=(200, 1), dtype="f8")
    data[:] = rows
    weights = zarr.create_array(folder / "weights.zarr", shape=(n,), chunks=(999,), dtype="f4")
    weights[:] = rng.uniform(0.1, 3, n)
    (folder / "driver.py").write_text(DRIVER)
    return folder


def start(stored: Path, directory: Path | str, model: Path | str, workers: str) -> subprocess.Popen[str]:
    arguments = [stored / "driver.py", stored / "rows.zarr", stored / "weights.zarr", directory, model, workers]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(stored: Path, directory: Path | str, model: Path | str, workers: str) -> list[str]:
    process = start(stored, directory, model, workers)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.split("\n")


@pytest.fixture(scope="module")
def unbroken(stored, tmp_path_factory):
    """The folder of a run that nobody disturbed, and the lines that it printed."""
    folder = tmp_path_factory.mktemp("unbroken")
    lines = finish(stored, folder / "checkpoint", folder / "model", "sync")
    assert lines.count("Searched") >= 3
    assert lines.count("Iterated") >= 10
    return folder, lines


def killed_and_resumed(stored, unbroken, place: str, choices: list[str], kills: int, seed: int) -> None:
    folder, lines = unbroken
    rng = random.Random(seed)
    directory, model = f"{place}/checkpoint", f"{place}/model"
    acknowledged = 0
    for _ in range(kills):
        process = start(stored, directory, model, rng.choice(choices))
        for _ in range(rng.randrange(1, len(lines) // 2)):
            line = process.stdout.readline()
            if not line:
                break
            acknowledged += line == "Iterated\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    rest = finish(stored, directory, model, rng.choice(choices))
    assert archive.content(model) == (folder / "model").read_bytes(), f"seed {seed}"
    # What was acknowledged was not done again.
    assert rest.count("Iterated") <= lines.count("Iterated") - acknowledged


@SLOW_ON_S3
@pytest.mark.parametrize("seed", range(1))
def test_killed_driver(stored, unbroken, place, seed):
    killed_and_resumed(stored, unbroken, place, ["sync", "threads"], kills=3, seed=seed)


@pytest.mark.slow
def test_killed_driver_on_a_cluster(stored, unbroken, place):
    killed_and_resumed(stored, unbroken, place, ["2"], kills=1, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_killed_driver_with_other_workers(stored, unbroken, place, seed):
    killed_and_resumed(stored, unbroken, place, ["sync", "threads", "1", "2", "3"], kills=3, seed=seed)


def test_a_finished_fit_returns_at_once(stored, unbroken, tmp_path):
    folder, lines = unbroken
    again = finish(stored, folder / "checkpoint", tmp_path / "model", "?")  # no seed: the recorded one
    assert "Iterated" in lines
    assert again == [""]
    one, two = load(folder / "model"), load(tmp_path / "model")
    assert one.covariances_.tobytes() == two.covariances_.tobytes()
    assert one.lower_bounds_ == two.lower_bounds_
