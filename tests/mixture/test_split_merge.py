"""Which moves are tried, in which order, and where they put what."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, mixture
from hypothesis import given
from hypothesis import strategies as st

from dgmm.mixture.criteria import projected
from dgmm.mixture.merging import Merge, moments_merged
from dgmm.mixture.split_merge import Move, choose, moved
from dgmm.mixture.splitting import Split

all_types = pytest.mark.parametrize("name", TYPES)
CHILDREN = mixture("full", 2, 2, np.random.default_rng(0))
MOST = 5  # sets that are tried in a round

K = 8
gains = st.floats(1e-5, 1.0)
singles = st.builds(lambda k, gain: Split((k,), gain, CHILDREN), st.integers(0, K - 1), gains)
pairs = st.lists(st.integers(0, K - 1), min_size=2, max_size=2, unique=True).map(sorted).map(tuple)
joint = st.builds(lambda pair, gain: Split(pair, gain, CHILDREN), pairs, gains)
merges = st.builds(lambda pair, loss: Merge(*pair, loss), pairs, st.floats(0.0, 1.0))
proposals = st.tuples(st.lists(merges, max_size=12), st.lists(singles | joint, max_size=10))


def split(*components, gain):
    return Split(components, gain, CHILDREN)


# --- which moves ---------------------------------------------------------------------------------------------


@given(proposals, st.booleans())
def test_sets_are_few_disjoint_and_the_best_come_first(proposed, pooled):
    found = choose(*proposed, 1e-5, pooled=pooled)
    assert len(found) <= MOST
    together, single = (found[:1], found[1:]) if found and len(found[0]) > 1 else ([], found)
    assert all(len(moves) == 1 for moves in single)
    expected = [moves[0].gain for moves in single]
    assert expected == sorted(expected, reverse=True)
    for moves in together:
        touched = [k for move in moves for k in move.touched]
        assert len(touched) == len(set(touched))
        assert all(move.gain > 1e-5 for move in moves)
        assert moves[0] == single[0][0] if single else True


@given(proposals, st.booleans())
def test_a_move_is_a_split_of_a_pair_or_of_one_with_a_merge_elsewhere(proposed, pooled):
    for moves in choose(*proposed, 1e-5, pooled=pooled):
        for move in moves:
            if move.merge is None:
                assert len(move.split.components) == 2
                assert move.gain == move.split.gain
            else:
                assert len(move.split.components) == 1
                assert move.split.components[0] not in (move.merge.first, move.merge.second)
                assert move.gain == move.split.gain - move.merge.loss


@given(proposals, st.booleans())
def test_nothing_is_tried_too_often(proposed, pooled):
    found = choose(*proposed, 1e-5, pooled=pooled)
    single = [moves[0] for moves in found if len(moves) == 1]
    for part in [*(move.split for move in single), *(move.merge for move in single if move.merge)]:
        assert sum(part in (move.split, move.merge) for move in single) <= 2


def test_the_best_of_all_moves_is_tried_first():
    merges = [Merge(0, 1, 0.1), Merge(2, 3, 0.2), Merge(0, 4, 0.5)]
    splits = [split(5, gain=0.6), split(0, gain=0.7), split(2, 3, gain=0.3)]
    found = choose(merges, splits, 1e-5, pooled=False)
    # The second best, 0 - (2, 3), touches the first; so does 5 - (2, 3). The pair (2, 3) does not.
    assert [move.touched for move in found[0]] == [{5, 0, 1}, {2, 3}]
    assert [moves[0].touched for moves in found[1:]] == [{5, 0, 1}, {0, 2, 3}, {5, 2, 3}, {2, 3}]


def test_moves_that_touch_the_same_component_are_not_made_together():
    merges = [Merge(0, 1, 0.0), Merge(2, 3, 0.0)]
    apart = choose(merges[:1], [split(4, gain=0.5), split(5, 6, gain=0.4)], 1e-5, pooled=False)
    assert [len(moves) for moves in apart] == [2, 1, 1]
    touching = choose(merges[:1], [split(4, gain=0.5), split(1, 6, gain=0.4)], 1e-5, pooled=False)
    assert [len(moves) for moves in touching] == [1, 1]


def test_hopeless_merges_are_not_tried_but_losses_that_em_may_make_good_are():
    merges, splits = [Merge(0, 1, 0.35)], [split(2, gain=0.1)]
    (moves,) = choose(merges, splits, 1e-5, pooled=False)
    assert moves[0].gain == pytest.approx(-0.25)
    assert choose([Merge(0, 1, 0.45)], splits, 1e-5, pooled=False) == []
    assert len(choose([Merge(0, 1, 9.0)], splits, 1e-5, pooled=True)) == 1
    assert choose([Merge(0, 1, 11.0)], splits, 1e-5, pooled=True) == []


def test_losing_moves_are_not_made_together_with_others():
    merges = [Merge(0, 1, 0.2)]
    found = choose(merges, [split(4, gain=0.1), split(5, 6, gain=0.4), split(2, 3, gain=1e-6)], 1e-5, pooled=False)
    assert [len(moves) for moves in found] == [1, 1, 1]


def test_nothing_proposed_is_nothing_tried():
    assert choose([], [], 1e-5, pooled=False) == []
    assert choose([Merge(0, 1, 0.0)], [], 1e-5, pooled=False) == []
    assert choose([Merge(0, 1, 0.0)], [split(0, gain=1.0)], 1e-5, pooled=False) == []


# --- what they do --------------------------------------------------------------------------------------------


def children(name, parameters, components, seed):
    """Two components with the weight of those that they replace."""
    drawn = mixture(name, 2, parameters.n_features, np.random.default_rng(seed))
    drawn.weights[:] *= parameters.weights[list(components)].sum() / drawn.weights.sum()
    return Split(tuple(components), 1.0, drawn)


def assert_component(found, k, expected, j):
    assert found.weights[k] == pytest.approx(expected.weights[j], rel=1e-13)
    np.testing.assert_array_equal(found.means[k], expected.means[j])
    if not found.covariance.pooled:
        np.testing.assert_array_equal(found.covariances[k], expected.covariances[j])


@all_types
def test_every_component_ends_in_its_place(name):
    before = mixture(name, 9, 3, np.random.default_rng(1))
    untouched = {a: getattr(before, a).copy() for a in ("weights", "means", "covariances")}
    one, pair = children(name, before, [4], 2), children(name, before, [7, 2], 3)
    found = moved(before, [Move(1.0, one, Merge(1, 5, 0.1)), Move(1.0, pair)])
    merged = moments_merged(before, 1, 5)
    assert_component(found, 1, merged, 0)
    assert_component(found, 4, one.children, 0)
    assert_component(found, 5, one.children, 1)
    assert_component(found, 7, pair.children, 0)
    assert_component(found, 2, pair.children, 1)
    for k in (0, 3, 6, 8):
        assert_component(found, k, before, k)
    assert found.weights.sum() == pytest.approx(1, abs=1e-15)
    for attribute, value in untouched.items():
        np.testing.assert_array_equal(getattr(before, attribute), value)
    if name == "tied":
        np.testing.assert_array_equal(found.covariances, before.covariances)


@all_types
@pytest.mark.parametrize("order", [1, -1])
def test_moves_on_different_components_can_be_made_in_any_order(name, order):
    before = mixture(name, 7, 2, np.random.default_rng(4))
    moves = [
        Move(1.0, children(name, before, [0], 5), Merge(1, 2, 0.1)),
        Move(0.5, children(name, before, [3, 4], 6)),
        Move(0.2, children(name, before, [5, 6], 7)),
    ]
    found = moved(before, moves[::order])
    one_by_one = before
    for move in moves:
        one_by_one = moved(one_by_one, [move])
    for attribute in ("weights", "means", "covariances"):
        assert_close(getattr(found, attribute), getattr(one_by_one, attribute), 1e-14)


@all_types
def test_merging_and_splitting_keep_mean_and_weight_where_the_split_does(name):
    """A merge keeps the moments of its pair, so the mixture's mean moves by what the split moves."""
    before = mixture(name, 4, 2, np.random.default_rng(8))
    halves = mixture(name, 2, 2, np.random.default_rng(9))
    halves.means[:] = before.means[3] + np.array([[1.0, 0.0], [-1.0, 0.0]])
    halves.weights[:] = before.weights[3] / 2
    found = moved(before, [Move(1.0, Split((3,), 1.0, halves), Merge(0, 2, 0.1))])
    assert_close(found.weights @ found.means, before.weights @ before.means, 1e-13)


# --- where a log-likelihood is heading -----------------------------------------------------------------------


@given(st.floats(0.01, 0.99), st.floats(-100, 100), st.floats(0.01, 10), st.integers(3, 12))
def test_the_projection_of_a_geometric_series_is_its_limit(ratio, limit, first, n):
    history = [limit - first * ratio**i for i in range(n)]
    last_gap = first * ratio ** (n - 1)
    rounding = 1e-13 * (abs(limit) + first) / (1 - ratio) ** 2 / min(ratio ** (n - 3), 1)
    if rounding < 0.01 * last_gap:
        assert projected(history) == pytest.approx(limit, abs=10 * rounding + 1e-3 * last_gap)


def test_without_a_slowing_rise_anything_may_come():
    for history in ([], [-1.0], [-2.0, -1.0], [-3.0, -2.0, -1.0], [-3.0, -2.5, -1.0], [-1.0, -2.0, -1.5]):
        assert projected(history) == np.inf
    assert projected([-3.0, -2.0, -2.0]) == -2.0  # it stands still
    assert projected([-3.0, -2.0, -2.5]) == -2.5  # it falls
