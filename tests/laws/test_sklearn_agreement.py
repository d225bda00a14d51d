"""From the same start, t iterations are scikit-learn's t iterations; the same parameters predict the same."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.mixture
from cases import TYPES, assert_close, mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.errors import CollapsedComponentWarning

FITTED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
all_types = pytest.mark.parametrize("name", TYPES)


def problem(name, k, d, rng, n=600):
    """Rows, and a start near enough to their truth that every component keeps rows enough."""
    truth = mixture(name, k, d, rng, spread=2.0, low=0.4, high=2.0, evenness=50.0)
    rows, _ = truth.sample(n, rng)
    kind = truth.covariance
    began = mixture(name, k, d, rng, low=1.0, high=2.5, evenness=50.0)
    precisions = kind.precisions(kind.precision_cholesky(began.covariances))
    if name in ("full", "tied"):
        precisions = (precisions + np.swapaxes(precisions, -1, -2)) / 2
    means = truth.means + 0.3 * rng.standard_normal((k, d))
    return rows, {"weights_init": began.weights, "means_init": means, "precisions_init": precisions}


def fitted(cls, rows, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a given number of iterations is not enough
        warnings.simplefilter("ignore", CollapsedComponentWarning)  # and may end near a collapse
        return cls(tol=0.0, random_state=0, **options).fit(rows)


def assert_same_fit(ours, theirs, tolerance=1e-9):
    for attribute in FITTED:
        assert_close(getattr(ours, attribute), getattr(theirs, attribute), tolerance, attribute)
    assert_close(ours.lower_bound_, theirs.lower_bound_, tolerance, "lower_bound_")
    assert_close(ours.lower_bounds_, theirs.lower_bounds_, tolerance, "lower_bounds_")


def assert_same_answers(ours, theirs, rows, tolerance=1e-9):
    np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
    assert_close(ours.predict_proba(rows), theirs.predict_proba(rows), tolerance, "predict_proba")
    for method in ("score_samples", "score", "bic", "aic"):
        assert_close(getattr(ours, method)(rows), getattr(theirs, method)(rows), tolerance, method)


@settings(max_examples=15)
@given(
    k=st.integers(1, 6),
    d=st.integers(1, 12),
    t=st.sampled_from([1, 2, 5, 10]),
    reg_covar=st.sampled_from([0.0, 1e-6, 1e-2]),
    seed=st.integers(0, 2**32 - 1),
)
@all_types
def test_t_iterations_from_one_start_are_scikit_learns(name, k, d, t, reg_covar, seed):
    rows, start = problem(name, k, d, np.random.default_rng(seed))
    options = {"covariance_type": name, "n_components": k, "reg_covar": reg_covar, **start}
    ours = fitted(GaussianMixture, rows, max_iter=t, **options)
    if ours.n_iter_ < t:  # dgmm stops where nothing is gained any more (one component: after one iteration)
        gain = ours.lower_bounds_[-1] - ours.lower_bounds_[-2]
        assert abs(gain) <= 16 * np.finfo(float).eps * max(abs(ours.lower_bound_), 1)
    theirs = fitted(sklearn.mixture.GaussianMixture, rows, max_iter=ours.n_iter_, **options)
    assert_same_fit(ours, theirs)


@pytest.mark.parametrize("t", [1, 5])
@all_types
def test_only_some_of_the_start_is_given(name, t):
    # The rest is found on the sample: nothing to compare, but what is given must be where EM begins.
    rows, start = problem(name, 3, 2, np.random.default_rng(1))
    for given_name in start:
        options = {"covariance_type": name, "n_components": 3, "max_iter": t, given_name: start[given_name]}
        assert np.isfinite(fitted(GaussianMixture, rows, **options).lower_bound_)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (5, 9)])
@all_types
def test_a_scikit_learn_model_answers_the_same_here(name, k, d):
    rows, start = problem(name, k, d, np.random.default_rng(k))
    theirs = fitted(sklearn.mixture.GaussianMixture, rows, covariance_type=name, n_components=k, **start)
    ours = GaussianMixture.from_sklearn(theirs)
    assert_same_answers(ours, theirs, rows)
    for attribute in FITTED:
        assert_close(getattr(ours, attribute), getattr(theirs, attribute), 1e-12, attribute)
    assert (ours.n_iter_, ours.converged_, ours.lower_bound_) == (
        theirs.n_iter_, theirs.converged_, theirs.lower_bound_,
    )  # fmt: skip
    params = ours.get_params()
    assert {name: params[name] for name in theirs.get_params()} == theirs.get_params()


@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (5, 9)])
@all_types
def test_a_model_from_here_answers_the_same_in_scikit_learn(name, k, d):
    rows, start = problem(name, k, d, np.random.default_rng(k))
    ours = fitted(GaussianMixture, rows, covariance_type=name, n_components=k, max_iter=20, **start)
    theirs = ours.to_sklearn()
    assert type(theirs) is sklearn.mixture.GaussianMixture
    assert_same_answers(ours, theirs, rows)
    drawn, labels = theirs.sample(5)
    assert drawn.shape == (5, d)
    assert labels.shape == (5,)
    assert_same_answers(GaussianMixture.from_sklearn(theirs), ours, rows)


@all_types
def test_float32_models_answer_the_same_both_ways(name):
    small = problem(name, 3, 2, np.random.default_rng(1))[0].astype(np.float32)
    theirs = fitted(sklearn.mixture.GaussianMixture, small, covariance_type=name, n_components=3)
    ours = GaussianMixture.from_sklearn(theirs)
    assert ours.means_.dtype == theirs.means_.dtype == np.float32
    for attribute in FITTED:
        assert getattr(ours, attribute).dtype == getattr(theirs, attribute).dtype
    assert np.abs(ours.score_samples(small) - theirs.score_samples(small)).max() < 1e-4
