"""The passes that know a model: the E-step of a fit, and the score of a fitted one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dgmm.data.source import Source
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.scheduling import one_blas_thread, scheduler_for
from dgmm.engine.validity import check_finite, check_weights, naming_chunks
from dgmm.mixture.components import Components
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics


class EStepWork:
    """One E-step: blocks to sufficient statistics in the frame.

    Parameters
    ----------
    parameters : Parameters
        In the frame.
    frame : Frame
    dtype : dtype
        float32 allows single precision where the guard does.
    radius_squared : float
        See `Components.prepare`.
    """

    name = "e-step"

    def __init__(
        self, parameters: Parameters, frame: Frame, dtype: np.dtype[np.floating], radius_squared: float
    ) -> None:
        self._arguments = (parameters, dtype, radius_squared)
        self._frame = frame

    def prepare(self) -> PreparedEStep:
        return PreparedEStep(Components.prepare(*self._arguments), self._frame)


class PreparedEStep:
    """Components and frame, as the leaves get them."""

    def __init__(self, components: Components, frame: Frame) -> None:
        self.components = components
        self.frame = frame

    def begin(self) -> BlockFunction:
        step = EStep(self.components, self.frame)

        def statistics(first: int, rows: Rows, weights: Rows | None) -> SufficientStatistics:
            return step(rows, weights)

        return statistics


@dataclass(frozen=True)
class Score:
    """Total log-likelihood and weight of some rows; scores add."""

    log_likelihood: float
    weight: float

    def __add__(self, other: Score) -> Score:
        return Score(self.log_likelihood + other.log_likelihood, self.weight + other.weight)


class ScoreWork(PreparedEStep):
    """Log-likelihood of the data under a fitted model, in float64."""

    name = "score"

    def prepare(self) -> ScoreWork:
        return self

    def begin(self) -> BlockFunction:
        step = EStep(self.components, self.frame)

        def score(first: int, rows: Rows, weights: Rows | None) -> Score:
            check_finite(first, rows)
            if weights is not None:
                check_weights(first, weights)
            total = 0.0
            for tile, density, _ in step.posterior(rows):
                total += float(density.sum() if weights is None else weights[tile] @ density)
            return Score(total, float(len(rows)) if weights is None else float(weights.sum(dtype=float)))

        return score


def total_score(
    source: Source,
    weights: Source | None,
    work: ScoreWork,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Score all rows in one pass, on the active Dask client if there is one.

    Raises
    ------
    NonFiniteData, InvalidWeights, ClusterError
    """
    with one_blas_thread(), naming_chunks(source), scheduler_for(local=source.local) as scheduler:
        passes = Passes(source, weights, scheduler, lambda done: on_rows(done, source.n_rows))
        total: Score = passes.run(work)
    return total
