"""What counts as collapsed, and what as an outlier."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, mixture
from hypothesis import given
from hypothesis import strategies as st

from dgmm.mixture.collapse import held_by_ridge, multiplicity, outlying, too_few_rows
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters


def collapse(parameters, rows):
    d = rows.shape[1]
    components = Components.prepare(parameters, np.dtype(float), 100.0)
    return too_few_rows(components, EStep(components, Frame.identity(d)), rows, multiplicity(rows))


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_a_component_on_few_rows_is_collapsed(name):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 2))
    kind = COVARIANCE_TYPES[name]
    for few, expected in ((4, [1]), (6, [])):
        rows[:few] = 50 + 0.1 * rng.standard_normal((few, 2))
        covariances = np.ones(kind.shape(2, 2)) if name != "full" else np.array([np.eye(2), 0.01 * np.eye(2)])
        parameters = Parameters(kind, np.array([0.99, 0.01]), np.array([[0.0, 0.0], [50.0, 50.0]]), covariances)
        assert collapse(parameters, rows) == expected


@pytest.mark.parametrize("name", TYPES)
def test_many_copies_of_one_row_at_no_width_are_collapsed(name):
    parameters = mixture(name, 2, 2, np.random.default_rng(0))
    shrunk = np.array(parameters.covariances)
    if name == "tied":
        shrunk *= 1e-18
    else:
        shrunk[1] *= 1e-18
    thin = Parameters(parameters.covariance, parameters.weights, parameters.means, shrunk)
    rows = np.concatenate(
        [parameters.sample(100, np.random.default_rng(1))[0], np.tile(parameters.means[1], (100, 1))]
    )
    assert 1 in collapse(thin, rows)


@pytest.mark.parametrize("name", TYPES)
def test_thinness_alone_is_not_collapse(name):
    rng = np.random.default_rng(0)
    parameters = mixture(name, 2, 2, rng)
    thin = Parameters(parameters.covariance, parameters.weights, parameters.means, 1e-6 * parameters.covariances)
    assert collapse(thin, thin.sample(200, rng)[0]) == []


def test_the_whole_of_a_tiny_data_set_is_not_collapsed():
    # 3 rows in 2 dimensions are fewer than 2 D + 1, but one component has them all.
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    parameters = Parameters(COVARIANCE_TYPES["full"], np.ones(1), rows.mean(axis=0)[None], np.cov(rows.T)[None])
    assert collapse(parameters, rows) == []


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from(["f4", "f8"]))
def test_multiplicity_counts_equal_rows(n, d, seed, dtype):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n, d)).astype(dtype) * rng.choice([-1.0, 0.1, 1e30])
    expected = [(rows == row).all(axis=1).sum() for row in rows]  # -0 is 0
    np.testing.assert_array_equal(multiplicity(rows), expected)


def test_copies_and_rows_of_weight_zero_are_no_rows_to_rest_on():
    rows = np.concatenate([np.random.default_rng(0).standard_normal((100, 2)), 9 + np.eye(2)[[0, 1] * 20]])
    covariances = np.stack([np.eye(2)] * 2)
    parameters = Parameters(
        COVARIANCE_TYPES["full"], np.array([0.7, 0.3]), np.array([[0.0, 0], [9.5, 9.5]]), covariances
    )
    assert collapse(parameters, rows) == [1]
    spread = rows + 1e-3 * np.random.default_rng(1).standard_normal(rows.shape)
    assert collapse(parameters, spread) == []
    components = Components.prepare(parameters, np.dtype(float), 100.0)
    absent = np.where(np.arange(140) < 104, 1.0, 0.0)
    assert too_few_rows(components, EStep(components, Frame.identity(2)), spread, absent) == [1]


@pytest.mark.parametrize("name", TYPES)
def test_few_rows_far_from_all_others_are_outliers(name):
    kind = COVARIANCE_TYPES[name]
    unit = np.eye(2) if name in ("full", "tied") else 1.0
    for away, expected in ((10.0, []), (100.0, [1])):
        parameters = Parameters(
            kind,
            np.array([0.98, 0.01, 0.01]),
            np.array([[0.0, 0.0], [away, away], [0.1, 0.1]]),
            np.broadcast_to(unit, kind.shape(3, 2)).copy(),
        )
        components = Components.prepare(parameters, np.dtype(float), 100.0)
        assert outlying(components, [1, 2]) == expected
        assert outlying(components, [0, 1, 2]) == [], "there is nothing that they lie out of"


@pytest.mark.parametrize("name", TYPES)
def test_a_component_of_equal_values_is_held_by_the_ridge(name):
    kind, ridge = COVARIANCE_TYPES[name], np.full(3, 1e-6)
    wide, thin = np.array([1.0, 1.0, 1.0]), np.array([1.0, 1e-6, 1.0])
    if name == "spherical":
        covariances, expected = np.array([1.0, 1e-6]), [1]
    elif name == "tied":
        covariances, expected = np.diag(thin), [0, 1]
    else:
        stacked = np.array([wide, thin])
        covariances, expected = (stacked if name == "diag" else stacked[:, None] * np.eye(3)), [1]
    means = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    parameters = Parameters(kind, np.array([0.5, 0.5]), means, covariances)
    assert held_by_ridge(parameters, ridge) == expected
    assert held_by_ridge(parameters, ridge / 10) == []
    assert held_by_ridge(parameters, np.zeros(3)) == []


@pytest.mark.parametrize("name", ["full", "tied", "diag"])
def test_constant_features_are_what_the_ridge_is_for(name):
    kind, ridge = COVARIANCE_TYPES[name], np.full(2, 1e-6)
    each = np.array([1.0, 1e-6])
    covariances = {"diag": np.array([each, each]), "tied": np.diag(each)}.get(name, np.array([np.diag(each)] * 2))
    parameters = Parameters(kind, np.array([0.5, 0.5]), np.array([[0.0, 3.0], [5.0, 3.0]]), covariances)
    assert held_by_ridge(parameters, ridge) == []
