"""When EM stops, and what a model costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmm.mixture.criteria import aic, bic, converged


def geometric(ratio, n, first=1.0, limit=-5.0):
    """A log-likelihood that approaches `limit`, each gap `ratio` times the last."""
    return [limit - first * ratio**i for i in range(n)]


def stops_at(history, tol):
    return next((n for n in range(1, len(history) + 1) if converged(history[:n], tol)), None)


@given(st.floats(0.05, 0.995), st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_it_stops_when_what_is_left_is_below_tol(ratio, tol):
    history = geometric(ratio, 6000)
    n = stops_at(history, tol)
    left = -5.0 - np.array(history[:n])
    # What is left after each of the last three steps is below tol (the estimate is exact here).
    assert left[-3] < tol * 1.01
    assert n <= 5 or left[-4] >= tol * 0.99


def test_a_slow_approach_is_not_mistaken_for_the_end():
    # Each gain is below 1e-3 per row (scikit-learn's rule), with half a nat still to come.
    history = geometric(0.999, 15_000, first=0.5)
    assert history[1] - history[0] < 1e-3
    n = stops_at(history, 1e-5)
    assert -5.0 - history[n - 1] < 1e-5
    assert n > 9_000


def test_three_steps_in_a_row_have_to_agree():
    history = geometric(0.1, 8)
    assert stops_at(history, 1.0) == 5  # four gains make three ratios
    for n in range(1, 5):
        assert not converged(history[:n], np.inf)
    jump = [*history[:5], history[4] + 0.5, history[4] + 0.6]
    assert not converged(jump[:6], 1.0)
    assert not converged(jump, 1.0)


def test_growing_or_alternating_gains_are_no_convergence():
    growing = [-5.0 + 1e-9 * 2.0**i for i in range(20)]
    assert stops_at(growing, 1e-2) is None
    gains = 0.1 * 0.9 ** np.arange(20) * (-1.0) ** np.arange(20)
    assert stops_at(np.cumsum(gains).tolist(), 1e-2) is None


def test_going_up_and_down_by_less_than_tol_is_the_end():
    # As covariances of a singular direction do that only the regularisation holds up.
    cycle = [-5.0 + 1e-10 * s for s in (0, 1, 0, 1, 0, 1, 0)]
    assert stops_at(cycle, 1e-5) == 5
    assert stops_at(cycle, 1e-11) is None
    assert stops_at(cycle, 0.0) is None
    # A turning point is no cycle: with reg_covar the plain log-likelihood may rise, then fall.
    turning = [-5.0 + 1e-7 * s for s in (0, 1, 2, 1, 0)]
    assert stops_at(turning, 1e-5) is None


def test_losses_that_shrink_converge_too():
    # With reg_covar the plain log-likelihood may fall to its limit.
    history = [-5.0 + 0.5**i for i in range(40)]
    assert converged(history, 1e-5)


def test_nothing_is_converged_before_the_second_iteration():
    assert not converged([], np.inf)
    assert not converged([-1.0], np.inf)


@given(st.floats(0.0, 0.9), st.floats(-1e6, 1e6))
def test_tol_zero_never_stops_by_tolerance(ratio, limit):
    noise = 16 * np.finfo(float).eps * max(abs(limit), 1.0)
    history = geometric(ratio, 60, first=max(abs(limit), 1.0), limit=limit)
    n = stops_at(history, 0.0)
    assert n is None or abs(history[n - 1] - history[n - 2]) <= 1.01 * noise


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e9])
def test_gains_below_the_rounding_of_the_log_likelihood_end_the_fit(size):
    eps = np.finfo(float).eps * max(size, 1.0)
    assert converged([-2 * size, -size - 10 * eps, -size], 0.0)
    assert converged([-size, -size], 0.0)
    assert not converged([-2 * size, -size - 100 * eps, -size], 0.0)


def test_information_criteria():
    assert bic(-100.0, 7, 50.0) == pytest.approx(200 + 7 * np.log(50))
    assert aic(-100.0, 7) == 214
