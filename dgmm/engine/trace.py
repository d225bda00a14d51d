"""What people look at in each iteration, apart from what the next one needs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dgmm.mixture.em import EMState


@dataclass(frozen=True)
class Step:
    """One iteration.

    Attributes
    ----------
    log_likelihood : float
        Mean per unit of weight, in data units, that its E-step found.
    smallest_weight : float
        Of a component after its M-step.
    smallest_eigenvalue : float
        Of a covariance after its M-step, in the frame, where every feature's spread is about 1.
    seconds : float
        It took.
    """

    log_likelihood: float
    smallest_weight: float
    smallest_eigenvalue: float
    seconds: float

    @classmethod
    def of(cls, state: EMState, seconds: float) -> Step:
        """The iteration that ended in `state`."""
        parameters = state.parameters
        return cls(
            state.log_likelihood,
            float(parameters.weights.min()),
            parameters.covariance.smallest_eigenvalue(parameters.covariances),
            seconds,
        )


Trace = tuple[Step, ...]


def timed(states: Iterable[EMState]) -> Iterator[tuple[EMState, Step]]:
    """Each state with its step."""
    began = time.perf_counter()
    for state in states:
        yield state, Step.of(state, time.perf_counter() - began)
        began = time.perf_counter()


def pack_trace(trace: Trace) -> NDArray[np.float64]:
    """As one array, (n_iter, 4)."""
    return np.array([astuple(step) for step in trace], dtype=np.float64).reshape(-1, len(fields(Step)))


def unpack_trace(packed: NDArray[np.float64]) -> Trace:
    """The inverse."""
    return tuple(Step(*row) for row in packed.tolist())


def history_table(trace: Trace, n_rows: int) -> NDArray[np.void]:
    """The trace as a structured array, with gains and rows/s."""
    steps = pack_trace(trace)
    names = ("log_likelihood", "gain", "seconds", "rows_per_second", "smallest_weight", "smallest_eigenvalue")
    table = np.zeros(len(steps), dtype=[(name, np.float64) for name in names])
    for i, field in enumerate(fields(Step)):
        table[field.name] = steps[:, i]
    table["gain"] = np.diff(table["log_likelihood"], prepend=np.nan)
    with np.errstate(divide="ignore"):
        table["rows_per_second"] = n_rows / table["seconds"]
    return table
