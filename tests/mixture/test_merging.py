"""What a merge puts in place of two components, and what it says it loses."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, assert_same_mixture, matrices, mixture, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm.mixture.covariance import COVARIANCE_TYPES, FULL
from dgmm.mixture.criteria import bic
from dgmm.mixture.merging import _merge_bounds, closest_pairs, find_merges, moments_merged, nearly_equal
from dgmm.mixture.parameters import Parameters

seeds = st.integers(0, 2**32 - 1)
all_types = pytest.mark.parametrize("name", TYPES)


def moments(parameters, pair):
    """Weight, mean (D,) and covariance (D, D) of a pair taken as one, by definition."""
    pair = list(pair)
    w, means = parameters.weights[pair], parameters.means[pair]
    share = w / w.sum()
    mean = share @ means
    delta = means - mean
    inside = np.einsum("k,kij->ij", share, matrices(parameters)[pair].astype(float))
    return w.sum(), mean, inside + (delta.T * share) @ delta


def with_merged(parameters, i, j):
    """The whole mixture after a merge: the new component in the place of `i`."""
    new = moments_merged(parameters, i, j)
    keep = [k for k in range(parameters.n_components) if k != j]
    arrays = [np.array(a) for a in (parameters.weights, parameters.means, parameters.covariances)]
    arrays[0][i], arrays[1][i] = new.weights[0], new.means[0]
    if not parameters.covariance.pooled:
        arrays[2][i] = new.covariances[0]
    return Parameters(parameters.covariance, *arrays).only(keep)


# --- the merged component ------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.sampled_from(TYPES), st.integers(2, 5), st.integers(1, 5), seeds)
def test_the_merged_component_has_the_moments_of_the_pair(name, k, d, seed):
    rng = np.random.default_rng(seed)
    drawn = mixture(name, k, d, rng)
    i, j = rng.choice(k, 2, replace=False).tolist()
    weight, mean, covariance = moments(drawn, (i, j))
    found = moments_merged(drawn, i, j)
    assert_close(found.weights, [weight], 1e-14)
    assert_close(found.means, mean[None], 1e-13)
    if name == "tied":
        assert found.covariances is drawn.covariances
        return
    expected = {"full": covariance, "diag": np.diag(covariance), "spherical": np.trace(covariance) / d}[name]
    assert_close(found.covariances, np.asarray(expected)[None], 1e-13)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_no_other_component_of_the_type_is_more_likely(name):
    rng = np.random.default_rng(0)
    drawn = mixture(name, 2, 3, rng)
    _, mean, covariance = moments(drawn, (0, 1))

    def expected_log_density(one):
        c = matrices(one)[0].astype(float)
        second = covariance + np.outer(mean - one.means[0], mean - one.means[0])
        return -(np.linalg.slogdet(c)[1] + np.trace(np.linalg.solve(c, second))) / 2

    best = moments_merged(drawn, 0, 1)
    top = expected_log_density(best)
    for _ in range(200):
        nearby = mixture(name, 1, 3, rng)
        step = rng.choice([1e-3, 0.1, 0.5])
        other = Parameters(
            best.covariance,
            best.weights,
            (1 - step) * best.means + step * nearby.means,
            (1 - step) * best.covariances + step * nearby.covariances,
        )
        assert expected_log_density(other) < top


@all_types
def test_merging_a_component_with_its_copy_gives_it_back(name):
    one = mixture(name, 1, 3, np.random.default_rng(1))
    repeats = (2, *[1] * (one.covariances.ndim - 1))
    covariances = one.covariances if name == "tied" else np.tile(one.covariances, repeats)
    twice = Parameters(one.covariance, np.array([0.3, 0.7]), np.tile(one.means, (2, 1)), covariances)
    assert_same_mixture(moments_merged(twice, 0, 1), one, 1e-14)


# --- second moments and eigenvalues --------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.sampled_from(TYPES), st.integers(1, 4), st.integers(1, 5), seeds)
def test_second_moments_and_covariances_are_each_others_inverse(name, k, d, seed):
    drawn = mixture(name, k, d, np.random.default_rng(seed))
    kind, zero = drawn.covariance, np.zeros(d)
    second = kind.second_moments(drawn.covariances, d)
    assert second.shape == (1 if name == "tied" else k, kind.n_quadratic(d))
    counts = np.full(k, 1 / k) if name == "tied" else np.ones(k)
    again = kind.from_moments(counts, np.zeros((k, d)), second, zero)
    assert_close(again, drawn.covariances, 1e-15)


@settings(max_examples=50)
@given(st.sampled_from(TYPES), st.integers(1, 4), st.integers(1, 5), seeds)
def test_the_smallest_eigenvalue_is_that_of_the_matrices(name, k, d, seed):
    drawn = mixture(name, k, d, np.random.default_rng(seed))
    expected = np.linalg.eigvalsh(matrices(drawn).astype(float)).min()
    assert drawn.covariance.smallest_eigenvalue(drawn.covariances) == pytest.approx(expected, rel=1e-10)


def merges_of(rows, weights, parameters):
    merges = find_merges(rows, weights, parameters, 100.0, closest_pairs(parameters))
    return sorted(merges, key=lambda merge: merge.loss)


# --- losses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@all_types
def test_the_loss_is_the_change_of_the_mean_log_likelihood(name, weighted):
    rng = np.random.default_rng(2)
    drawn = mixture(name, 5, 3, rng, spread=1.5, low=0.5)
    rows = rng.permutation(drawn.sample(400, rng)[0])
    weights = rng.uniform(0.1, 3, 400) if weighted else np.ones(400)
    density = reference(drawn, rows)[0].astype(float)
    merges = merges_of(rows, weights, drawn)
    assert len(merges) == 10
    for merge in merges:
        after = reference(with_merged(drawn, merge.first, merge.second), rows)[0].astype(float)
        loss = np.average(density - after, weights=weights)
        assert merge.loss == pytest.approx(loss, abs=1e-12)


@all_types
def test_merges_come_best_first_and_two_a_component(name):
    rng = np.random.default_rng(3)
    drawn = mixture(name, 7, 2, rng)
    rows = drawn.sample(500, rng)[0]
    merges = merges_of(rows, np.ones(500), drawn)
    losses = [merge.loss for merge in merges]
    assert losses == sorted(losses)
    assert len({(merge.first, merge.second) for merge in merges}) == 14  # of 21
    assert all(merge.first < merge.second for merge in merges)


@all_types
def test_the_halves_of_a_component_are_the_first_to_be_merged(name):
    rng = np.random.default_rng(4)
    drawn = mixture(name, 4, 3, rng)
    shift = 0.05 * rng.standard_normal(3)
    means = np.concatenate([drawn.means, drawn.means[1:2] + shift])
    means[1] -= shift
    weights = np.append(drawn.weights, drawn.weights[1] / 2)
    weights[1] /= 2
    covariances = (
        drawn.covariances if name == "tied" else np.concatenate([drawn.covariances, drawn.covariances[1:2]])
    )
    halved = Parameters(drawn.covariance, weights, means, covariances)
    rows = drawn.sample(2000, rng)[0]
    merges = merges_of(rows, np.ones(2000), halved)
    assert (merges[0].first, merges[0].second) == (1, 4)
    assert abs(merges[0].loss) < 0.01
    assert merges[1].loss > 3 * abs(merges[0].loss)


@all_types
def test_on_the_models_own_rows_no_merge_loses_more_than_its_bound(name):
    rng = np.random.default_rng(5)
    drawn = mixture(name, 4, 2, rng, spread=1.0, low=0.5, high=1.5)
    n = 20_000
    rows = drawn.sample(n, rng)[0]
    density = reference(drawn, rows)[0].astype(float)
    bounds = _merge_bounds(drawn)
    for merge in merges_of(rows, np.ones(n), drawn):
        bound = bounds[merge.first, merge.second]
        after = reference(with_merged(drawn, merge.first, merge.second), rows)[0].astype(float)
        noise = (density - after).std() / np.sqrt(n)
        assert -4 * noise < merge.loss < bound + 4 * noise


@all_types
def test_the_bound_is_nothing_for_copies_and_grows_with_their_distance(name):
    kind = COVARIANCE_TYPES[name]
    covariances = np.ones(kind.shape(2, 2)) if name in ("diag", "spherical") else np.eye(2)
    covariances = np.array([covariances] * 2) if name == "full" else covariances
    bounds = []
    for apart in (0.0, 0.5, 1.0, 2.0, 8.0):
        means = np.array([[0.0, 0.0], [apart, 0.0]])
        bounds.append(_merge_bounds(Parameters(kind, np.array([0.4, 0.6]), means, covariances))[0, 1])
    assert bounds[0] == pytest.approx(0, abs=1e-15)
    assert np.all(np.diff(bounds) > 0)


def test_a_pair_whose_merger_has_no_covariance_in_double_precision_is_left_out():
    """Thin and far apart along their line: each has a Cholesky factor, what would replace both has none."""
    thin = np.full((2, 2), 1e-8) + np.diag([0.0, 1e-18])
    means = np.array([[-5.0, -5.0], [5.0, 5.0]])
    drawn = Parameters(FULL, np.array([0.5, 0.5]), means, np.array([thin, thin]))
    assert closest_pairs(drawn) == []


# --- components that one could replace -----------------------------------------------------------------------


@all_types
def test_a_merge_of_nearly_equal_components_lowers_bic(name):
    rng = np.random.default_rng(12)
    drawn = mixture(name, 5, 3, rng, spread=8.0)
    drawn.means[4] = drawn.means[1] + 0.01
    if not drawn.covariance.pooled:
        drawn.covariances[4] = drawn.covariances[1] * 1.01
    n = 3000
    (found,) = nearly_equal(drawn, n)
    assert (found.first, found.second) == (1, 4)
    rows = drawn.sample(n, rng)[0]
    merged = with_merged(drawn, 1, 4)
    before, after = (float(reference(p, rows)[0].sum()) for p in (drawn, merged))
    assert bic(after, merged.n_parameters, n) < bic(before, drawn.n_parameters, n)
    assert (before - after) / n < found.loss + 1e-3, "the bound is one"


@all_types
def test_components_that_differ_are_not_nearly_equal(name):
    drawn = mixture(name, 5, 3, np.random.default_rng(12), spread=8.0)
    assert nearly_equal(drawn, 1e6) == []
    assert nearly_equal(drawn.only([0]), 1e6) == []
    # With a handful of rows, a component less would do all the same.
    assert nearly_equal(mixture(name, 5, 3, np.random.default_rng(3), spread=0.3), 20.0)
