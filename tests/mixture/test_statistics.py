"""Sufficient statistics are a commutative monoid up to rounding, and refuse to mix centres."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, mixture
from hypothesis import given
from hypothesis import strategies as st

from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.statistics import SufficientStatistics

FIELDS = ("counts", "first", "second", "log_likelihood", "weight")
seeds = st.integers(0, 2**32 - 1)


def statistics(parameters, rng, n=30):
    d = parameters.n_features
    step = EStep(Components.prepare(parameters, np.dtype(float), 100.0), Frame.identity(d))
    magnitude = 10.0 ** rng.uniform(-2, 2)
    return step(magnitude * rng.standard_normal((n, d)), rng.random(n))


@st.composite
def several(draw, how_many=3):
    """Statistics about the same centres, of rows of unlike magnitude."""
    name = draw(st.sampled_from(TYPES))
    k, d = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(seeds))
    parameters = mixture(name, k, d, rng)
    return [statistics(parameters, rng) for _ in range(how_many)]


def zero(like: SufficientStatistics) -> SufficientStatistics:
    return like.scale(0.0)


def assert_equal(a, b, tolerance=0.0):
    for field in FIELDS:
        assert_close(getattr(a, field), getattr(b, field), tolerance, field)


@given(several())
def test_addition_is_associative_up_to_rounding(parts):
    a, b, c = parts
    both, sizes = ((a + b) + c, a + (b + c)), abs_sum(parts)
    for field in FIELDS:
        difference = np.abs(np.asarray(getattr(both[0], field)) - getattr(both[1], field))
        assert np.all(difference <= 4 * np.finfo(float).eps * sizes[field])


def abs_sum(parts):
    return {f: sum(np.abs(np.asarray(getattr(p, f))) for p in parts) for f in FIELDS}


@given(several(2))
def test_addition_commutes_exactly(parts):
    a, b = parts
    assert_equal(a + b, b + a)


@given(several(1))
def test_zero_is_neutral(parts):
    (a,) = parts
    assert_equal(a + zero(a), a)
    assert_equal(zero(a) + a, a)


@given(several(2), st.floats(1e-3, 1e3))
def test_scale_distributes_over_addition(parts, factor):
    a, b = parts
    left, right, sizes = (a + b).scale(factor), a.scale(factor) + b.scale(factor), abs_sum(parts)
    for field in FIELDS:
        difference = np.abs(np.asarray(getattr(left, field)) - getattr(right, field))
        assert np.all(difference <= 8 * np.finfo(float).eps * factor * sizes[field])


@given(several(1), st.integers(1, 6))
def test_scale_is_repeated_addition(parts, times):
    (a,) = parts
    total = a
    for _ in range(times - 1):
        total = total + a
    assert_equal(a.scale(float(times)), total, 1e-15)


@given(several(2), st.integers(0, 3), st.sampled_from([np.inf, -np.inf]))
def test_unlike_centres_are_refused(parts, where, direction):
    a, b = parts
    centres = a.centres.copy()
    where %= centres.size
    centres.flat[where] = np.nextafter(centres.flat[where], direction)  # the last bit is enough
    moved = SufficientStatistics(centres, b.counts, b.first, b.second, b.log_likelihood, b.weight)
    with pytest.raises(ValueError, match="unlike centres"):
        a + moved
    with pytest.raises(ValueError, match="unlike centres"):
        moved + a


@pytest.mark.parametrize("name", TYPES)
def test_addition_leaves_its_arguments_alone(name):
    rng = np.random.default_rng(3)
    parameters = mixture(name, 2, 3, rng)
    a, b = statistics(parameters, rng), statistics(parameters, rng)
    before = [np.copy(getattr(a, field)) for field in FIELDS]
    a + b
    a.scale(2.0)
    for field, value in zip(FIELDS, before, strict=True):
        np.testing.assert_array_equal(getattr(a, field), value)


@pytest.mark.parametrize("name", TYPES)
def test_shapes_are_those_of_the_covariance_type(name):
    rng = np.random.default_rng(0)
    found = statistics(mixture(name, 3, 4, rng), rng)
    rows = 1 if COVARIANCE_TYPES[name].pooled else 3
    assert found.counts.shape == (3,)
    assert found.first.shape == found.centres.shape == (3, 4)
    assert found.second.shape == (rows, COVARIANCE_TYPES[name].n_quadratic(4))


@pytest.mark.parametrize("name", TYPES)
def test_a_billion_rows_by_scaling_keep_means_and_covariances(name):
    from dgmm.mixture.maximization import m_step

    rng = np.random.default_rng(5)
    parameters = mixture(name, 3, 4, rng)
    step = EStep(Components.prepare(parameters, np.dtype(float), 100.0), Frame.identity(4))
    block = step(3 * rng.standard_normal((1000, 4)))
    total = block
    for _ in range(20):  # 2^20 times 1000 rows, by doubling
        total = total + total
    one, many = (m_step(s, parameters, np.zeros(4)) for s in (block, total))
    assert total.weight == 1000 * 2.0**20
    assert_close(many.means, one.means, 1e-10)
    assert_close(many.covariances, one.covariances, 1e-10)
