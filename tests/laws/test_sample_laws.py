"""The sample of the scan depends on seed and row numbers alone, and is a fair one."""

from __future__ import annotations

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.engine.events import Scanned
from dgmm.engine.run import Silence
from dgmm.engine.sample import Sample, SamplingRule, uniform_hash
from dgmm.errors import CheckpointMismatch, InvalidParameter

seeds = st.integers(0, 2**63 - 1)


def sample_of(rows, weights, rule, cuts=(), order=None):
    """Of blocks cut at `cuts` and merged in `order`."""
    bounds = sorted({0, *cuts, len(rows)})
    parts = [
        Sample.of_rows(np.arange(a, b), rows[a:b], None if weights is None else weights[a:b], rule)
        for a, b in pairwise(bounds)
    ]
    order = range(len(parts)) if order is None else order
    total, *rest = [parts[i % len(parts)] for i in order] if len(parts) > 1 else parts
    for part in rest:
        total = total + part
    return total


def numbered(n):
    return np.arange(n, dtype=float)[:, None]


@settings(max_examples=60)
@given(
    n=st.integers(1, 300),
    m=st.integers(1, 100),
    seed=seeds,
    weighted=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_any_blocks_merged_in_any_order_give_the_same_sample(n, m, seed, weighted, shuffle, data):
    cuts = data.draw(st.lists(st.integers(1, max(n - 1, 1)), max_size=20))
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, n).astype(float) if weighted else None
    rule = SamplingRule.for_rows(m, seed, n)
    expected = sample_of(numbered(n), weights, rule).drawn()
    cuts = [c for c in cuts if c < n]
    order = list(range(len({0, *cuts, n}) - 1))
    shuffle.shuffle(order)
    rows, carried = sample_of(numbered(n), weights, rule, cuts, order).drawn()
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(carried, expected[1])
    assert len(rows) == min(m, n if weights is None else np.count_nonzero(weights))
    assert np.all(np.diff(rows[:, 0]) > 0)
    if weights is not None:
        assert np.all(weights[rows[:, 0].astype(int)] > 0)


@settings(max_examples=30)
@given(n=st.integers(1, 300), m=st.integers(1, 100), seed=seeds)
def test_merging_is_associative(n, m, seed):
    rule = SamplingRule.for_rows(m, seed, n)
    third = max(n // 3, 1)
    a, b, c = (
        Sample.of_rows(np.arange(n)[part], numbered(n)[part], None, rule)
        for part in (slice(third), slice(third, 2 * third), slice(2 * third, n))
    )
    left, right = (a + b) + c, a + (b + c)
    np.testing.assert_array_equal(left.indices, right.indices)
    np.testing.assert_array_equal(left.priorities, right.priorities)


def test_equal_weights_are_no_weights():
    n, rule = 5000, SamplingRule.for_rows(300, 4, 5000)
    plain = sample_of(numbered(n), None, rule)
    for weight in (1.0, 0.125):
        weighted = sample_of(numbered(n), np.full(n, weight), rule)
        np.testing.assert_array_equal(weighted.drawn()[0], plain.drawn()[0])


def test_rows_follow_their_indices_and_not_their_values():
    rule = SamplingRule.for_rows(100, 4, 2000)
    chosen = sample_of(numbered(2000), None, rule).drawn()[0]
    np.testing.assert_array_equal(sample_of(-numbered(2000), None, rule).drawn()[0], -chosen)


def test_another_seed_is_another_sample():
    n, m = 5000, 500
    samples = [set(sample_of(numbered(n), None, SamplingRule.for_rows(m, s, n)).indices) for s in range(5)]
    for a, b in pairwise(samples):
        assert len(a & b) < 3 * m * m / n  # 50 are expected


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_hashes_are_uniform_and_neither_neighbours_nor_seeds_are_correlated(seed):
    u = uniform_hash(seed, np.arange(200_000))
    assert u.min() > 0
    assert u.max() <= 1
    assert kstest(u, "uniform").pvalue > 1e-3
    for other in (u[1:], uniform_hash(seed + 1, np.arange(199_999))):
        assert abs(np.corrcoef(u[:-1], other)[0, 1]) < 5 / np.sqrt(200_000)
    counts, _, _ = np.histogram2d(u[:-1:2], u[1::2], bins=16)
    expected = 100_000 / 256
    assert 1e-3 < chi2.sf(np.sum((counts - expected) ** 2) / expected, 255) < 1 - 1e-3


def test_every_row_is_equally_likely():
    n, m, repeats = 200, 20, 2000
    hits = np.zeros(n)
    for seed in range(repeats):
        hits[sample_of(numbered(n), None, SamplingRule.for_rows(m, seed, n)).drawn()[0][:, 0].astype(int)] += 1
    share = m / n
    statistic = np.sum((hits - repeats * share) ** 2) / (repeats * share * (1 - share)) * (n - 1) / n
    assert 1e-3 < chi2.sf(statistic, n - 1) < 1 - 1e-3


def test_the_cutoff_never_costs_a_row():
    n, m = 100_000, 50
    for seed in range(20):
        rule = SamplingRule.for_rows(m, seed, n)
        everything = SamplingRule(m, seed, 1.0)
        np.testing.assert_array_equal(
            sample_of(numbered(n), None, rule).indices, sample_of(numbered(n), None, everything).indices
        )


def test_carried_weights_estimate_totals_without_bias():
    rng = np.random.default_rng(0)
    n, m, repeats = 400, 40, 3000
    weights = rng.pareto(1.5, n) + 0.1
    weights[rng.random(n) < 0.2] = 0
    values = np.column_stack([np.ones(n), rng.standard_normal(n) + 1, np.arange(n) < 10])
    totals = np.empty((repeats, 3))
    for seed in range(repeats):
        rows, carried = sample_of(values, weights, SamplingRule.for_rows(m, seed, n)).drawn()
        assert len(rows) == m
        totals[seed] = carried @ rows
    truth = weights @ values
    standard_error = totals.std(axis=0) / np.sqrt(repeats)
    assert np.all(np.abs(totals.mean(axis=0) - truth) < 4 * standard_error)
    assert np.all(standard_error < 0.02 * truth + 0.2)


def test_a_sample_of_everything_keeps_the_weights():
    weights = np.array([0.0, 2.0, 0.5, 0.0, 7.0])
    rows, carried = sample_of(numbered(5), weights, SamplingRule.for_rows(5, 0, 5)).drawn()
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 4])
    np.testing.assert_array_equal(carried, [2, 0.5, 7])


