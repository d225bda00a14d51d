"""Accelerated EM: as good as plain EM, the same bits from any state, and few passes lost where it fails."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from cases import TYPES, assert_close, assert_same_mixture, mixture

from dgmm.mixture import acceleration
from dgmm.mixture.acceleration import Acceleration, anderson, flatten, unflatten, whiten
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.initialization import start

TOL = 1e-5
all_types = pytest.mark.parametrize("name", TYPES)


class Problem:
    """Overlapping round components, of which EM takes long to tell one from the other."""

    def __init__(self, name, seed, n_rows=1000, k=4, d=2, tol=TOL):
        rng = np.random.default_rng(seed)
        kind = COVARIANCE_TYPES[name]
        truth = mixture("spherical", k, d, rng, spread=2.5, low=0.8, high=1.2)
        self.rows, _ = truth.sample(n_rows, rng)
        ridge = np.full(d, 1e-6)
        self.plain = EM(Frame.identity(d), ridge, tol, 2000)
        self.fast = replace(self.plain, accelerate=True)
        self.start = EMState(start(self.rows, None, k, kind, "k-means++", ridge, np.random.default_rng(seed)))

    def e_pass(self, parameters):
        return EStep(Components.prepare(parameters, np.dtype(float), 50.0), Frame.identity(2))(self.rows)

    def log_likelihood(self, parameters):
        return self.e_pass(parameters).mean_log_likelihood

    def states(self, em, state=None, e_pass=None):
        return list(em.iterate(state or self.start, e_pass or self.e_pass))


@cache
def problem(name, seed):
    return Problem(name, seed)


@cache
def runs(name, seed):
    """States of plain and of accelerated EM."""
    p = problem(name, seed)
    return p.states(p.plain), p.states(p.fast)


def bits(state):
    parameters = state.at
    return [a.tobytes() for a in (parameters.weights, parameters.means, parameters.covariances)], state.history


def first_trial(states):
    return next(i for i, state in enumerate(states) if state.acceleration.trial is not None)


@all_types
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 1), (1, 3), (3, 3), (4, 2)])
def test_vectors_and_mixtures_are_the_same(name, k, d):
    parameters = mixture(name, k, d, np.random.default_rng(0))
    vector = flatten(parameters)
    kept = unflatten(vector, parameters)
    assert_same_mixture(kept, parameters, 1e-13)
    assert kept.covariances.shape == parameters.covariances.shape
    assert_close(flatten(kept), vector, 1e-13)
    # One more than the free parameters: log-weights are known up to a constant.
    assert len(vector) == parameters.n_parameters + 1


@all_types
def test_every_vector_is_a_mixture(name):
    like = mixture(name, 3, 2, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = unflatten(3 * rng.standard_normal(len(flatten(like))), like)
        assert found.weights.sum() == pytest.approx(1.0)
        assert (found.weights > 0).all()
        found.covariance.precision_cholesky(found.covariances)


def divergence(p, q):
    """Kullback-Leibler divergence of complete data, rows with their components."""
    k, d = p.means.shape
    total = 0.0
    matrices = zip(p.covariance.full(p.covariances, k, d), q.covariance.full(q.covariances, k, d), strict=True)
    for i, (a, b) in enumerate(matrices):
        delta, precision = p.means[i] - q.means[i], np.linalg.inv(b)
        log_det = np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1]
        normal = (np.trace(precision @ a) + delta @ precision @ delta - d + log_det) / 2
        total += p.weights[i] * (np.log(p.weights[i] / q.weights[i]) + normal)
    return total


@all_types
@pytest.mark.parametrize(("k", "d"), [(3, 1), (1, 2), (3, 3)])
def test_lengths_are_those_of_complete_data(name, k, d):
    rng = np.random.default_rng(0)
    parameters = mixture(name, k, d, rng)
    vector = flatten(parameters)
    steps = 1e-3 * rng.standard_normal((5, len(vector)))
    for step, white in zip(steps, whiten(steps, parameters), strict=True):
        there, back = (divergence(parameters, unflatten(vector + s * step, parameters)) for s in (1, -1))
        assert white @ white / 2 == pytest.approx((there + back) / 2, rel=1e-4)


@all_types
def test_a_linear_map_of_few_rates_is_solved_at_once(name):
    rng = np.random.default_rng(0)
    at = mixture(name, 3, 2, rng)
    limit = flatten(at)
    modes = 0.01 * rng.standard_normal((4, len(limit)))
    rates = np.array([0.99, 0.8, 0.5, 0.1])
    points = np.array([limit + rates**i @ modes for i in range(6)])
    residuals = np.array([(rates - 1) * rates**i @ modes for i in range(6)])
    assert np.abs(points[-1] - limit).max() > 1e-2
    np.testing.assert_allclose(anderson(points, residuals, at), limit, atol=1e-8)


@all_types
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_it_ends_as_high_as_plain_em_in_no_more_passes_but_one(name, seed):
    p = problem(name, seed)
    plain, fast = (states[-1] for states in runs(name, seed))
    assert p.log_likelihood(fast.parameters) > p.log_likelihood(plain.parameters) - TOL
    reached = np.array(fast.history) >= plain.history[-1] - TOL
    assert reached.argmax() + 1 <= plain.n_iter + 1


@pytest.mark.slow
def test_it_saves_passes_where_em_crawls():
    # Up to where plain EM ends. How soon it stops there is another matter: it looks at a slower rate.
    fractions = []
    for name in TYPES:
        for seed in range(4):
            plain, fast = (states[-1].history for states in runs(name, seed))
            reached = np.array(fast) >= plain[-1] - TOL
            fractions.append((reached.argmax() + 1) / len(plain))
    assert np.median(fractions) < 0.4


@all_types
def test_em_that_does_not_crawl_is_left_alone(name):
    rng = np.random.default_rng(0)
    p = Problem(name, 0)
    truth = mixture(name, 3, 2, rng, spread=30.0, low=0.8, high=1.2)
    p.rows, _ = truth.sample(1000, rng)
    p.start = EMState(truth)
    plain, fast = (p.states(em) for em in (p.plain, p.fast))
    assert [bits(state) for state in plain] == [bits(state) for state in fast]
    assert not fast[-1].acceleration.points.size


@all_types
def test_few_large_points_are_remembered(name, monkeypatch):
    p = problem(name, 0)
    counts = {len(state.acceleration.points) for state in runs(name, 0)[1]}
    assert counts == {*range(max(counts) + 1)} == {*range(7)}
    monkeypatch.setattr(acceleration, "_MOST_VALUES", 1)
    fast = p.states(p.fast)
    assert {len(state.acceleration.points) for state in fast} == {0, 1, 2, 3}
    assert fast[-1].log_likelihood > runs(name, 0)[0][-1].log_likelihood - TOL


@all_types
def test_unaccelerated_em_keeps_no_memory(name):
    assert all(state.acceleration is None for state in runs(name, 0)[0])


@pytest.mark.parametrize("found", ["low", "minus infinity", "nan"])
@all_types
def test_rejected_trials_are_few_and_cost_a_pass_each_and_nothing_else(name, found):
    p = problem(name, 1)
    plain = runs(name, 1)[0]
    trials = []
    expected = {bits(state)[0][0] for state in (p.start, *plain)}

    def e_pass(parameters):
        statistics = p.e_pass(parameters)
        if parameters.weights.tobytes() in expected:
            return statistics
        trials.append(parameters)
        value = {"low": statistics.log_likelihood - 0.1 * statistics.weight, "nan": np.nan}.get(found, -np.inf)
        return replace(statistics, log_likelihood=value)

    fast = p.states(p.fast, e_pass=e_pass)
    assert 1 <= len(trials) <= 4
    judged = [before.acceleration.trial is not None for before in fast[:-1]]
    assert sum(judged) == len(trials)
    kept = [fast[0], *(state for state, rejected in zip(fast[1:], judged, strict=True) if not rejected)]
    assert [s.parameters.means.tobytes() for s in kept] == [s.parameters.means.tobytes() for s in plain]
    assert [s.log_likelihood for s in kept] == [s.log_likelihood for s in plain]
    assert fast[-1].acceleration.over == (len(trials) == 4)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_longer_steps_take_over_where_anderson_s_method_leads_back(name):
    p = Problem(name, 2)
    plain, fast = p.states(p.plain), p.states(p.fast)
    kept = [0, 0]
    for before, after in pairwise(fast):
        tried = before.acceleration
        if tried.trial is not None and after.parameters is not before.parameters:
            kept[tried.stretching] += 1
    assert min(kept) > 3
    assert fast[-1].log_likelihood > plain[-1].log_likelihood - TOL
    assert len(fast) < len(plain) / 2


@all_types
def test_it_goes_on_from_any_state_with_the_same_bits(name):
    p = problem(name, 1)
    em = replace(p.fast, max_iter=30)
    states = p.states(em)
    assert sum(state.acceleration.trial is not None for state in states) > 1
    assert [bits(state) for state in p.states(em)] == [bits(state) for state in states]
    for i, state in enumerate(states):
        saved = pickle.loads(pickle.dumps(state))
        assert [bits(s) for s in em.iterate(saved, p.e_pass)] == [bits(s) for s in states[i + 1 :]]


@all_types
def test_a_run_cut_short_goes_on_with_the_same_bits_and_is_sound_where_it_was_cut(name):
    p = problem(name, 1)
    whole = runs(name, 1)[1][:30]
    cut = first_trial(whole) + 1
    short = p.states(replace(p.fast, max_iter=cut))
    # An extrapolation that no pass has judged is not the result.
    assert p.log_likelihood(short[-1].parameters) >= short[-1].log_likelihood
    rest = replace(p.fast, max_iter=30).iterate(short[-1], p.e_pass)
    assert [bits(s) for s in rest] == [bits(s) for s in whole[cut:]]


@all_types
def test_the_log_likelihood_never_falls(name):
    for seed in range(4):
        history = runs(name, seed)[1][-1].history
        assert np.diff(history).min() > -1e-9


@all_types
def test_it_does_not_stop_at_an_extrapolation(name):
    for state in runs(name, 1)[1]:
        assert not (state.acceleration.trial is not None and state.converged(np.inf))


def test_where_there_is_no_vector_em_stays_plain():
    p = problem("full", 0)
    empty = replace(p.start.parameters, weights=np.array([0.5, 0.5, 0.0, 0.0]))
    assert Acceleration(rate=0.9).after(empty, empty, -1.0, TOL).over
    flat = replace(p.start.parameters, covariances=np.zeros_like(p.start.parameters.covariances))
    assert Acceleration(rate=0.9).after(flat, flat, -1.0, TOL).over
