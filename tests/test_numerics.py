"""Data that are hard on the arithmetic: what each must give, or what it must say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cases import TYPES, order
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.engine.outliers import OutlierWork
from dgmm.errors import CollapsedComponentWarning, DataWarning, DgmmWarning, IllDefinedCovariance
from dgmm.mixture.covariance import COVARIANCE_TYPES

MEANS = np.array([[0.0, 0.0, 0.0], [12.0, -3.0, 5.0], [-4.0, 10.0, 8.0]])
SAMPLE = 3000
all_types = pytest.mark.parametrize("name", TYPES)


def clusters(n=600, seed=0):
    """Three clusters of unit width, in turn."""
    return MEANS[np.arange(n) % 3] + np.random.default_rng(seed).standard_normal((n, 3))


def fitted(name, k, rows, **options):
    return GaussianMixture(k, covariance_type=name, **{"random_state": 0, **options}).fit(rows)


def assert_finds_the_clusters(means, tolerance):
    np.testing.assert_allclose(means[order(means, MEANS)], MEANS, atol=tolerance)


# --- resolution ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "said"), [(1e3, False), (1e6, False), (1e8, True), (1.7e9, True)])
@pytest.mark.parametrize("name", ["full", "spherical"])
def test_float32_far_from_zero_is_as_right_as_it_is_stored_or_warned_of(name, offset, said):
    rows = (clusters() * [1, 30, 1] + offset).astype(np.float32)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        model = fitted(name, 3, rows)
    spoken = [str(w.message) for w in heard if w.category is DataWarning]
    assert len(spoken) == said
    if said:
        assert "of array lies near" in spoken[0]
        assert "Store float64, or subtract an offset" in spoken[0]
        assert "features [0, 2]" in spoken[0] or offset > 1e9, "feature 1 spreads over enough of it"
    else:
        stored = fitted(name, 3, rows.astype(np.float64) - offset)
        np.testing.assert_allclose(model.covariances_, stored.covariances_, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::dgmm.errors.CollapsedComponentWarning")  # equal values in the last feature
def test_float64_and_constant_features_are_not_warned_of():
    few = 5 + (np.arange(600) % 50 == 0)
    rows = np.column_stack([clusters(), np.full(600, 1e8), few])
    fitted("diag", 3, rows + np.array([1.7e9, 0, 0, 0, 0]))
    fitted("diag", 3, rows.astype(np.float32))


# --- degenerate data -----------------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("distinct", [1, 2])
def test_components_without_rows_of_their_own_are_listed(name, distinct):
    rows = np.repeat(np.arange(2.0 * distinct).reshape(distinct, 2), 60, axis=0)
    with pytest.warns(
        CollapsedComponentWarning, match=r"components \[0, 1, 2, 3\] rest on very few distinct rows"
    ):
        model = fitted(name, 4, rows)
    assert np.isfinite(model.means_).all()
    assert np.isfinite(model.score_samples(rows)).all()
    assert model.weights_.sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(IllDefinedCovariance, match=r"component \d"):
        fitted(name, 4, rows, reg_covar=0)


def test_copies_of_many_rows_are_no_collapse():
    fitted("full", 3, np.repeat(clusters(), 20, axis=0))


# --- outliers ------------------------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_in_little_data_has_a_component_of_its_own_and_a_warning(name, seed):
    rows = np.concatenate([clusters(), [[1e8, 1e8, 1e8]]])
    with pytest.warns(CollapsedComponentWarning, match=r"components \[\d\] hold outliers"):
        model = fitted(name, 4, rows, random_state=seed)
    (alone,) = np.flatnonzero(np.abs(model.means_).max(axis=1) > 1e6)
    np.testing.assert_allclose(model.means_[alone], 1e8)
    assert model.weights_[alone] == pytest.approx(1 / 601)
    assert_finds_the_clusters(np.delete(model.means_, alone, axis=0), 0.3)


def spoiled(n=30_000):
    """Much more than the sample, and an outlier in it that the sample misses."""
    rows = clusters(n)
    rows[n // 2] = [1e8, 5.0, -1e8]
    return rows


@all_types
@pytest.mark.parametrize("weighted", [False, True])
def test_an_outlier_that_the_sample_misses_is_looked_for_and_spares_the_others(name, weighted):
    rows = spoiled()
    weights = np.full(len(rows), 2.0) if weighted else None
    model = GaussianMixture(4, covariance_type=name, random_state=0, sample_size=SAMPLE)
    with pytest.warns(DgmmWarning) as heard:
        model.fit(rows, sample_weight=weights)
    said = [str(w.message) for w in heard]
    assert sum("1 row(s) more than 10,000 times the spread" in m and "row 15000" in m for m in said) == 1
    assert sum("hold outliers" in m for m in said) == 1
    (alone,) = np.flatnonzero(np.abs(model.means_).max(axis=1) > 1e6)
    np.testing.assert_allclose(model.means_[alone], rows[15_000], rtol=1e-12)
    assert_finds_the_clusters(np.delete(model.means_, alone, axis=0), 0.05)
    without = GaussianMixture(3, covariance_type=name, random_state=0, sample_size=SAMPLE)
    without.fit(np.delete(rows, 15_000, axis=0))
    assert model.n_passes_ <= without.n_passes_ + 3


def test_a_row_of_weight_zero_is_no_outlier():
    weights = np.ones(30_000)
    weights[15_000] = 0
    model = GaussianMixture(3, random_state=0, sample_size=SAMPLE).fit(spoiled(), sample_weight=weights)
    assert_finds_the_clusters(model.means_, 0.05)


def test_the_search_for_outliers_counts_as_a_pass_and_comes_back_from_a_checkpoint(tmp_path):
    settings = {"sample_size": SAMPLE, "random_state": 0, "max_passes": 4, "tol": 0}
    expected = pytest.warns(CollapsedComponentWarning), pytest.warns(ConvergenceWarning)
    with pytest.warns(DataWarning, match="10,000 times"), expected[0], expected[1]:
        first = GaussianMixture(4, **settings).fit(spoiled(), checkpoint=tmp_path)
    assert (first.n_passes_, first.n_iter_) == (4, 2)
    with expected[0], expected[1]:
        again = GaussianMixture(4, **settings).fit(spoiled(), checkpoint=tmp_path)
    assert again.n_passes_ == 4
    np.testing.assert_array_equal(first.means_, again.means_)


def test_heavy_tails_and_data_without_outliers_cost_no_pass():
    rng = np.random.default_rng(0)
    for rows in (rng.standard_normal((40_000, 2)), rng.standard_cauchy((40_000, 2))):
        sample = rows[:: len(rows) // SAMPLE]
        assert OutlierWork.wanted(sample, rows.min(axis=0), rows.max(axis=0)) is None


# --- starts --------------------------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("sample_size", [None, 500])
def test_a_component_that_starts_far_from_all_rows_begins_anew_where_they_are_explained_worst(
    name, complete, sample_size
):
    rows = clusters()
    start = {"means_init": [[0.0, 0.0, 0.0], [12.0, -3.0, 5.0], [1e5, 1e5, 1e5]]}
    if complete:
        kind = COVARIANCE_TYPES[name]
        units = np.eye(3) if name in ("full", "tied") else 1.0
        start |= {"weights_init": [0.3, 0.3, 0.4], "precisions_init": np.broadcast_to(units, kind.shape(3, 3))}
    with pytest.warns(DataWarning, match=r"components \[2\] of the given start are so far from all rows"):
        model = fitted(name, 3, rows, sample_size=sample_size, **start)
    assert_finds_the_clusters(model.means_, 0.3)


def test_all_components_far_from_all_rows_begin_anew():
    means = [[1e5, 0, 0], [0, 1e6, 0], [0, 0, 1e6]]
    with pytest.warns(DataWarning, match=r"components \[0, 1, 2\]"):
        model = fitted("full", 3, clusters(), means_init=means)
    assert_finds_the_clusters(model.means_, 0.3)


def test_a_component_of_weight_zero_stays_where_it_is_put():
    start = {"weights_init": [0.5, 0.5, 0.0, 0.0], "means_init": [*MEANS[:2], [1e5, 1e5, 1e5], [5.0, 5.0, 5.0]]}
    with pytest.warns(CollapsedComponentWarning):
        model = fitted("full", 4, clusters(), **start)
    np.testing.assert_allclose(model.means_[2:], start["means_init"][2:])


# --- many features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(2000, 500), pytest.param(5000, 2000, marks=pytest.mark.slow)])
@all_types
def test_of_hundreds_of_features_densities_are_finite(name, n, d):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d)) + 4 * rng.integers(0, 2, (n, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", CollapsedComponentWarning)  # fewer rows a component than 2 D + 1
        model = fitted(name, 2, rows, max_iter=1)
    for size in (1.0, 1e6):
        assert np.isfinite(model.score_samples(rows[:1000] * size)).all()
        proba = model.predict_proba(rows[:1000] * size)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=0, atol=1e-12)
