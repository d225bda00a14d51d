"""What the tasks of a selection do: the search for one candidate, and what the sample says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from dgmm.engine.sampled import Run, Sampled
from dgmm.engine.scan import Scan
from dgmm.engine.search import Search
from dgmm.engine.settings import Settings
from dgmm.mixture.parameters import Parameters


@dataclass(frozen=True, eq=False)
class Foreseen:
    """What the sample says of a candidate.

    Attributes
    ----------
    density : ndarray (m,)
        Log-density of each row of the sample.
    entropy : float
        Of the responsibilities, per unit of weight.
    n_parameters : int
    """

    density: NDArray[np.float64]
    entropy: float
    n_parameters: int


class _Loop:
    """Runs the tasks of a search one after the other, inside a task."""

    n_threads = 1

    def map(self, task: Callable[[Any, Any], Any], shared: Any, arguments: Sequence[Any]) -> Iterator[Any]:
        return ((i, task(shared, argument)) for i, argument in enumerate(arguments))


def sampled_for(found: Scan, settings: Settings) -> Sampled:
    """The sample in the frame that these covariances want."""
    isotropic = settings.covariance.isotropic
    return Sampled(found.framed(isotropic=isotropic) if isotropic else found, settings)


def search_alone(found: Scan, settings: Settings) -> Run:
    """A candidate's whole search, as one task."""
    search = Search(sampled_for(found, settings), _Loop(), {})
    began = time.perf_counter()
    for _ in search.events():
        pass
    return replace(search.best[0], searched=time.perf_counter() - began)


def foresee(found: Scan, argument: tuple[Settings, Parameters]) -> Foreseen:
    """What the sample says of a candidate, as one task."""
    settings, parameters = argument
    sampled = sampled_for(found, settings)
    density, entropy = np.empty(len(found.rows)), np.empty(len(found.rows))
    for tile, log_density, r in sampled.e_step(parameters, np.dtype(np.float64)).posterior(found.rows):
        density[tile] = log_density
        entropy[tile] = entr(r).sum(axis=0)
    mean = float(np.average(entropy, weights=found.weights))
    return Foreseen(density, mean, parameters.n_parameters)
