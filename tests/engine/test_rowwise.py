"""The largest responsibilities are those that sorting all of them gives; in memory, lazy, with rows left out."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm import GaussianMixture, open_source
from dgmm.engine.quantities import Top
from dgmm.errors import InvalidParameter

N, D, K = 3000, 3, 6


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) + 6 * rng.integers(K, size=(N, 1))


@pytest.fixture(scope="module")
def mixture(rows) -> GaussianMixture:
    return GaussianMixture(K, random_state=0, tol=1e-2).fit(rows)


def by_sorting(responsibilities, m):
    """Of rows x components."""
    order = np.argsort(-responsibilities, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(responsibilities, order, axis=1)


@settings(max_examples=100)
@given(
    k=st.integers(1, 12),
    b=st.integers(0, 40),
    m=st.integers(1, 15),
    levels=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_the_law_of_top(k, b, m, levels, seed):
    # Few levels, so that ties are everywhere; the smallest is as small as the E-step makes them.
    exponents = -700.0 * np.random.default_rng(seed).integers(0, levels, (k, b)) / levels
    responsibilities = np.exp(exponents)
    before = responsibilities.copy()
    components, values = Top(m).of_tile(np.zeros(b), responsibilities)
    np.testing.assert_array_equal(responsibilities, before)
    expected = by_sorting(responsibilities.T, m)
    np.testing.assert_array_equal(components, expected[0])
    np.testing.assert_array_equal(values, expected[1])


@pytest.mark.parametrize("m", [1, 3, K, K + 5])
def test_of_a_mixture(mixture, rows, m):
    components, values = mixture.top_responsibilities(rows, m)
    all_of_them = mixture.predict_proba(rows)
    expected = by_sorting(all_of_them, m)
    np.testing.assert_array_equal(components, expected[0])
    np.testing.assert_array_equal(values, expected[1])
    assert components.shape == values.shape == (N, min(m, K))
    assert (components.dtype, values.dtype) == (np.int64, np.float64)
    np.testing.assert_array_equal(components[:, 0], mixture.predict(rows))


def test_equal_components_come_in_their_order():
    from sklearn.mixture import GaussianMixture as Sklearn

    theirs = Sklearn(3, covariance_type="spherical")
    theirs.weights_, theirs.means_ = np.full(3, 1 / 3), np.zeros((3, 2))
    theirs.covariances_ = theirs.precisions_ = theirs.precisions_cholesky_ = np.ones(3)
    theirs.converged_, theirs.n_iter_, theirs.lower_bound_, theirs.n_features_in_ = True, 1, 0.0, 2
    components, values = GaussianMixture.from_sklearn(theirs).top_responsibilities([[0.0, 1.0], [3.0, 4.0]], 2)
    np.testing.assert_array_equal(components, [[0, 1], [0, 1]])
    np.testing.assert_allclose(values, 1 / 3)


def test_lazy_and_in_one_pass(mixture, rows, tmp_path):
    expected = mixture.top_responsibilities(rows, 2)
    stored = zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(400, D))
    reads = []

    def watched(block):
        reads.append(len(block))
        return block

    watching = da.from_array(rows, chunks=(700, D)).map_blocks(watched, dtype=float)
    for data in (stored, watching):
        found = mixture.top_responsibilities(data, 2)
        assert all(isinstance(array, da.Array) for array in found)
        assert [(a.shape, a.dtype) for a in found] == [((N, 2), np.int64), ((N, 2), np.float64)]
        for array, right in zip(dask.compute(*found), expected, strict=True):
            np.testing.assert_array_equal(array, right)
    assert sum(reads) == N


def test_rows_left_out(mixture, rows):
    rows = rows.copy()
    rows[::7, 1] = np.nan
    gone = np.isnan(rows).any(axis=1)
    components, values = mixture.top_responsibilities(open_source(rows, missing="drop"), 2)
    assert set(components[gone].ravel()) == {-1}
    assert np.isnan(values[gone]).all()
    expected = mixture.top_responsibilities(rows[~gone], 2)
    np.testing.assert_array_equal(components[~gone], expected[0])
    np.testing.assert_allclose(values[~gone], expected[1], atol=1e-12)


@pytest.mark.parametrize("m", [0, -1, 1.5, "two", None])
def test_m_that_means_nothing(mixture, rows, m):
    with pytest.raises(InvalidParameter, match="must be an integer of at least 1"):
        mixture.top_responsibilities(rows, m)


def test_of_a_grid(mixture, rows):
    values = rows[:2400].reshape(4, 20, 30, D).copy()
    values[:, 3:7, ::2, 1] = np.nan
    gone = np.isnan(values).any(axis=-1)
    dims = ("time", "y", "x")
    dataset = xarray.Dataset({name: (dims, values[..., i]) for i, name in enumerate("abc")})
    expected = mixture.top_responsibilities(values[~gone], 2)
    for data in (dataset, dataset.chunk({"time": 3, "y": 8})):
        components, found = dask.compute(*mixture.top_responsibilities(data, 2))
        assert (components.name, found.name) == ("top_components", "top_responsibilities")
        assert components.dims == found.dims == (*dims, "rank")
        assert components.isnull().values[gone].all()
        assert found.isnull().values[gone].all()
        np.testing.assert_array_equal(components.values[~gone], expected[0])
        np.testing.assert_allclose(found.values[~gone], expected[1], atol=1e-12)
        assert mixture.anomaly_threshold(data, 0.1) == mixture.anomaly_threshold(values[~gone], 0.1)
