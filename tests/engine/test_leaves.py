"""How a pass is cut into tasks: any cut gives the sum of the fixed tree, and threads end together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmm.engine.leaves import Run, ending_together, equal_runs, merges
from dgmm.engine.summation import BinaryCounter

counts = st.integers(1, 700)
cuts = st.one_of(
    st.builds(equal_runs, counts, st.integers(1, 900)),
    st.builds(
        ending_together, counts, st.integers(1, 64), st.floats(1e-3, 300), st.sampled_from([1, 2, 4, 8, 64])
    ),
)


def added(values):
    total = BinaryCounter()
    for value, level in values:
        total.add(value, level)
    return total.total()


@given(cuts)
def test_leaves_are_aligned_runs_of_all_blocks(leaves):
    assert leaves[0].first == 0
    for leaf, following in itertools.pairwise(leaves):
        assert leaf.last == following.first
        assert leaf.last - leaf.first == 1 << leaf.level
        assert leaf.first % (1 << leaf.level) == 0
    assert leaves[-1].last - leaves[-1].first <= leaves[0].last


@given(cuts, st.integers(0, 2**32))
def test_merges_add_in_the_order_of_the_tree(leaves, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(leaves[-1].last) * np.exp(20 * rng.standard_normal(leaves[-1].last))
    sums = {leaf: added((value, 0) for value in values[slice(*leaf)]) for leaf in leaves}
    for run, parts in merges(leaves):
        assert 2 <= len(parts) <= 16
        sums[run] = added((sums[part], part.level) for part in parts)
    assert sums[Run(0, len(values))] == added((value, 0) for value in values)


@given(
    st.integers(1, 10_000),
    st.integers(1, 64),
    st.floats(1e-3, 1e3),
    st.sampled_from([1, 4, 64]),
    st.integers(0, 9),
)
def test_threads_end_together(n_blocks, n_threads, worth, together, seed):
    """Each takes the next leaf when it has done one: they wait for each other no longer than a leaf takes."""
    leaves = ending_together(n_blocks, n_threads, worth, together)
    busy = np.zeros(n_threads)
    for leaf in leaves:
        busy[busy.argmin()] += leaf.last - leaf.first
    assert busy.max() - busy.min() <= max(leaf.last - leaf.first for leaf in leaves[-n_threads:])
    # And there are not more than the scheduler should know.
    assert len(leaves) <= 50 * n_threads


def test_the_last_leaves_are_half_as_long():
    leaves = ending_together(1600, n_threads=10, worth=8, together=1)
    lengths = [leaf.last - leaf.first for leaf in leaves]
    assert lengths == [8] * 190 + [4] * 20
    assert ending_together(1600, n_threads=10, worth=8, together=8) == equal_runs(1600, 8)


@pytest.mark.parametrize(("n_blocks", "expected"), [(1000, 4), (100_000, 32), (10_000_000, 4096)])
def test_a_long_pass_has_longer_leaves(n_blocks, expected):
    """A thread gets as many, however long the pass."""
    assert ending_together(n_blocks, n_threads=100, worth=10, together=1)[0] == Run(0, expected)
