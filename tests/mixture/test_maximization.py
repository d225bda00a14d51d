"""The M-step, and a mixture as something to draw rows from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import TYPES, assert_close, mixture

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.initialization import INIT_PARAMS, start
from dgmm.mixture.maximization import m_step, ridge_in_frame

all_types = pytest.mark.parametrize("name", TYPES)


def statistics(parameters, rows):
    d = rows.shape[1]
    return EStep(Components.prepare(parameters, np.dtype(float), 100.0), Frame.identity(d))(rows)


@all_types
def test_the_ridge_adds_to_the_variances(name):
    rng = np.random.default_rng(0)
    parameters, rows = mixture(name, 3, 2, rng), 3 * rng.standard_normal((300, 2))
    found = statistics(parameters, rows)
    ridge = np.full(2, 0.5) if name == "spherical" else np.array([0.25, 4.0])
    plain, with_ridge = (m_step(found, parameters, r) for r in (np.zeros(2), ridge))
    kind = parameters.covariance
    added = kind.full(with_ridge.covariances, 3, 2) - kind.full(plain.covariances, 3, 2)
    assert_close(added, np.broadcast_to(np.diag(ridge), (3, 2, 2)), 1e-12)
    np.testing.assert_array_equal(with_ridge.means, plain.means)


@all_types
def test_reg_covar_is_in_data_units_and_reg_relative_in_variances(name):
    kind = COVARIANCE_TYPES[name]
    scale = np.full(2, 8.0) if kind.isotropic else np.array([1024.0, 0.5])
    variance = np.array([3.0, 5.0])
    absolute = ridge_in_frame(kind, scale, variance, 1e-6, 0.0)
    assert_close(absolute * scale * scale, np.full(2, 1e-6), 1e-14)
    relative = ridge_in_frame(kind, scale, variance, 0.0, 1e-3)
    assert_close(relative, 1e-3 * (np.full(2, 4.0) if kind.isotropic else variance), 1e-14)


@all_types
def test_a_component_without_rows_keeps_its_place(name):
    rng = np.random.default_rng(0)
    parameters = mixture(name, 3, 2, rng)
    parameters.means[2] = 1e6
    following = m_step(statistics(parameters, rng.standard_normal((100, 2))), parameters, np.zeros(2))
    np.testing.assert_array_equal(following.means[2], 1e6)
    assert np.isfinite(following.covariances).all()
    assert following.weights.sum() == pytest.approx(1.0)
    if name != "tied":
        np.testing.assert_array_equal(following.covariances[2], parameters.covariances[2])


@all_types
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_component_of_weight_zero_is_not_brought_to_life(name, dtype):
    rng = np.random.default_rng(0)
    drawn = mixture(name, 3, 2, rng, spread=1.0, low=0.7, high=1.5)
    parameters = replace(drawn, weights=np.array([0.4, 0.0, 0.6]))
    rows = drawn.sample(500, rng)[0].astype(dtype)
    components = Components.prepare(parameters, np.dtype(dtype), 16.0)
    assert components.dtype == dtype
    following = m_step(EStep(components, Frame.identity(2))(rows), parameters, np.zeros(2))
    np.testing.assert_array_equal(following.means[1], parameters.means[1])
    assert following.weights[1] < 1e-20


@all_types
def test_drawn_rows_have_the_moments_of_the_mixture_and_are_ordered(name):
    parameters = mixture(name, 3, 2, np.random.default_rng(2))
    rows, labels = parameters.sample(60_000, np.random.default_rng(3))
    assert rows.shape == (60_000, 2)
    assert np.all(np.diff(labels) >= 0)
    counts = np.bincount(labels, minlength=3)
    full = parameters.covariance.full(parameters.covariances, 3, 2)
    for k in range(3):
        assert abs(counts[k] / 60_000 - parameters.weights[k]) < 5 * 0.5 / np.sqrt(60_000)
        mine = rows[labels == k]
        deviation = np.sqrt(np.diag(full[k]))
        noise = 5 / np.sqrt(len(mine))
        assert np.abs((mine.mean(axis=0) - parameters.means[k]) / deviation).max() < noise
        covariance = np.cov(mine.T, bias=True)
        assert np.abs((covariance - full[k]) / deviation / deviation[:, None]).max() < 2 * noise


@pytest.mark.parametrize("init_params", INIT_PARAMS)
@pytest.mark.parametrize("weighted", [False, True])
@all_types
def test_every_start_is_a_mixture(name, init_params, weighted):
    rng = np.random.default_rng(0)
    rows = mixture(name, 3, 2, rng).sample(400, rng)[0]
    weights = rng.integers(0, 3, 400).astype(float) if weighted else None
    kind = COVARIANCE_TYPES[name]

    def draw(seed):
        return start(rows, weights, 4, kind, init_params, np.zeros(2), np.random.default_rng(seed))

    found, again, other = draw(1), draw(1), draw(2)
    kind.precision_cholesky(found.covariances)
    assert found.means.shape == (4, 2)
    assert found.weights.sum() == pytest.approx(1.0)
    assert np.all(found.weights > 0)
    np.testing.assert_array_equal(found.means, again.means)
    np.testing.assert_array_equal(found.covariances, again.covariances)
    assert not np.array_equal(found.means, other.means)


@pytest.mark.parametrize("init_params", ["k-means++", "random_from_data", "kmeans"])
def test_rows_of_weight_zero_are_never_a_start(init_params):
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((200, 2)), np.ones(200)
    rows[::2] += 1e6
    weights[::2] = 0
    for seed in range(5):
        kind = COVARIANCE_TYPES["full"]
        found = start(rows, weights, 3, kind, init_params, np.zeros(2), np.random.default_rng(seed))
        assert np.abs(found.means).max() < 10


@pytest.mark.parametrize("init_params", INIT_PARAMS)
@all_types
def test_equal_rows_without_a_ridge_are_ill_defined_or_survived(name, init_params):
    rows, kind = np.ones((20, 2)), COVARIANCE_TYPES[name]
    found = start(rows, None, 2, kind, init_params, np.full(2, 1e-6), np.random.default_rng(0))
    assert np.isfinite(found.means).all()
    kind.precision_cholesky(found.covariances)
    none = start(rows, None, 2, kind, init_params, np.zeros(2), np.random.default_rng(0))
    with pytest.raises(IllDefinedCovariance):
        kind.precision_cholesky(none.covariances)
