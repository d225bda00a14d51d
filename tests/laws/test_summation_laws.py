"""The fixed tree: any aligned split gives the same bits, and order of arrival would not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dgmm.engine.summation import BinaryCounter

# Values from 1e-12 to 1e12 of both signs: no two orders of adding them agree by luck.
magnitudes = st.builds(
    lambda mantissa, exponent, sign: sign * mantissa * 10.0**exponent,
    st.floats(1.0, 9.999),
    st.integers(-12, 12),
    st.sampled_from([-1.0, 1.0]),
)
many = st.lists(magnitudes, min_size=1, max_size=300)


def tree_sum(values):
    total = BinaryCounter()
    for value in values:
        total.add(value)
    return total.total()


def split_sum(values, run, width):
    """Leaves of `run` blocks, then merges of `width` until one is left."""
    level = [tree_sum(values[i : i + run]) for i in range(0, len(values), run)]
    while len(level) > 1:
        level = [tree_sum(level[i : i + width]) for i in range(0, len(level), width)]
    return level[0]


def by_definition(values):
    """Node (level, i) is the sum of nodes (level - 1, 2 i) and (level - 1, 2 i + 1)."""
    while len(values) > 1:
        values = [sum(values[i + 1 : i + 2], start=values[i]) for i in range(0, len(values), 2)]
    return values[0]


@given(many)
def test_the_counter_is_the_tree(values):
    assert tree_sum(values) == by_definition(values)


@given(many, st.integers(0, 9), st.integers(1, 4))
def test_any_aligned_split_gives_the_same_bits(values, run, width):
    assert split_sum(values, 2**run, 2**width) == tree_sum(values)


@given(many)
def test_the_sum_can_be_read_at_any_time(values):
    total = BinaryCounter()
    for n, value in enumerate(values, start=1):
        total.add(value)
        assert total.total() == by_definition(values[:n])


def test_order_of_arrival_and_unaligned_splits_give_other_bits():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(77) * 10.0 ** rng.uniform(-3, 3, 77)).tolist()
    expected = tree_sum(values)
    arrivals = {sum(rng.permutation(values).tolist()) for _ in range(50)}
    assert len(arrivals - {expected}) > 10
    unaligned = {tree_sum([tree_sum(values[:cut]), tree_sum(values[cut:])]) for cut in range(1, 64)}
    assert len(unaligned) > 5


@dataclass(frozen=True)
class Word:
    """Text adds without commuting: the order of the blocks shows."""

    text: str

    def __add__(self, other):
        return Word(self.text + other.text)


@given(st.integers(1, 100), st.integers(0, 7))
def test_blocks_stay_in_order(n, run):
    words = [Word(f"{i} ") for i in range(n)]
    assert split_sum(words, 2**run, 8).text == "".join(f"{i} " for i in range(n))


def test_it_holds_one_partial_sum_a_level():
    total = BinaryCounter()
    for i in range(10_000):
        total.add(float(i))
        assert len(total._partial) <= (i + 1).bit_length()
