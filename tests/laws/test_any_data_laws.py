"""Whatever the data: an error of dgmm's, or a mixture that is finite throughout; never a leaked warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cases import TYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.errors import DgmmError, DgmmWarning
from dgmm.mixture.initialization import INIT_PARAMS


def hard_rows(rng):
    """Rounded, skewed, scaled, shifted, constant, dependent, repeated rows, and outliers."""
    n, d = int(rng.choice([2, 3, 5, 20, 100, 400])), int(rng.integers(1, 6))
    rows = rng.standard_normal((n, d))

    def chance(share):
        return rng.random() < share

    if chance(0.3):
        rows = np.round(rows * rng.choice([1, 3]))
    if chance(0.3):
        rows = np.exp(3 * rows)
    if chance(0.3):
        rows *= 10.0 ** rng.integers(-30, 30, d)
    if chance(0.3):
        rows += 10.0 ** rng.integers(0, 12, d)
    if chance(0.2):
        rows[:, 0] = 7
    if chance(0.2):
        rows[:, -1] = rows[:, 0] * 2 + 1
    if chance(0.3):
        rows[rng.integers(n)] = rng.choice([1e8, -1e12, 1e30, 1e100])
    if chance(0.2):
        rows = rows[rng.integers(0, max(1, n // 10), n)]
    if chance(0.3):
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32)
    weights = rng.choice([0, 1, 1e-8, 1e8, 3.0], n) if chance(0.3) else None
    return rows, weights


def settings_for(rng, rows):
    n, d = rows.shape
    k = int(rng.integers(1, min(n, 7) + 1))
    options = {
        "n_components": k,
        "covariance_type": str(rng.choice(TYPES)),
        "reg_covar": float(rng.choice([0, 1e-6, 1e-6, 1])),
        "init_params": str(rng.choice(INIT_PARAMS)),
        "n_init": int(rng.choice([1, 1, 3])),
        "sample_size": None if rng.random() < 0.6 else max(k, n // 3),
        "max_iter": int(rng.choice([1, 30, 1000])),
        "random_state": 0,
    }
    if rng.random() < 0.2:
        options["means_init"] = rng.standard_normal((k, d)) * 10.0 ** rng.integers(-3, 8)
    return options


def check(seed):
    rng = np.random.default_rng(seed)
    rows, weights = hard_rows(rng)
    model = GaussianMixture(**settings_for(rng, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DgmmWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(rows, sample_weight=weights)
        except DgmmError:
            return
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            assert np.isfinite(getattr(model, name)).all(), name
        assert model.weights_.sum() == pytest.approx(1, abs=1e-5)
        assert np.isfinite(model.score_samples(rows)).all()
        np.testing.assert_allclose(model.predict_proba(rows).sum(axis=1), 1, atol=1e-12)
        assert np.isfinite(model.sample(5)[0]).all()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_finite_mixture_or_an_error(seed):
    check(seed)


# What once leaked an overflow, or an error of scikit-learn's.
@pytest.mark.parametrize("seed", [1, 31, 72, 198, 223, 493, 952, 6060])
def test_a_finite_mixture_or_an_error_once_again(seed):
    check(seed)


@pytest.mark.slow
@settings(max_examples=1500)
@given(seed=st.integers(0, 2**32))
def test_a_finite_mixture_or_an_error_many_times(seed):
    check(seed)
