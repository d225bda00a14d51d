"""A draw has the rows of its definition, however many draw them, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import zarr
from cases import TYPES, mixture
from distributed import Client, LocalCluster

import dgmm.engine.draw
from dgmm.engine.draw import Draw, draw
from dgmm.engine.model import Model
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import CheckpointMismatch, NotEnoughMemory
from dgmm.mixture.frame import Frame

N, D, K, UNIT = 1234, 3, 4, 100


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(dgmm.engine.draw, "UNIT_ROWS", UNIT)
    monkeypatch.setattr(dgmm.engine.draw, "_TASK_BYTES", 2 * UNIT * (8 * D + 4))


def model(name="full", names=()) -> Model:
    parameters = mixture(name, K, D, np.random.default_rng(3))
    frame = Frame(np.array([10.0, -3.0, 0.5]), np.full(D, 2.0))
    return Model(parameters, frame, np.dtype("f8"), 9.0, True, (), 0, 0, 0.0, names)


def definition(model: Model, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit after unit, each from its own seed; all of one component after another."""
    p = model.parameters
    counts = np.random.default_rng(seed).multinomial(n, p.weights / p.weights.sum())
    labels = np.repeat(np.arange(K), counts)
    rows = np.empty((n, D))
    for start in range(0, n, UNIT):
        unit = slice(start, min(start + UNIT, n))
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(start,)))
        noise = rng.standard_normal((unit.stop - start, D))
        for k in range(K):
            own = labels[unit] == k
            rows[unit][own] = p.means[k] + p.covariance.colour(noise[own], p.covariances, k)
    return rows * model.frame.scale + model.frame.shift, labels


def drawn(path: Path, wanted: Draw) -> tuple[np.ndarray, np.ndarray]:
    output = wanted.open(path, "digest")
    assert draw(wanted, output) == wanted.n_rows
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return table[["x0", "x1", "x2"]].to_numpy(), table["label"].to_numpy()
    group = zarr.open_group(path, mode="r")
    return group["rows"][:], group["labels"][:]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_rows_of_the_definition(tmp_path, name, scheduler):
    expected = definition(model(name), N, 5)
    with dask.config.set(scheduler=scheduler):
        for out in ("out.zarr", "out.parquet"):
            rows, labels = drawn(tmp_path / out, Draw(model(name), N, 5))
            np.testing.assert_array_equal(rows, expected[0])
            np.testing.assert_array_equal(labels, expected[1])
    assert sorted(path.name for path in (tmp_path / "out.parquet").glob("*.parquet"))[-1] == "part-00012.parquet"


@pytest.mark.slow
def test_larger_draws_are_shared_out_to_any_number_of_workers(tmp_path, monkeypatch):
    wanted = Draw(model(), N, 5)
    assert wanted.local
    monkeypatch.setattr(dgmm.engine.draw, "LOCAL_BYTES", N * D * 8 - 1)
    assert not wanted.local
    monkeypatch.setattr(LocalScheduler, "map", None)
    output = wanted.open(tmp_path / "out.zarr", "digest")
    seen = []
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        assert draw(wanted, output, lambda *rows: seen.append(rows)) == N
    assert len(seen) == 7, "13 units, two a task"
    assert seen == sorted(seen)
    assert seen[-1] == (N, N)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/rows")[:], definition(model(), N, 5)[0])


@pytest.mark.slow
def test_of_three_workers_with_two_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(dgmm.engine.draw, "LOCAL_BYTES", 0)
    monkeypatch.setattr(dgmm.engine.draw, "_TASK_BYTES", 1)
    with LocalCluster(3, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        rows, _ = drawn(tmp_path / "out.zarr", Draw(model(), N, 5))
    np.testing.assert_array_equal(rows, definition(model(), N, 5)[0])


def test_goes_on_with_the_missing_units(tmp_path, monkeypatch):
    wanted = Draw(model(), N, 5)
    rows, labels = drawn(tmp_path / "out.zarr", wanted)
    assert draw(wanted, wanted.open(tmp_path / "out.zarr", "digest")) == 0
    zarr.open_group(tmp_path / "out.zarr").attrs["complete"] = False
    (tmp_path / "out.zarr/rows/c/3/0").unlink()
    (tmp_path / "out.zarr/labels/c/12").unlink()
    made, real = [], Draw.rows
    monkeypatch.setattr(Draw, "rows", lambda self, a, b: made.append((a, b)) or real(self, a, b))
    assert draw(wanted, wanted.open(tmp_path / "out.zarr", "digest")) == 134
    assert sorted(made) == [(300, 400), (1200, 1234)]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/rows")[:], rows)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/labels")[:], labels)


@pytest.mark.parametrize(("change", "text"), [({"n_rows": 1000}, "rows"), ({"seed": 6}, "seed")])
def test_another_draw_is_refused(tmp_path, change, text):
    for out in ("out.zarr", "out.parquet"):
        Draw(model(), N, 5).open(tmp_path / out, "digest")
        with pytest.raises(CheckpointMismatch, match=f"results of another {text}"):
            Draw(**{"model": model(), "n_rows": N, "seed": 5, **change}).open(tmp_path / out, "digest")


def test_columns_are_named_after_the_features(tmp_path):
    wanted = Draw(model(names=("depth", "salt", "heat")), 10, 0)
    draw(wanted, wanted.open(tmp_path / "out.parquet", "digest"))
    assert list(pd.read_parquet(tmp_path / "out.parquet")) == ["depth", "salt", "heat", "label"]


def test_memory_is_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalScheduler, "memory_per_thread", lambda self: 100 * 2**20)
    wanted = Draw(model(), N, 5)
    with pytest.raises(NotEnoughMemory, match=r"drawing rows of .*out.zarr .* needs .*smallest worker has 100"):
        draw(wanted, wanted.open(tmp_path / "out.zarr", "digest"))
