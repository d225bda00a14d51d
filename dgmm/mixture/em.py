"""Expectation-maximization as a generator of states; who runs the E-step, and where, is the caller's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dgmm.errors import InvalidData
from dgmm.mixture.acceleration import Acceleration
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.criteria import converged
from dgmm.mixture.frame import Frame
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics


@dataclass(frozen=True, eq=False)
class EMState:
    """What the next iteration needs, and nothing else.

    Attributes
    ----------
    parameters : Parameters
        In the frame, after the last M-step.
    history : tuple of float
        Mean log-likelihood per unit of weight, in data units, found by each iteration's E-step, that is, of
        the parameters *before* its M-step, as scikit-learn has it. An iteration whose extrapolated parameters
        were rejected repeats the value before.
    acceleration : Acceleration or None
        The memory of accelerated EM.
    """

    parameters: Parameters
    history: tuple[float, ...] = ()
    acceleration: Acceleration | None = None

    @property
    def n_iter(self) -> int:
        """Iterations done."""
        return len(self.history)

    @property
    def log_likelihood(self) -> float:
        """The last one found; minus infinity before the first."""
        return self.history[-1] if self.history else -np.inf

    @property
    def path(self) -> tuple[float, ...]:
        """The last values of `history` that plain steps lead through, one by one."""
        return self.history if self.acceleration is None else self.acceleration.run

    @property
    def extrapolated(self) -> bool:
        """Whether an extrapolation is behind it."""
        return self.acceleration is not None and self.acceleration.succeeded

    @property
    def at(self) -> Parameters:
        """Where the next E-step has to be: `parameters`, or an extrapolation of them."""
        trial = None if self.acceleration is None else self.acceleration.trial
        return self.parameters if trial is None else trial

    def converged(self, tol: float) -> bool:
        """Whether EM could gain less than `tol`."""
        if self.acceleration is None:
            return converged(self.history, tol)
        return self.acceleration.converged(tol)


@dataclass(frozen=True)
class EM:
    """The iteration: where it computes, what it adds to the covariances, when it stops, and whether
    it is accelerated.
    """

    frame: Frame
    ridge: Array
    tol: float
    max_iter: int
    accelerate: bool = False

    def finished(self, state: EMState) -> bool:
        """Whether `iterate` would yield nothing."""
        return state.n_iter >= self.max_iter or state.converged(self.tol)

    def iterate(self, state: EMState, e_pass: Callable[[Parameters], SufficientStatistics]) -> Iterator[EMState]:
        """Yield the state after each iteration until it has converged or `max_iter` is reached."""
        while not self.finished(state):
            state = self.advance(state, e_pass(state.at))
            yield state

    def advance(self, state: EMState, statistics: SufficientStatistics) -> EMState:
        """The state after an iteration.

        Parameters
        ----------
        state : EMState
        statistics : SufficientStatistics
            Of one pass at `state.at`.

        Raises
        ------
        InvalidData
            The log-likelihood is not finite.
        """
        gained = statistics.mean_log_likelihood - self.frame.log_volume
        memory = state.acceleration
        if memory is not None and memory.rejects(gained):
            return EMState(state.parameters, (*state.history, state.log_likelihood), memory.rejected())
        if not np.isfinite(gained):
            msg = (
                f"the log-likelihood became {gained} in iteration {state.n_iter + 1}: the data hold values "
                "that the first pass did not see. Were they changed during the fit?"
            )
            raise InvalidData(msg)
        parameters = m_step(statistics, state.at, self.ridge)
        if self.accelerate:
            memory = (memory or Acceleration()).after(state.at, parameters, gained, self.tol)
        return EMState(parameters, (*state.history, gained), memory if self.accelerate else None)
