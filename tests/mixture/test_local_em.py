"""EM of pairs: all at once is what each would do alone."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, mixture

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture import local_em
from dgmm.mixture.covariance import DIAG
from dgmm.mixture.local_em import climb, climb_pairs
from dgmm.mixture.parameters import Parameters

D, ROOM = 3, 1 << 20
RIDGE = np.full(D, 0.01)  # no pair collapses


def problem(name, seed=0, n=600):
    """Rows of three components, their weights, and pairs to begin with."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(mixture(name, 3, D, rng, spread=3.0).sample(n, rng)[0])
    return rows, rng.uniform(0.1, 1.0, n), [mixture(name, 2, D, rng, spread=2.0) for _ in range(4)]


def climbed(rows, r, starts, room, above=-np.inf, useful=lambda _: False):
    return list(climb_pairs(rows, r, starts, RIDGE, above, useful, room))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TYPES)
def test_pairs_side_by_side_end_where_each_ends_alone(name, seed):
    rows, r, starts = problem(name, seed)
    together = climbed(rows, r, starts, ROOM)
    assert len(together) == len(starts)
    for (found, reached), start in zip(together, starts, strict=True):
        expected, likelihood = climb(rows, r, start, RIDGE)
        assert reached == pytest.approx(likelihood, abs=1e-9)
        for array in ("weights", "means", "covariances"):
            assert_close(getattr(found, array), getattr(expected, array), 1e-6, array)
        assert found.weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_one_product_does_for_all_where_there_is_room(name, monkeypatch):
    rows, r, starts = problem(name)
    monkeypatch.setattr(local_em, "climb", lambda *_, **__: pytest.fail("one by one"))
    assert len(climbed(rows, r, starts, ROOM)) == len(starts)
    with pytest.raises(pytest.fail.Exception, match="one by one"):
        climbed(rows, r, starts, 0)


@pytest.mark.parametrize("room", [ROOM, 0])
def test_those_that_head_for_less_than_a_useful_one_are_given_up(room):
    rows, r, starts = problem("full")
    best, reached = max(climbed(rows, r, starts, room), key=lambda pair: pair[1])
    unhindered = climb(rows, r, starts[0], RIDGE)[1]
    first, *_ = climbed(rows, r, starts, room, above=reached + 1.0)
    assert first[1] < unhindered
    after = climbed(rows, r, [best, *starts], room, useful=lambda _: True)
    assert after[0][1] == max(likelihood for _, likelihood in after)
    assert sum(b for _, b in after[1:]) < sum(b for _, b in climbed(rows, r, starts, room))


@pytest.mark.parametrize("room", [ROOM, 0])
def test_a_pair_without_a_covariance_is_left_out(room):
    rows, r, starts = problem("diag")
    flat = Parameters(DIAG, starts[0].weights, starts[0].means, np.zeros((2, D)))
    with pytest.raises(IllDefinedCovariance):
        climb(rows, r, flat, RIDGE)
    found = climbed(rows, r, [starts[0], flat, starts[1]], room)
    assert [likelihood for _, likelihood in found] == pytest.approx(
        [climb(rows, r, start, RIDGE)[1] for start in starts[:2]], abs=1e-9
    )


def test_components_too_thin_for_the_products_are_taken_one_by_one():
    rows, r, starts = problem("full")
    thin = Parameters(starts[0].covariance, starts[0].weights, starts[0].means, 1e-9 * starts[0].covariances)
    ((_, reached),) = climbed(rows, r, [thin], ROOM)
    assert reached == climb(rows, r, thin, RIDGE)[1]
