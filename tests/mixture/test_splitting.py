"""Two components in place of one: what is found, and what it is said to gain."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, m_step, mixture, order, reference

from dgmm.mixture.covariance import COVARIANCE_TYPES, FULL
from dgmm.mixture.initialization import start
from dgmm.mixture.merging import moments_merged
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.splitting import find_split

D = 2
ZERO = np.zeros(D)
all_types = pytest.mark.parametrize("name", TYPES)


def truth(name, share=0.4, apart=4.0):
    """Two components of the shape of the type, far enough apart to be told apart."""
    kind = COVARIANCE_TYPES[name]
    covariances = np.full(kind.shape(2, D), 0.8) if name in ("diag", "spherical") else [[0.8, 0.3], [0.3, 0.5]]
    covariances = np.array([covariances] * 2) if name == "full" else np.array(covariances)
    return Parameters(kind, np.array([1 - share, share]), np.array([[0.0, 0.0], [apart, 1.0]]), covariances)


def one_component(name, rows):
    return start(rows, None, 1, COVARIANCE_TYPES[name], "random", ZERO, np.random.default_rng(0))


def climbed(parameters, rows, steps, weights=None):
    """After some iterations of EM by definition."""
    for _ in range(steps):
        parameters = m_step(parameters, rows, weights)
    arrays = (parameters.weights, parameters.means, parameters.covariances)
    return Parameters(parameters.covariance, *(np.asarray(a, dtype=float) for a in arrays))


def joined(*parts):
    arrays = (np.concatenate([getattr(p, a) for p in parts]) for a in ("weights", "means", "covariances"))
    return Parameters(parts[0].covariance, *arrays)


def mean_log_likelihood(parameters, rows, weights=None):
    return float(np.average(reference(parameters, rows)[0].astype(float), weights=weights))


def split(rows, parameters, components=(0,), r=None, seed=0):
    r = np.ones(len(rows)) if r is None else r
    return find_split(rows, r, parameters, components, 0.0, ZERO, np.random.default_rng(seed))


def assert_finds(children, expected, tolerance=0.15):
    which = order(children.means, expected.means)
    np.testing.assert_allclose(children.means[which], expected.means, atol=tolerance)
    np.testing.assert_allclose(
        children.weights[which] / children.weights.sum(), expected.weights, atol=0.03, rtol=tolerance
    )


# --- what is found -------------------------------------------------------------------------------------------


@all_types
def test_a_component_that_is_two_is_found_out(name):
    expected = truth(name)
    rows = expected.sample(4000, np.random.default_rng(1))[0]
    found = split(rows, one_component(name, rows))
    assert found.components == (0,)
    assert_finds(found.children, expected)
    assert found.children.weights.sum() == pytest.approx(1, abs=1e-12)


@all_types
@pytest.mark.parametrize("seed", range(3))
def test_a_hundredth_of_the_rows_is_found_too(name, seed):
    """Halves never cut so small a group off; places that are too dense for one Gaussian do."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    few = truth(name, share=0.01)
    means = np.array([[0.0, 0.0], [5 * np.cos(angle), 5 * np.sin(angle)]])
    covariances = (
        few.covariances
        if name == "tied"
        else few.covariances * np.array([1, 0.1]).reshape(2, *[1] * (few.covariances.ndim - 1))
    )
    few = Parameters(few.covariance, few.weights, means, covariances)
    rows = few.sample(10_000, rng)[0]
    found = split(rows, one_component(name, rows), seed=seed)
    assert_finds(found.children, few, tolerance=0.4)
    assert found.children.weights.min() == pytest.approx(0.01, rel=0.5)


def test_a_dense_group_inside_is_found():
    """A narrow group in the middle of a wide component, where distances from the mean say nothing."""
    kind = FULL
    expected = Parameters(
        kind, np.array([0.98, 0.02]), np.array([[0.0, 0.0], [0.7, 0.3]]), np.array([np.eye(2), 1e-4 * np.eye(2)])
    )
    rows = expected.sample(8000, np.random.default_rng(2))[0]
    found = split(rows, one_component("full", rows))
    assert_finds(found.children, expected, tolerance=0.2)


@all_types
def test_a_pair_that_shares_two_groups_badly_is_put_right(name):
    """Both sit between the groups; together they are taken as one and split anew."""
    expected = truth(name)
    rng = np.random.default_rng(3)
    rows = expected.sample(3000, rng)[0]
    one = one_component(name, rows)
    means = one.means + np.array([[0.0, 0.2], [0.0, -0.2]])
    covariances = one.covariances if name == "tied" else np.concatenate([one.covariances] * 2)
    pair = Parameters(one.covariance, np.array([0.5, 0.5]), means, covariances)
    found = split(rows, pair, (0, 1))
    assert found.components == (0, 1)
    assert_finds(found.children, expected)
    assert found.gain > 0.1