# --- of a fit ------------------------------------------------------------------------------------------------


class Keep(Silence):
    """The scan."""

    def on_event(self, event):
        if isinstance(event, Scanned):
            self.scan = event.scan


def scan_of_fit(rows, weights=None, **parameters):
    keep = Keep()
    model = GaussianMixture(2, random_state=3, max_iter=0, **parameters)
    model.fit(rows, sample_weight=weights, observer=keep)
    return keep.scan, model


@pytest.mark.parametrize("size", [100, 299, 300, 10**9])
def test_sample_size_is_the_number_of_rows_of_the_sample(size):
    rows = np.random.default_rng(0).standard_normal((300, 2))
    found, model = scan_of_fit(rows, sample_size=size)
    assert len(found.rows) == min(size, 300)
    assert found.complete == (size >= 300)
    assert model.n_passes_ == 1
    expected = sample_of(rows, None, SamplingRule.for_rows(min(size, 300), 3, 300)).drawn()[0]
    np.testing.assert_array_equal(found.rows, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_draws_the_same_sample_whatever_the_chunks(weighted):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 2))
    weights = rng.integers(0, 3, 500).astype(float) if weighted else None
    expected, _ = scan_of_fit(rows, weights, sample_size=40)
    for chunks in ((7, 2), (499, 1), (250, 2)):
        found, _ = scan_of_fit(da.from_array(rows, chunks=chunks), weights, sample_size=40)
        np.testing.assert_array_equal(found.rows, expected.rows)
        if weighted:
            np.testing.assert_array_equal(found.weights, expected.weights)


def test_a_sample_of_another_size_is_another_fit(tmp_path):
    rows = np.random.default_rng(0).standard_normal((300, 2))
    for size in (100, 100, 101):
        model = GaussianMixture(2, random_state=3, sample_size=size, max_passes=1)
        if size == 100:
            with pytest.warns(ConvergenceWarning):
                model.fit(rows, checkpoint=tmp_path)
        else:
            with pytest.raises(CheckpointMismatch, match="sample_rows"):
                model.fit(rows, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sample_size": 0}, "sample_size is 0; it must be an integer of at least 1"),
        ({"sample_size": -5}, "sample_size is -5"),
        ({"sample_size": 10.0}, r"sample_size is 10\.0; it must be an integer"),
        ({"sample_size": 2}, "sample_size is 2; the starts of 3 components need at least 3 rows"),
        ({"n_finalists": 0}, "n_finalists is 0; it must be an integer of at least 1"),
        ({"n_finalists": 2}, "n_finalists is 2; it must be at most n_init, which is 1"),
        ({"n_finalists": 6, "n_init": 5}, "n_finalists is 6; it must be at most n_init, which is 5"),
        ({"n_finalists": True}, "n_finalists is True"),
        ({"max_passes": 0}, "max_passes is 0; it must be an integer of at least 1"),
        ({"max_passes": 1.5}, r"max_passes is 1\.5"),
    ],
    ids=str,
)
def test_sizes_that_mean_nothing_are_named(parameters, message):
    with pytest.raises(InvalidParameter, match=message):
        GaussianMixture(3, random_state=0, **parameters).fit(np.eye(9))
