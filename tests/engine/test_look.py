"""Densities are NumPy's histograms, exact for any blocks and scheduler; certainty is that of predict_proba."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import dgmm.data.zarr_array
from dgmm import GaussianMixture
from dgmm.data.opening import open_source, open_weights
from dgmm.engine.certainty import CELLS
from dgmm.engine.density import Axis, DensityWork, views_of
from dgmm.engine.look import look
from dgmm.errors import InvalidData, InvalidWeights, NonFiniteData, ShapeMismatch

N = 20_000
FEATURES = [(0, 1), (2, 0), (1,)]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((N, 3)) * [1, 1e3, 1e-4] + 4 * rng.integers(3, size=(N, 1)) * [1, 0, 1e-4]
    rows[::500] *= 30
    rows[:, 1] += 1e6
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def model(rows):
    return GaussianMixture(3, random_state=0, tol=1e-3).fit(rows)._model


@pytest.fixture(scope="module")
def views(model):
    return views_of(model.in_data_units(), FEATURES)


def looked(data, model, views, weights=None, **asked):
    source = open_source(data)
    if weights is not None:
        weights = open_weights(weights, source)
    return look(source, weights, model, views, **asked)


def histogram(rows, view, weights=None):
    edges = [axis.edges for axis in view]
    columns = [rows[:, axis.feature].astype(float) for axis in view]
    counts, _ = np.histogramdd(columns, bins=edges, weights=weights)
    return counts


def test_densities_are_numpys_histograms_of_the_same_cells(rows, model, views):
    found = looked(rows, model, views).densities
    for density, view, features in zip(found, views, FEATURES, strict=True):
        assert density.view == view
        assert tuple(axis.feature for axis in view) == features
        expected = histogram(rows, view)
        assert density.counts.dtype == np.int64
        np.testing.assert_array_equal(density.counts, expected)
        assert density.outside == pytest.approx(1 - expected.sum() / N, abs=1e-15)
        assert 0 < density.outside < 0.01, "a thousandth of the mixture at either end, and the outliers"


def test_weights_are_summed(rows, model, views):
    weights = np.random.default_rng(2).integers(0, 4, N).astype(float)
    found, repeated = (
        looked(rows, model, views, weights),
        looked(np.repeat(rows, weights.astype(int), 0), model, views),
    )
    for weighted, counted in zip(found.densities, repeated.densities, strict=True):
        np.testing.assert_array_equal(weighted.counts, counted.counts)
        assert weighted.outside == counted.outside


@given(st.lists(st.integers(1, N - 1), max_size=12), st.sampled_from([1, 2, 8]))
def test_any_blocks_and_leaves_give_the_same_counts(rows, model, views, cuts, blocks_per_leaf):
    source = open_source(rows).rows(np.array([0, *sorted(set(cuts)), N]))
    with dask.config.set({"dgmm.blocks-per-leaf": blocks_per_leaf}):
        cut = look(source, None, model, views).densities
    for one, other in zip(cut, looked(rows, model, views).densities, strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)


def test_a_cluster_gives_the_bits_of_the_synchronous_scheduler(rows, model, views, tmp_path, monkeypatch):
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(700, 3))
    weights = np.random.default_rng(3).random(N)
    zarr.create_array(tmp_path / "w.zarr", data=weights, chunks=(3000,))
    data = (str(tmp_path / "x.zarr"), model, views, str(tmp_path / "w.zarr"))
    with dask.config.set(scheduler="synchronous"):
        expected = looked(*data, certainty=True)
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        dask.config.set({"dgmm.blocks-per-leaf": 2}),
    ):
        found = looked(*data, certainty=True)
    for one, other in zip(found.densities, expected.densities, strict=True):
        assert one.counts.tobytes() == other.counts.tobytes()
    assert found.certainty.counts.tobytes() == expected.certainty.counts.tobytes()
    assert found.certainty.score == expected.certainty.score


def test_certainty_is_that_of_the_most_likely_component(rows, model, views):
    found = looked(rows, model, views, certainty=True).certainty
    mixture = GaussianMixture._of_model(model)
    responsibilities = mixture.predict_proba(rows)
    sure, label = responsibilities.max(axis=1), responsibilities.argmax(axis=1)
    for k in range(3):
        expected, _ = np.histogram(sure[label == k], bins=np.arange(CELLS + 1) / CELLS)
        np.testing.assert_array_equal(found.counts[k], expected)
    assert found.share(0.9) == pytest.approx((sure >= 0.9).mean())
    assert found.score.weight == N
    assert found.score.log_likelihood / N == pytest.approx(mixture.score(rows), rel=1e-14)
    weighted = looked(rows, model, views, np.full(N, 2.0), certainty=True).certainty
    np.testing.assert_array_equal(weighted.counts, 2.0 * found.counts)


def test_what_cannot_be_looked_at_is_refused(rows, model, views):
    with pytest.raises(ShapeMismatch, match="has 2 features"):
        looked(rows[:, :2], model, views)
    bad = rows.copy()
    bad[77, 1] = np.nan
    with pytest.raises(NonFiniteData, match="row 77, feature 1"):
        looked(bad, model, views)
    with pytest.raises(InvalidWeights, match="row 5"):
        looked(rows, model, views, np.where(np.arange(N) == 5, -1.0, 1.0))


def test_rows_with_missing_values_are_left_out(rows, model, views):
    holes = rows.copy()
    holes[2000:9000, 1] = np.nan  # whole blocks among them
    found = looked(open_source(holes, missing="drop"), model, views, certainty=True)
    kept = looked(np.delete(rows, np.s_[2000:9000], axis=0), model, views, certainty=True)
    for one, other in zip(found.densities, kept.densities, strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)
    assert found.certainty.score.n_rows == N - 7000


def test_nothing_left_is_said(rows, model, views):
    with pytest.raises(InvalidData, match="no row of array is left"):
        looked(open_source(np.full((10, 3), np.nan), missing="drop"), model, views)
    with pytest.raises(InvalidData, match="no row of array is left"):
        looked(rows, model, [], np.zeros(N), certainty=True)


# --- cells ---------------------------------------------------------------------------------------------------

VALUES = st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)


@given(VALUES, VALUES, st.integers(8, 300), st.lists(st.floats(allow_nan=False, width=32), min_size=1))
def test_axes_cover_and_places_are_exact(low, high, cells, values):
    low, high = min(low, high), max(low, high)
    axis = Axis.covering(0, low, high, cells)
    edges = axis.edges
    assert edges[0] <= low
    assert high < edges[-1]
    assert np.frexp(axis.width)[0] == 0.5, "a power of two"
    assert 1 <= axis.cells <= cells + 1
    assert len(edges) == axis.cells + 1
    assert np.all(np.diff(edges) > 0)
    some = np.array([*values, *edges[::7], *np.nextafter(edges[::5], -np.inf), low, high])
    some = some[(some == 0) | (np.abs(some) > 1e-290)]  # divided by the width, smaller ones are zero
    np.testing.assert_array_equal(axis.places(some), np.searchsorted(edges, some, side="right"))


def test_a_feature_without_width_has_cells_all_the_same():
    axis = Axis.covering(0, 1e12, 1e12)
    assert np.all(np.diff(axis.edges) > 0)
    assert axis.places(np.array([1e12]))[0] in range(1, axis.cells + 1)


def test_huge_values_are_above_all_cells():
    axis = Axis.covering(0, -1e-9, 1e-9)
    found = axis.places(np.array([1e308, -1e308, np.finfo(np.float32).max], dtype=np.float64))
    np.testing.assert_array_equal(found, [axis.cells + 1, 0, axis.cells + 1])


def test_the_work_is_small_when_it_travels(views):
    import pickle

    assert len(pickle.dumps(DensityWork(views))) < 2000
