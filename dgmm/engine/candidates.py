"""A candidate of a selection: its search, what the sample says of it, its line of the table."""

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


@dataclass(frozen=True)
class Entry:
    """A line of a selection's table.

    Attributes
    ----------
    n_components : int
    covariance_type : str
    log_likelihood : float
        Mean per unit of weight.
    n_parameters : int
    bic, aic, icl : float
        Lower is better.
    held_out : float
        Mean log-likelihood of the rows left out; NaN where there are none.
    n_passes : int
        Over all rows that it took part in.
    converged : bool
    collapsed : bool
        Some component rests on too few rows.
    dropped : bool
        On the sample: its figures are what the sample says of all rows.
    failed : str
        Why it could not be fitted, else empty; its criteria are NaN, or what the sample foresees.
    seconds : float
        Of its search, and of the passes that it took part in (with others).
    """

    n_components: int
    covariance_type: str
    log_likelihood: float
    n_parameters: int
    bic: float
    aic: float
    icl: float
    held_out: float
    n_passes: int
    converged: bool
    collapsed: bool
    dropped: bool
    failed: str
    seconds: float

    def value(self, criterion: str) -> float:
        """Of a criterion, so that lower is better."""
        return -self.held_out if criterion == "holdout" else float(getattr(self, criterion))


class _Loop:
    """Runs the tasks of a search one after the other, inside a task."""

    n_threads = 1

    def threads_each(self, n_tasks: int) -> int:
        return 1

    def map(self, task: Callable[[Any, Any], Any], shared: Any, arguments: Sequence[Any]) -> Iterator[Any]:
        return ((i, task(shared, argument)) for i, argument in enumerate(arguments))


def search_alone(found: Scan, settings: Settings) -> Run:
    """A candidate's whole search, as one task."""
    search = Search(Sampled.of(found, settings), _Loop(), {})
    began = time.perf_counter()
    for _ in search.events():
        pass
    return replace(search.best[0], searched=time.perf_counter() - began)


def foresee(found: Scan, argument: tuple[Settings, Parameters]) -> Foreseen:
    """What the sample says of a candidate, as one task."""
    settings, parameters = argument
    sampled = Sampled.of(found, settings)
    density, entropy = np.empty(len(found.rows)), np.empty(len(found.rows))
    for tile, log_density, r in sampled.e_step(parameters).posterior(found.rows):
        density[tile] = log_density
        entropy[tile] = entr(r).sum(axis=0)
    mean = float(np.average(entropy, weights=found.weights))
    return Foreseen(density, mean, parameters.n_parameters)
