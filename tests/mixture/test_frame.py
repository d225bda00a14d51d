"""The frame: exact, robust, one scale where the family needs it."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, mixture

from dgmm.mixture.frame import Frame


@pytest.mark.parametrize("isotropic", [False, True])
def test_scales_are_powers_of_two_near_the_spread(isotropic):
    rng = np.random.default_rng(0)
    deviations = np.array([1e-9, 0.3, 1.0, 7.0, 1e12])
    frame = Frame.from_sample(rng.standard_normal((5000, 5)) * deviations, isotropic=isotropic)
    assert np.all(np.frexp(frame.scale)[0] == 0.5)
    if isotropic:
        assert len(set(frame.scale)) == 1
        deviations = deviations[-1]
    assert np.all((frame.scale / deviations > 0.65) & (frame.scale / deviations < 1.55))


def test_an_outlier_does_not_squeeze_the_others():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1000, 2))
    clean = Frame.from_sample(rows, isotropic=False)
    rows[3] = 1e8
    frame = Frame.from_sample(rows, isotropic=False)
    np.testing.assert_array_equal(frame.scale, clean.scale)
    assert np.abs(frame.shift - clean.shift).max() < 0.1


def test_the_shift_is_a_value_of_the_data():
    rows = np.random.default_rng(0).standard_normal((1001, 3)).astype(np.float32)
    shift = Frame.from_sample(rows, isotropic=False).shift
    assert all(shift[i] in rows[:, i].astype(float) for i in range(3))


@pytest.mark.parametrize("value", [0.0, 5.0, -1.7e9, 1e300, -1e-300])
def test_a_constant_feature_has_a_frame(value):
    frame = Frame.from_sample(np.full((100, 2), value), isotropic=False)
    np.testing.assert_array_equal(frame.shift, value)
    np.testing.assert_array_equal(frame.scale, 1.0)


def test_a_feature_that_is_nearly_always_the_same_gets_its_extent():
    rows = np.zeros((1000, 1))
    rows[7] = 64.0
    assert Frame.from_sample(rows, isotropic=False).scale[0] == 32.0


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_extreme_values_have_a_finite_frame(size):
    rows = size * np.random.default_rng(0).uniform(-1, 1, (500, 2))
    frame = Frame.from_sample(rows, isotropic=False)
    assert np.isfinite(frame.apply(rows)).all()
    assert 0.1 < np.abs(frame.apply(rows)).max() < 10
    assert np.isfinite(frame.log_volume)


@pytest.mark.parametrize("name", TYPES)
def test_there_and_back_is_the_same_mixture(name):
    parameters = mixture(name, 3, 2, np.random.default_rng(0))
    scale = np.full(2, 2.0**-20) if name == "spherical" else np.array([2.0**30, 2.0**-20])
    frame = Frame(np.array([0.5, -3.0]), scale)
    back = parameters.to_frame(frame).to_data(frame)
    assert_close(back.means, parameters.means, 1e-15)
    np.testing.assert_array_equal(back.covariances, parameters.covariances)
    np.testing.assert_array_equal(back.weights, parameters.weights)
