"""What a round of split-and-merge moves needs to know of the sample: tasks beside those that run EM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.sampled import Sampled
from dgmm.mixture.merging import Merge, closest_pairs, find_merges
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.splitting import Split, find_split


@dataclass(frozen=True, eq=False)
class Unite:
    """A request for merges of pairs."""

    parameters: Parameters
    pairs: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Divide:
    """A request for splits.

    Attributes
    ----------
    parameters : Parameters
    wanted : sequence of (tuple of int, float)
        Components, or pairs taken as one, and what their split has to gain.
    seed : sequence of int
    """

    parameters: Parameters
    wanted: Sequence[tuple[tuple[int, ...], float]]
    seed: Sequence[int]


def closest(sampled: Sampled, parameters: Parameters) -> list[tuple[int, int]]:
    """Pairs of components whose merges may lose little, best first."""
    return closest_pairs(parameters)


def unite(sampled: Sampled, request: Unite) -> list[Merge]:
    """The merges asked for."""
    return find_merges(*_weighted(sampled), request.parameters, sampled.scan.radius_squared, request.pairs)


def divide(sampled: Sampled, request: Divide) -> list[Split]:
    """Splits of the components asked for, as far as they gain enough."""
    parameters = request.parameters
    rows, weights = _weighted(sampled)
    each = sorted({k for components, _ in request.wanted for k in components})
    responsibilities = _responsibilities(sampled, parameters, each)
    splits = []
    for components, least_gain in request.wanted:
        r = sum(responsibilities[each.index(k)] for k in components) * weights
        rng = np.random.default_rng([*request.seed, *components])
        split = find_split(rows, r, parameters, components, least_gain, sampled.ridge, rng)
        if split is not None:
            splits.append(split)
    return splits


def _weighted(sampled: Sampled) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The rows of the sample in the frame, and their weights with a mean of 1."""
    found = sampled.scan
    weights = np.ones(len(found.rows)) if found.weights is None else found.weights / found.weights.mean()
    return found.frame.apply(found.rows), weights


def _responsibilities(sampled: Sampled, parameters: Parameters, components: list[int]) -> NDArray[np.floating]:
    """Those of some components, for the rows of the sample."""
    rows = sampled.scan.rows
    responsibilities = np.empty((len(components), len(rows)))
    for tile, _, r in sampled.e_step(parameters).posterior(rows):
        responsibilities[:, tile] = r[components]
    return responsibilities
