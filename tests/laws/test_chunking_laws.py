"""Chunks, leaves and schedulers are how a fit is computed, not what it finds."""

from __future__ import annotations

import warnings
from functools import reduce
from operator import add

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from cases import TYPES, assert_close, mixture
from sklearn.exceptions import ConvergenceWarning

import dgmm.data.zarr_array
import dgmm.engine.passes
import dgmm.engine.settings
from dgmm import GaussianMixture

N, D, K = 2310, 3, 3  # 77 blocks of 30 rows: no power of two
FITTED = ("weights_", "means_", "covariances_", "lower_bounds_")
all_types = pytest.mark.parametrize("name", TYPES)


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    """More rows than the sample, so that the fit passes over all of them."""
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(8)
    drawn = mixture("full", K, D, rng, spread=4.0).sample(N, rng)[0]
    # Mixed magnitude: neither features nor rows are of one size, and rows are in no order.
    drawn *= 10.0 ** rng.uniform(-1, 1, (N, 1)) * np.array([1e-3, 1.0, 1e4])
    return rng.permutation(drawn)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(9).integers(0, 4, N).astype(float)


def fitted(data, name="full", sample_weight=None, max_iter=4, **config):
    with warnings.catch_warnings(), dask.config.set({"scheduler": "synchronous", **config}):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations are enough here
        model = GaussianMixture(K, covariance_type=name, tol=0.0, max_iter=max_iter, random_state=1, reg_covar=0)
        return model.fit(data, sample_weight=sample_weight)


def bits(model):
    return [np.asarray(getattr(model, attribute)).tobytes() for attribute in FITTED]


def assert_same(a, b, tolerance=1e-10):
    assert a.n_iter_ == b.n_iter_ == 4
    size = np.array([1e-3, 1.0, 1e4])
    assert_close(a.weights_, b.weights_, tolerance, "weights")
    assert_close(a.means_ / size, b.means_ / size, tolerance, "means")
    if a.covariance_type in ("full", "tied"):
        size = size * size[:, None]
    elif a.covariance_type == "diag":
        size = size**2
    else:
        size = 1.0
    assert_close(a.covariances_ / size, b.covariances_ / size, tolerance, "covariances")
    assert_close(a.lower_bounds_, b.lower_bounds_, tolerance, "lower bounds")


@pytest.fixture(scope="module")
def ragged():
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, N), 69, replace=False))
    return tuple(int(n) for n in np.diff([0, *cuts, N]))


# --- chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@all_types
def test_any_chunking_of_a_dask_array_gives_the_same_answer(rows, weights, ragged, name, weighted):
    sample_weight = weights if weighted else None
    whole = fitted(rows, name, sample_weight)
    for chunks in ((30, D), (1500, 2), (ragged, (1, D - 1))):
        chunked = da.from_array(rows, chunks=chunks)
        chunked_weights = None if sample_weight is None else da.from_array(sample_weight, chunks=177)
        assert_same(fitted(chunked, name, chunked_weights), whole)


@pytest.mark.parametrize(
    ("name", "chunks"),
    [("full", (30, D)), ("full", (17, 2)), ("full", (2309, D)), ("full", (N, 1))]
    + [(name, (330, 1)) for name in TYPES],
)
def test_any_chunking_of_a_zarr_array_gives_the_same_answer(tmp_path, monkeypatch, rows, name, chunks):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)  # a block is one chunk of rows
    stored = zarr.create_array(tmp_path / "rows.zarr", shape=rows.shape, chunks=chunks, dtype=rows.dtype)
    stored[:] = rows
    assert_same(fitted(tmp_path / "rows.zarr", name), fitted(rows, name))


def test_one_row_a_chunk_gives_the_same_answer(rows):
    few = rows[:1200]
    assert_same(fitted(da.from_array(few, chunks=(1, D)), **{"dgmm.blocks-per-leaf": 64}), fitted(few))


def test_the_full_passes_see_all_rows(rows):
    # Otherwise the tests here would compare fits of the same sample.
    passes = fitted(da.from_array(rows, chunks=(30, D)), max_iter=1)
    half = fitted(da.from_array(rows, chunks=(30, D)), max_iter=1, sample_weight=(np.arange(N) % 2).astype(float))
    assert passes._model.n_rows == N
    assert passes._model.weight == N
    assert half._model.weight == N // 2


# --- leaves and schedulers -----------------------------------------------------------------------------------


LEAVES = [(1, "threads"), (2, "threads"), (4, "synchronous"), (8, "threads"), (128, "threads"), (None, "threads")]


@pytest.mark.parametrize(
    ("name", "leaves"),
    [("full", LEAVES), ("tied", LEAVES[3:4]), ("diag", LEAVES[3:4]), ("spherical", LEAVES[3:4])],
)
def test_leaves_of_any_size_and_both_local_schedulers_give_the_same_bits(rows, weights, name, leaves):
    data = da.from_array(rows, chunks=(30, D))
    expected = fitted(data, name, weights, max_iter=10, **{"dgmm.blocks-per-leaf": 1})
    assert expected.n_iter_ == 10
    for blocks, scheduler in leaves:
        config = {"dgmm.blocks-per-leaf": blocks, "scheduler": scheduler, "num_workers": 3}
        assert bits(fitted(data, name, weights, max_iter=10, **config)) == bits(expected)


def test_leaves_of_any_size_give_the_same_bits_on_zarr(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    stored = zarr.create_array(tmp_path / "rows.zarr", shape=rows.shape, chunks=(30, 2), dtype=rows.dtype)
    stored[:] = rows
    found = [
        bits(fitted(stored, **{"dgmm.blocks-per-leaf": b, "scheduler": s}))
        for b, s in ((1, "threads"), (8, "synchronous"), (16, "threads"))
    ]
    assert all(one == found[0] for one in found)


class ArrivalOrder:
    """What would be simpler: add whatever comes next."""

    def __init__(self):
        self._values = []

    def __class_getitem__(cls, _):
        return cls

    def add(self, value, level=0):
        self._values.append(value)

    def total(self):
        return reduce(add, self._values)


def test_adding_in_order_of_arrival_would_give_other_bits(monkeypatch, rows):
    data = da.from_array(rows, chunks=(30, D))
    monkeypatch.setattr(dgmm.engine.passes, "BinaryCounter", ArrivalOrder)
    found = [bits(fitted(data, **{"dgmm.blocks-per-leaf": blocks})) for blocks in (1, 4)]
    assert found[0] != found[1]


def test_results_a_row_are_the_same_for_any_chunking(rows):
    model = fitted(rows)
    for chunks in ((30, D), (200, 1)):
        data = da.from_array(rows, chunks=chunks)
        with dask.config.set(scheduler="synchronous"):
            np.testing.assert_array_equal(model.predict(data).compute(), model.predict(rows))
            assert_close(model.predict_proba(data).compute(), model.predict_proba(rows), 1e-12)
            assert_close(model.score_samples(data).compute(), model.score_samples(rows), 1e-12)
            assert model.score(data) == pytest.approx(model.score(rows), rel=1e-12)
            assert model.bic(data) == pytest.approx(model.bic(rows), rel=1e-12)
