"""Views: the pairs that show a known mixture best, its reach, and its density, against integrals and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, matrices, mixture
from scipy.stats import multivariate_normal, norm

from dgmm.mixture.covariance import DIAG, FULL
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.views import chosen_pairs, component_densities_on, density_on, reach, separation


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("name", TYPES)
def test_separation_is_one_less_the_integral_of_the_root_of_the_product(name, d):
    parameters = mixture(name, 4, d, np.random.default_rng(3), spread=1.0, low=0.4, high=1.5)
    axis = np.linspace(-12, 12, 4001 if d == 1 else 501)
    weighted = component_densities_on(parameters, *[axis] * d)
    alone = [values / weight for values, weight in zip(weighted, parameters.weights, strict=True)]
    cell = (axis[1] - axis[0]) ** d
    expected = [1 - np.sqrt(alone[i] * alone[j]).sum() * cell for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(separation(parameters), expected, atol=1e-6)


def test_equal_components_are_not_apart_and_far_ones_are():
    means = np.array([[0.0, 0.0], [0.0, 0.0], [1e3, 0.0]])
    parameters = Parameters(FULL, np.full(3, 1 / 3), means, np.array([[[2.0, 1.0], [1.0, 2.0]]] * 3))
    np.testing.assert_allclose(separation(parameters), [0, 1, 1], atol=1e-12)


def apart_in(features: dict[int, list[float]], k: int, d: int) -> Parameters:
    """Components of unit variance whose means differ in some features alone."""
    means = np.zeros((k, d))
    for feature, values in features.items():
        means[:, feature] = values
    return Parameters(DIAG, np.full(k, 1 / k), means, np.ones((k, d)))


def test_the_pair_in_which_components_are_apart_is_chosen():
    parameters = apart_in({2: [0, 6, 0], 4: [0, 0, 6]}, 3, 6)
    assert chosen_pairs(parameters, 1) == [(2, 4)]


def test_each_further_pair_adds_most():
    # Two questions of two features each: after the first pair, another of the same question would add less.
    parameters = apart_in({0: [0, 0, 5, 5], 1: [0, 0, 5, 5], 3: [0, 4, 0, 4], 5: [0, 1, 0, 1]}, 4, 6)
    assert chosen_pairs(parameters, 1)[0] in {(0, 3), (1, 3)}
    weak = apart_in({0: [0, 9, 0, 0], 1: [0, 0, 9, 0], 3: [0, 0, 0, 2], 5: [0, 0, 0, 2]}, 4, 6)
    assert chosen_pairs(weak, 2) == [(0, 1), (3, 5)]


def test_where_nothing_is_apart_correlated_features_are_chosen():
    covariance = np.eye(4)
    covariance[1, 3] = covariance[3, 1] = 0.8
    parameters = Parameters(FULL, np.ones(1), np.zeros((1, 4)), covariance[None])
    assert chosen_pairs(parameters, 1) == [(1, 3)]
    assert len(set(chosen_pairs(parameters, 10))) == 6, "no more than there are"
    assert chosen_pairs(parameters.marginal([0]), 3) == []


def test_many_components_and_features_are_looked_at_quickly():
    rng = np.random.default_rng(0)
    parameters = mixture("diag", 300, 60, rng, spread=0.0)
    parameters.means[:, 41], parameters.means[:, 7] = 40 * rng.standard_normal((2, 300))
    assert chosen_pairs(parameters, 1) == [(7, 41)]


def test_the_choice_does_not_depend_on_units():
    parameters = mixture("full", 5, 6, np.random.default_rng(8), spread=1.0)
    factor = np.exp2(np.array([-30.0, 3, 0, 20, -5, 1]))
    covariances = parameters.covariance.rescale(parameters.covariances, factor)
    scaled = Parameters(FULL, parameters.weights, parameters.means * factor, covariances)
    assert chosen_pairs(scaled, 4) == chosen_pairs(parameters, 4)


@pytest.mark.parametrize("name", TYPES)
def test_a_thousandth_lies_beyond_either_end(name):
    parameters = mixture(name, 3, 2, np.random.default_rng(5))
    for feature in range(2):
        low, high = reach(parameters, feature)
        deviations = np.sqrt(matrices(parameters).astype(float)[:, feature, feature])
        ends = norm.cdf(np.array([[low], [high]]), parameters.means[:, feature], deviations) @ parameters.weights
        np.testing.assert_allclose(ends, [0.001, 0.999], atol=1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_the_density_is_scipys(name):
    parameters = mixture(name, 3, 2, np.random.default_rng(6))
    x, y = np.linspace(-4, 4, 7), np.linspace(-3, 5, 5)
    points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    expected = sum(
        w * multivariate_normal(mean, matrix).pdf(points)
        for w, mean, matrix in zip(
            parameters.weights, parameters.means, matrices(parameters).astype(float), strict=True
        )
    )
    assert_close(density_on(parameters, x, y), expected, 1e-12)
