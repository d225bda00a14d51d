"""The passes that know a model, or several: the E-step of a fit, the score and criteria of fitted ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from dgmm.data.source import Block
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.validity import check_finite, check_weights
from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.expectation import EStep, Lockstep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.precision import too_coarse
from dgmm.mixture.statistics import SufficientStatistics
from dgmm.mixture.together import Together

# Covariances of no more bytes are prepared by each leaf, in less time than a worker needs to ask another for them.
LIGHT_BYTES = 1 << 16
_DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of several mixtures.

    Attributes
    ----------
    parameters : Parameters
        In the frame.
    frame : Frame
    radius_squared : float
        See `Components.prepare`.
    """

    parameters: Parameters
    frame: Frame
    radius_squared: float

    def components(self, dtype: np.dtype[np.floating]) -> Components:
        """Ready for an E-step."""
        return Components.prepare(self.parameters, dtype, self.radius_squared)


class PreparedEStep:
    """Components and frame, as the leaves get them."""

    def __init__(self, components: Components, frame: Frame) -> None:
        self.components = components
        self.frame = frame


class LockstepWork:
    """One E-step of several mixtures: blocks to their sufficient statistics, `Together`.

    Parameters
    ----------
    candidates : sequence of Candidate
    dtype : dtype
        float32 allows single precision where the guard of a mixture does.
    n_rows : int
        Rows of the data: many are worth compiling for.
    """

    name = "e-step"

    def __init__(self, candidates: Sequence[Candidate], dtype: np.dtype[np.floating], n_rows: int = 0) -> None:
        self._candidates = tuple(candidates)
        self._dtype = dtype
        self._n_rows = n_rows
        self.light = sum(c.parameters.covariances.nbytes for c in candidates) <= LIGHT_BYTES

    def prepare(self) -> PreparedLockstep:
        return PreparedLockstep([(c.components(self._dtype), c.frame) for c in self._candidates], self._n_rows)


class PreparedLockstep:
    """Components and frame of each mixture, as the leaves get them."""

    def __init__(self, members: Sequence[tuple[Components, Frame]], n_rows: int = 0) -> None:
        self.members = members
        self._n_rows = n_rows

    def __sizeof__(self) -> int:
        return sum(sys.getsizeof(components) for components, _ in self.members)

    def begin(self) -> BlockFunction:
        step = Lockstep(self.members, self._n_rows)
        return lambda block, weights: step(block.rows, weights)


def e_steps(
    passes: Passes, candidates: Sequence[Candidate], ridges: Sequence[Array], n_rows: int
) -> list[SufficientStatistics]:
    """What a pass finds of each mixture; another one in double precision for those that single was too coarse for.

    Parameters
    ----------
    passes : Passes
    candidates : sequence of Candidate
    ridges : sequence of ndarray (D,)
        Added to the variances of each.
    n_rows : int
        Rows of the data: many are worth compiling for.
    """
    dtype = passes.source.dtype
    found = list(passes.run(LockstepWork(candidates, dtype, n_rows)).members)
    if dtype == _DOUBLE:
        return found
    coarse = [
        i
        for i, (candidate, ridge) in enumerate(zip(candidates, ridges, strict=True))
        if too_coarse(candidate.parameters, found[i], ridge, candidate.radius_squared)
    ]
    if coarse:
        again = LockstepWork([candidates[i] for i in coarse], _DOUBLE, n_rows)
        for i, statistics in zip(coarse, passes.run(again).members, strict=True):
            found[i] = statistics
    return found


@dataclass(frozen=True)
class Score:
    """Total log-likelihood and weight of some rows, and their number; scores add."""

    log_likelihood: float
    weight: float
    n_rows: int

    def __add__(self, other: Score) -> Score:
        return Score(
            self.log_likelihood + other.log_likelihood, self.weight + other.weight, self.n_rows + other.n_rows
        )


class ScoreWork(PreparedEStep):
    """Log-likelihood of the data under a fitted model, in float64."""

    name = "score"

    def prepare(self) -> ScoreWork:
        return self

    def begin(self) -> BlockFunction:
        step = EStep(self.components, self.frame)

        def score(block: Block, weights: Rows | None) -> Score:
            weight = checked_weight(block, weights)
            total = 0.0
            for place, density, _ in step.posterior(block.rows):
                total += _total(density, weights, place)
            return Score(total, weight, len(block.rows))

        return score


@dataclass(frozen=True)
class Criteria:
    """What the criteria of a mixture are made of; they add over rows.

    Attributes
    ----------
    log_likelihood : float
        Sum of weighted log-densities, in data units.
    weight : float
        Sum of sample weights.
    entropy : float
        Of the responsibilities: minus the sum over rows and components of w r log r.
    """

    log_likelihood: float
    weight: float
    entropy: float

    def __add__(self, other: Criteria) -> Criteria:
        return Criteria(
            self.log_likelihood + other.log_likelihood,
            self.weight + other.weight,
            self.entropy + other.entropy,
        )


class CriteriaWork(LockstepWork):
    """Several mixtures as they are: blocks to the criteria of each, `Together`, in float64.

    Parameters
    ----------
    candidates : sequence of Candidate
    """

    name = "criteria"

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__(candidates, np.dtype(np.float64))

    def prepare(self) -> PreparedCriteria:
        return PreparedCriteria(super().prepare().members)


class PreparedCriteria(PreparedLockstep):
    """The same for criteria."""

    def begin(self) -> BlockFunction:
        step = Lockstep(self.members)

        def criteria(block: Block, weights: Rows | None) -> Together[Criteria]:
            weight = checked_weight(block, weights)
            log_likelihood, entropy = np.zeros((2, len(self.members)))
            for member, place, density, responsibilities in step.posterior(block.rows):
                log_likelihood[member] += _total(density, weights, place)
                each = entr(responsibilities, out=responsibilities).sum(axis=0)
                entropy[member] += _total(each, weights, place)
            found = zip(log_likelihood.tolist(), entropy.tolist(), strict=True)
            return Together(tuple(Criteria(total, weight, disorder) for total, disorder in found))

        return criteria


def checked_weight(block: Block, weights: Rows | None) -> float:
    """Weight of a block whose values and sample weights can be used."""
    check_finite(block)
    if weights is None:
        return float(len(block.rows))
    check_weights(block, weights)
    return float(weights.sum(dtype=float))


def _total(values: Rows, weights: Rows | None, place: slice) -> float:
    """Weighted sum over the rows of a tile."""
    return float(values.sum() if weights is None else weights[place] @ values)
