"""Moves out of a poor optimum: two components that one could replace are merged, another one is split in two.

Split-and-merge EM (Ueda, Nakano, Ghahramani & Hinton 2000, Neural Computation 12), with other criteria: what a
merge loses is the exact change of the sample's log-likelihood, and what a split gains is found by fitting two
components to the rows of the one. Their difference predicts what EM then finds, so few moves need be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dgmm.mixture.merging import Merge, moments_merged
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.splitting import Split

# A merge that loses more than this many times what the split gains is hopeless; a pooled covariance changes with
# every move, which neither foresees.
_HOPELESS = {False: 4.0, True: 100.0}
# Moves tried in a round, and how often a component may be split, or a pair merged, among them.
_TRIES = 5
_REPEATS = 2
# Of so many pairs that one component could replace, two others are looked for.
_PAIRS = 5


@dataclass(frozen=True, eq=False)
class Move:
    """What to put in place of some components.

    Attributes
    ----------
    gain : float
        Expected, in mean log-likelihood, before EM runs.
    split : Split
        Of one component, or of a pair.
    merge : Merge or None
        The pair that makes room where only one is split.
    """

    gain: float
    split: Split
    merge: Merge | None = None

    @property
    def touched(self) -> set[int]:
        """Components that it replaces."""
        return {*self.split.components, *((self.merge.first, self.merge.second) if self.merge else ())}


def worth_splitting(
    merges: Sequence[Merge], n_components: int, least_gain: float, *, pooled: bool
) -> list[tuple[tuple[int, ...], float]]:
    """Components, and the closest pairs, that splits are to be looked for; and what these have to gain."""
    wanted: list[tuple[tuple[int, ...], float]] = [
        ((merge.first, merge.second), least_gain) for merge in merges[:_PAIRS]
    ]
    for k in range(n_components):
        losses = [merge.loss for merge in merges if k not in (merge.first, merge.second)]
        if losses:
            wanted.append(((k,), max(least_gain, min(losses) / _HOPELESS[pooled])))
    return wanted


def choose(
    merges: Sequence[Merge], splits: Sequence[Split], least_gain: float, *, pooled: bool
) -> list[list[Move]]:
    """Sets of moves that are worth a try, the most promising first.

    The first set may be of several moves on different components; the others are single moves.
    """
    moves = [Move(split.gain, split) for split in splits if len(split.components) > 1]
    for split in splits:
        if len(split.components) == 1:
            moves += [
                Move(split.gain - merge.loss, split, merge)
                for merge in merges
                if split.components[0] not in (merge.first, merge.second)
                and merge.loss <= _HOPELESS[pooled] * split.gain
            ]
    moves.sort(key=lambda move: -move.gain)
    together: list[Move] = []
    used: set[int] = set()
    for move in moves:
        if move.gain > least_gain and not move.touched & used:
            together.append(move)
            used |= move.touched
    chosen = [together] if len(together) > 1 else []
    times: dict[object, int] = {}
    for move in moves:
        parts = [part for part in (move.split, move.merge) if part is not None]
        if len(chosen) < _TRIES and all(times.get(part, 0) < _REPEATS for part in parts):
            chosen.append([move])
            times |= {part: times.get(part, 0) + 1 for part in parts}
    return chosen


def moved(parameters: Parameters, moves: Sequence[Move]) -> Parameters:
    """The mixture after moves on different components: the merged one takes the first place of its pair."""
    weights, means = parameters.weights.copy(), parameters.means.copy()
    covariances = parameters.covariances.copy()

    def put(places: Sequence[int], source: Parameters) -> None:
        weights[[*places]] = source.weights
        means[[*places]] = source.means
        if not parameters.covariance.pooled:
            covariances[[*places]] = source.covariances

    for move in moves:
        places = move.split.components
        if move.merge is not None:
            put([move.merge.first], moments_merged(parameters, move.merge.first, move.merge.second))
            places = (*places, move.merge.second)
        put(places, move.split.children)
    return Parameters(parameters.covariance, weights / weights.sum(), means, covariances)
