"""Which rows a subset takes: as many as asked for, by seed and global index alone."""

from __future__ import annotations

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmm.data.opening import open_source
from dgmm.engine.passes import Passes
from dgmm.engine.sample import uniform_hash
from dgmm.engine.scan import scan
from dgmm.engine.subset import Subset
from dgmm.engine.threads import LocalScheduler

SEEDS = st.integers(0, 2**63 - 1)
FRACTIONS = st.floats(0, 1, exclude_max=True)


def held_out(subset, n, first=0):
    return subset.weights(np.arange(first, first + n), None) == 0


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63 - 1])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_the_fraction_of_rows(seed, fraction):
    n = 200_000
    deviation = np.sqrt(n * fraction * (1 - fraction))
    assert abs(held_out(Subset(fraction, seed), n).sum() - fraction * n) < 5 * deviation


@given(SEEDS, FRACTIONS, st.lists(st.integers(0, 300), max_size=6), st.booleans())
def test_blocks_do_not_matter(seed, fraction, cuts, rest):
    subset, weights = Subset(fraction, seed, rest), np.random.default_rng(0).random(300)
    bounds = [0, *sorted(cuts), 300]
    pairs = list(pairwise(bounds))
    for w in (None, weights):
        parts = [subset.weights(np.arange(a, b), None if w is None else w[a:b]) for a, b in pairs]
        np.testing.assert_array_equal(np.concatenate(parts), subset.weights(np.arange(300), w))


@given(SEEDS, FRACTIONS, st.integers(0, 2**40), st.integers(0, 200))
def test_the_rest_is_the_complement(seed, fraction, first, n):
    numbers = np.arange(first, first + n)
    ours, rest = (Subset(fraction, seed, side).weights(numbers, None) for side in (False, True))
    np.testing.assert_array_equal(ours + rest, np.ones(n))
    assert set(np.unique(ours)) <= {0.0, 1.0}
    weights = np.random.default_rng(n).random(n)
    ours, rest = (Subset(fraction, seed, side).weights(numbers, weights) for side in (False, True))
    np.testing.assert_array_equal(ours + rest, weights)


@given(SEEDS, FRACTIONS, FRACTIONS)
def test_a_larger_fraction_takes_the_same_rows_and_more(seed, one, other):
    small, large = sorted((one, other))
    assert not np.any(held_out(Subset(small, seed), 300) & ~held_out(Subset(large, seed), 300))


@pytest.mark.parametrize("seed", range(5))
def test_independent_of_the_sample_of_the_same_seed(seed):
    n, fraction = 200_000, 0.1
    taken, priority = held_out(Subset(fraction, seed), n), uniform_hash(seed, np.arange(n))
    assert abs(np.corrcoef(taken, priority)[0, 1]) < 5 / np.sqrt(n)
    sample = np.argsort(priority)[: n // 20]
    deviation = np.sqrt(len(sample) * fraction * (1 - fraction))
    assert abs(taken[sample].sum() - fraction * len(sample)) < 5 * deviation


def test_seeds_choose_independently():
    n, fraction = 200_000, 0.1
    one, other = (held_out(Subset(fraction, seed), n) for seed in (0, 1))
    assert abs((one & other).mean() - fraction**2) < 5 * fraction / np.sqrt(n)


@pytest.mark.parametrize("chunks", [7, 100, 1000])
def test_a_pass_sees_the_rows_of_the_subset(chunks):
    rows = np.random.default_rng(3).normal(size=(1000, 2))
    subset = Subset(0.3, seed=4)
    source = open_source(da.from_array(rows, chunks=(chunks, 2)))
    found = scan(Passes(source, None, LocalScheduler(), subset=subset), sample_rows=1000, seed=4)
    kept = rows[~held_out(subset, 1000)]
    assert found.weight == len(kept)
    np.testing.assert_array_equal(found.rows, kept)
    np.testing.assert_allclose(found.mean, kept.mean(axis=0), atol=1e-14)
    np.testing.assert_array_equal(found.low, kept.min(axis=0))
