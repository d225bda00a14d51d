"""What EM must keep: likelihood, the meaning of weights, and the answer when the units change."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
from cases import TYPES, assert_close, assert_same_mixture, mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.errors import IllDefinedCovariance, InvalidData
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.initialization import INIT_PARAMS, start
from dgmm.mixture.parameters import Parameters

all_types = pytest.mark.parametrize("name", TYPES)
seeds = st.integers(0, 2**32 - 1)


def fitted(rows, name, k=3, sample_weight=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where max_iter is given on purpose
        options = {"reg_covar": 0.0, "random_state": 0, **options}
        return GaussianMixture(k, covariance_type=name, **options).fit(rows, sample_weight=sample_weight)


def parameters_of(model, offset=0.0, scale=1.0):
    """Parameters in other units: of (x - offset) / scale."""
    kind = COVARIANCE_TYPES[model.covariance_type]
    scale = np.broadcast_to(np.asarray(scale, dtype=float), (model.n_features_in_,))
    covariances = kind.rescale(model.covariances_, 1 / scale)
    return Parameters(kind, model.weights_, (model.means_ - offset) / scale, covariances)


def clusters(name, n=600, k=3, d=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = mixture(name, k, d, rng, spread=6.0, low=0.6, high=1.4)
    # Multiples of 2^-10: offsets up to 2^31 are exact.
    return np.round(truth.sample(n, rng)[0] * 1024) / 1024


# --- likelihood ----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    name=st.sampled_from(TYPES),
    k=st.integers(1, 5),
    d=st.integers(1, 5),
    n=st.integers(20, 200),
    how=st.sampled_from(INIT_PARAMS),
    weighted=st.booleans(),
    heavy_tails=st.booleans(),
    seed=seeds,
)
def test_em_never_loses_likelihood(name, k, d, n, how, weighted, heavy_tails, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(2, (n, d)) if heavy_tails else rng.standard_normal((n, d))
    weights = rng.integers(1, 4, n).astype(float) if weighted else None
    kind, frame, none = COVARIANCE_TYPES[name], Frame.identity(d), np.zeros(d)
    state = EMState(start(rows, weights, k, kind, how, none, rng))

    def e_pass(parameters):
        return EStep(Components.prepare(parameters, np.dtype(float), 4.0 * d), frame)(rows, weights)

    reached = [state]
    with contextlib.suppress(IllDefinedCovariance):  # with reg_covar = 0 a component may end on too few rows
        reached.extend(EM(frame, none, 0.0, 40).iterate(state, e_pass))
    history = np.array(reached[-1].history)
    steepest = kind.largest_precision(kind.precision_cholesky(reached[0].parameters.covariances), k).max()
    for one in reached[:-1]:
        cholesky = kind.precision_cholesky(one.parameters.covariances)
        steepest = max(steepest, kind.largest_precision(cholesky, k).max())
    # On the way to a collapse the rounding of the covariance itself shows in the likelihood.
    rounding = 1e-13 * max(1.0, np.abs(history).max(initial=0)) * max(1.0, 1e-3 * steepest)
    assert np.all(np.diff(history) >= -rounding)


# --- weights -------------------------------------------------------------------------------------------------


def given_start(name, rows, k=3, seed=0):
    rng = np.random.default_rng(seed)
    kind = COVARIANCE_TYPES[name]
    cholesky = kind.precision_cholesky(mixture(name, k, rows.shape[1], rng, low=1.0, high=2.0).covariances)
    precisions = kind.precisions(cholesky)
    if name in ("full", "tied"):
        precisions = (precisions + np.swapaxes(precisions, -1, -2)) / 2
    means = rows[rng.choice(len(rows), k, replace=False)]
    return {"weights_init": np.full(k, 1 / k), "means_init": means, "precisions_init": precisions}


@settings(max_examples=8)
@given(seed=seeds)
@all_types
def test_weight_two_is_the_row_twice_and_weight_zero_is_none(name, seed):
    rng = np.random.default_rng(seed)
    rows = clusters(name, n=300)
    weights = rng.integers(0, 4, 300)
    options = {"tol": 0.0, "max_iter": 6, **given_start(name, rows)}
    weighted = fitted(rows, name, sample_weight=weights.astype(float), **options)
    repeated = fitted(np.repeat(rows, weights, axis=0), name, **options)
    absent = fitted(rows[weights > 0], name, sample_weight=weights[weights > 0].astype(float), **options)
    for other in (repeated, absent):
        assert_same_mixture(parameters_of(weighted), parameters_of(other), 1e-12)
        n = min(weighted.n_iter_, other.n_iter_)  # either may end where nothing is gained any more
        assert_close(weighted.lower_bounds_[:n], other.lower_bounds_[:n], 1e-12, "lower bounds")


@pytest.mark.parametrize("factor", [2.0**-40, 0.1, 1000.0, 1e12])
@all_types
def test_only_the_ratios_of_weights_matter(name, factor):
    rows, rng = clusters(name), np.random.default_rng(0)
    weights = rng.random(len(rows))
    for options in ({"tol": 0.0, "max_iter": 6, **given_start(name, rows)}, {}):
        expected = fitted(rows, name, sample_weight=weights, **options)
        found = fitted(rows, name, sample_weight=weights * factor, **options)
        assert_same_mixture(parameters_of(found), parameters_of(expected), 1e-11)
        assert_close(found.lower_bound_, expected.lower_bound_, 1e-12)


@all_types
def test_a_thousand_copies_are_the_weight_of_a_thousand(name):
    rows = clusters(name, n=40, k=2, d=2)
    options = {"tol": 0.0, "max_iter": 5, **given_start(name, rows, 2)}
    copies = fitted(np.repeat(rows, 1000, axis=0), name, 2, **options)
    heavy = fitted(rows, name, 2, sample_weight=np.full(40, 1000.0), **options)
    plain = fitted(rows, name, 2, **options)
    for other in (heavy, plain):
        assert_same_mixture(parameters_of(copies), parameters_of(other), 1e-12)


# --- units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8, 1.7e9, -1.7e9])
@all_types
def test_an_offset_changes_nothing_but_the_means(name, offset):
    rows = clusters(name)
    moved = rows + offset
    np.testing.assert_array_equal(moved - offset, rows)
    at_origin, far = fitted(rows, name), fitted(moved, name)
    np.testing.assert_array_equal(far.predict(moved), at_origin.predict(rows))
    assert_close(far.covariances_, at_origin.covariances_, 1e-6, "covariances")
    assert_close(far.weights_, at_origin.weights_, 1e-9, "weights")
    assert np.abs(far.means_ - offset - at_origin.means_).max() < 1e-9 + 4 * np.spacing(abs(offset))
    assert_close(far.predict_proba(moved), at_origin.predict_proba(rows), 1e-9, "responsibilities")
    assert far.lower_bound_ == pytest.approx(at_origin.lower_bound_, rel=1e-9)
    assert far.n_iter_ == at_origin.n_iter_


@pytest.mark.parametrize("offset", [1e3, 1.7e9])
@all_types
def test_an_offset_changes_nothing_from_a_given_start(name, offset):
    rows = clusters(name)
    start = given_start(name, rows)
    at_origin = fitted(rows, name, tol=0.0, max_iter=10, **start)
    moved_start = {**start, "means_init": start["means_init"] + offset}
    far = fitted(rows + offset, name, tol=0.0, max_iter=10, **moved_start)
    assert_close(far.covariances_, at_origin.covariances_, 1e-6, "covariances")
    np.testing.assert_array_equal(far.predict(rows + offset), at_origin.predict(rows))


ONE_UNIT = [(6, 6, 6), (12, 12, 12), (-12, -12, -12)]  # sigma^2 I is spherical in one unit for all features only
UNITS = [(-6, 0, 6), (-12, 0, 12), *ONE_UNIT]


@pytest.mark.parametrize(
    ("name", "exponents"), [(name, e) for name in TYPES for e in (ONE_UNIT if name == "spherical" else UNITS)]
)
def test_units_change_nothing_but_the_units(name, exponents):
    rows, scale = clusters(name), 10.0 ** np.array(exponents)
    expected, found = fitted(rows, name), fitted(rows * scale, name)
    np.testing.assert_array_equal(found.predict(rows * scale), expected.predict(rows))
    assert_same_mixture(parameters_of(found, scale=scale), parameters_of(expected), 1e-8)
    assert_close(found.predict_proba(rows * scale), expected.predict_proba(rows), 1e-8, "responsibilities")
    assert found.lower_bound_ == pytest.approx(expected.lower_bound_ - np.log(scale).sum(), rel=1e-8)


@pytest.mark.parametrize("init_params", INIT_PARAMS)
@all_types
def test_units_change_nothing_whatever_the_start_and_reg_relative(name, init_params):
    rows = clusters(name)
    scale = np.full(3, 1e6) if name == "spherical" else np.array([1e-6, 1.0, 1e6])
    # Random responsibilities begin at a saddle, whence rounding grows: few iterations.
    options = {"init_params": init_params, "reg_relative": 1e-6, "max_iter": 5, "tol": 0.0}
    expected, found = fitted(rows, name, **options), fitted(rows * scale, name, **options)
    assert_same_mixture(parameters_of(found, scale=scale), parameters_of(expected), 1e-8)


@pytest.mark.parametrize("size", [1e-100, 1e100])
@all_types
def test_extreme_units_change_nothing(name, size):
    rows = clusters(name)
    expected, found = fitted(rows, name), fitted(rows * size, name)
    np.testing.assert_array_equal(found.predict(rows * size), expected.predict(rows))
    assert_same_mixture(parameters_of(found, scale=size), parameters_of(expected), 1e-8)


@pytest.mark.parametrize("size", [1e-200, 1e160, 1e200, 1e307])
@all_types
def test_units_beyond_the_range_of_variances_are_refused(name, size):
    rows = clusters(name)
    rows /= np.abs(rows).max()
    rows[:, 1] *= size
    with pytest.raises(InvalidData, match=r"feature 1 .* range of double precision"):
        fitted(rows, name)