# --- what it gains -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@all_types
def test_the_gain_is_the_change_of_the_mean_log_likelihood(name, weighted):
    rng = np.random.default_rng(4)
    expected = truth(name)
    rows = expected.sample(2000, rng)[0]
    weights = rng.uniform(0.2, 3, len(rows)) if weighted else np.ones(len(rows))
    weights /= weights.mean()
    one = moments_merged(truth(name), 0, 1)
    one = Parameters(one.covariance, np.ones(1), one.means, one.covariances)
    one = climbed(one, rows, 2, weights)  # the split is compared with what EM makes of what is there
    found = split(rows, one, r=weights)
    before = mean_log_likelihood(one, rows, weights)
    after = mean_log_likelihood(found.children, rows, weights)
    assert found.gain == pytest.approx(after - before, abs=1e-9)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_in_a_mixture_the_gain_is_what_em_then_finds(name):
    """One of three components stands for two groups; the others are far away."""
    rng = np.random.default_rng(5)
    pair = truth(name)
    kind = pair.covariance
    groups = Parameters(
        kind,
        np.array([0.3, 0.3, 0.24, 0.16]),
        np.concatenate([[[-30.0, 0.0], [0.0, 30.0]], pair.means]),
        np.concatenate([pair.covariances, pair.covariances]),
    )
    rows = groups.sample(4000, rng)[0]
    three = joined(groups.only([0, 1]), moments_merged(groups, 2, 3))
    three = climbed(three, rows, 3)
    found = split(rows, three, (2,), r=reference(three, rows)[1][2].astype(float))
    four = joined(three.only([0, 1]), found.children)
    gained = mean_log_likelihood(four, rows) - mean_log_likelihood(three, rows)
    assert found.gain == pytest.approx(gained, rel=1e-4)
    finally_gained = mean_log_likelihood(climbed(four, rows, 10), rows) - mean_log_likelihood(three, rows)
    assert finally_gained == pytest.approx(found.gain, rel=0.02)
    assert found.children.weights.sum() == pytest.approx(three.weights[2], rel=1e-12)


@all_types
def test_one_gaussian_has_nothing_to_gain(name):
    """Or next to nothing: two components fit noise better than one, by about a parameter each per row."""
    drawn = mixture(name, 1, D, np.random.default_rng(6))
    rows = drawn.sample(5000, np.random.default_rng(7))[0]
    found = split(rows, one_component(name, rows))
    assert found is None or 0 < found.gain < 20 / len(rows)


# --- limits --------------------------------------------------------------------------------------------------


def test_too_few_rows_are_not_split():
    rows = truth("full").sample(2 * (2 * D + 1), np.random.default_rng(8))[0]
    one = one_component("full", rows)
    assert split(rows[:-1], one) is None
    responsibilities = np.ones(len(rows))
    responsibilities[0] = 1e-3  # belongs elsewhere
    assert split(rows, one, r=responsibilities) is None


@all_types
def test_equal_rows_are_not_split(name):
    kind = COVARIANCE_TYPES[name]
    one = Parameters(kind, np.ones(1), np.zeros((1, D)), np.ones(kind.shape(1, D)))
    if name in ("full", "tied"):
        one = Parameters(kind, np.ones(1), np.zeros((1, D)), np.eye(D).reshape(kind.shape(1, D)))
    assert split(np.zeros((100, D)), one) is None


@pytest.mark.parametrize(("away", "alone"), [(12, False), (100, True)])
def test_a_group_of_too_few_rows_is_no_component_unless_it_is_far(away, alone):
    """A few rows gain likelihood without end; outliers spare the others if they have a component."""
    rng = np.random.default_rng(9)
    rows = np.concatenate([rng.standard_normal((500, D)), away + 1e-6 * rng.standard_normal((3, D))])
    found = split(rows, one_component("full", rows))
    few = found is not None and found.children.weights.min() * len(rows) < 2 * D + 1
    assert few == alone


@all_types
def test_the_seed_decides(name):
    rows = truth(name, apart=2.5).sample(1500, np.random.default_rng(10))[0]
    one = one_component(name, rows)
    first, second = split(rows, one, seed=3), split(rows, one, seed=3)
    assert first.gain == second.gain
    for attribute in ("weights", "means", "covariances"):
        a, b = (getattr(found.children, attribute) for found in (first, second))
        assert a.tobytes() == b.tobytes()
