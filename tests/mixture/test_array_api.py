"""Rows of other libraries: the statistics and the posterior of NumPy's, computed where the rows are.

array-api-strict refuses what the standard lacks, and hides what is on its other devices from NumPy's functions.
"""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace
from array_api_compat import device as device_of
from cases import TYPES, assert_close, mixture

import dgmm.mixture.tiling
from dgmm.mixture.components import Components
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.namespaces import to_numpy
from dgmm.mixture.parameters import Parameters

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
TOLERANCE = {DOUBLE: 1e-13, SINGLE: 2e-6}
K, D = 4, 3
FIELDS = ("counts", "first", "second", "log_likelihood", "weight")
FRAME = Frame(np.array([0.5, -1.0, 2.0]), np.array([2.0, 0.5, 1.0]))

all_types = pytest.mark.parametrize("name", TYPES)
both_dtypes = pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
which_centred = pytest.mark.parametrize("centred", ["none", "some", "all"])
both_weightings = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


@pytest.fixture(params=["strict", "strict, another device", "torch"])
def convert(request):
    """From NumPy's arrays to those of a library."""
    if request.param == "torch":
        return pytest.importorskip("torch").asarray
    device = array_api_strict.Device("CPU_DEVICE" if request.param == "strict" else "device1")
    return lambda array: array_api_strict.asarray(array, device=device)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(dgmm.mixture.tiling, "_TILE_ROWS", (64, 64))


def drawn(name, dtype, centred="none", *, weighted=False):
    """Components in the frame, of which those centred are thin; rows in data units, some far out; weights."""
    rng = np.random.default_rng(5)
    drawn = mixture(name, K, D, rng, spread=1.0, low=0.5, high=1.5)
    covariances = np.array(drawn.covariances)
    thin = {"none": slice(0), "some": slice(1, None, 2), "all": slice(None)}[centred]
    covariances[... if name == "tied" and centred != "none" else thin] *= 1e-10
    parameters = Parameters(drawn.covariance, drawn.weights, drawn.means, covariances)
    components = Components.prepare(parameters, dtype, 20.0)
    assert components.centred.sum() == {"none": 0, "some": K if name == "tied" else K // 2, "all": K}[centred]
    z = parameters.sample(300, rng)[0]
    z[130:133] *= 1e5
    rows = (z * FRAME.scale + FRAME.shift).astype(dtype)
    return components, rows, rng.random(300) if weighted else None


def assert_same_statistics(found, expected, tolerance):
    for field in FIELDS:
        value = getattr(found, field)
        assert type(value) is type(getattr(expected, field))
        assert np.asarray(value).dtype == DOUBLE
        assert_close(value, getattr(expected, field), tolerance, field)


@both_weightings
@both_dtypes
@all_types
@which_centred
def test_statistics_are_those_of_numpy(small_tiles, convert, name, dtype, weighted, centred):
    components, rows, weights = drawn(name, dtype, centred, weighted=weighted)
    assert components.dtype == (dtype if centred == "none" else DOUBLE)
    # As many rows as are worth compiling for NumPy alone.
    step, plain = EStep(components, FRAME, n_rows=10**12), EStep(components, FRAME)
    expected = plain(rows, weights)
    foreign_weights = None if weights is None else convert(weights)
    for _ in range(2):  # buffers are used again
        assert_same_statistics(step(convert(rows), foreign_weights), expected, TOLERANCE[components.dtype])


@both_dtypes
@all_types
@which_centred
def test_posterior_is_that_of_numpy_and_stays_where_the_rows_are(small_tiles, convert, name, dtype, centred):
    components, rows, _ = drawn(name, dtype, centred)
    step, foreign = EStep(components, FRAME), convert(rows)
    n_tiles = 0
    for (place, *found), (expected_place, *expected) in zip(
        step.posterior(foreign), step.posterior(rows), strict=True
    ):
        assert place == expected_place
        for ours, theirs in zip(expected, found, strict=True):
            assert array_namespace(theirs) is array_namespace(foreign)
            assert device_of(theirs) == device_of(foreign)
            assert theirs.dtype == array_namespace(foreign).float64
            assert_close(to_numpy(theirs), ours, TOLERANCE[DOUBLE])
        n_tiles += 1
    assert n_tiles == 5


def test_a_step_takes_rows_of_several_libraries_and_devices_in_turn(small_tiles):
    components, rows, weights = drawn("full", DOUBLE, weighted=True)
    step = EStep(components, FRAME)
    expected = step(rows, weights)
    for device in array_api_strict.Device("device1"), array_api_strict.Device("CPU_DEVICE"):
        foreign = [array_api_strict.asarray(a, device=device) for a in (rows, weights)]
        assert_same_statistics(step(*foreign), expected, TOLERANCE[DOUBLE])
        assert_same_statistics(step(rows, weights), expected, 0.0)


def test_rows_and_weights_of_unlike_libraries_are_refused():
    components, rows, weights = drawn("full", DOUBLE, weighted=True)
    with pytest.raises(TypeError, match="Multiple namespaces"):
        EStep(components, FRAME)(array_api_strict.asarray(rows), weights)


def test_numpy_gets_an_array_that_it_may_write_to():
    ones = to_numpy(array_api_strict.ones((2, 3)))
    ones += 1
    np.testing.assert_array_equal(ones, np.full((2, 3), 2.0))
    assert to_numpy(ones) is ones
