"""Expectation-maximization as a generator of states; who runs the E-step, and where, is the caller's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from dgmm.errors import InvalidData
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
        the parameters *before* its M-step, as scikit-learn has it.
    """

    parameters: Parameters
    history: tuple[float, ...] = ()

    @property
    def n_iter(self) -> int:
        """Iterations done."""
        return len(self.history)

    @property
    def log_likelihood(self) -> float:
        """The last one found; minus infinity before the first."""
        return self.history[-1] if self.history else -np.inf


@dataclass(frozen=True)
class EM:
    """The iteration: where it computes, what it adds to the covariances, when it stops."""

    frame: Frame
    ridge: Array
    tol: float
    max_iter: int

    def finished(self, state: EMState) -> bool:
        """Whether `iterate` would yield nothing."""
        return state.n_iter >= self.max_iter or converged(state.history, self.tol)

    def iterate(self, state: EMState, e_pass: Callable[[Parameters], SufficientStatistics]) -> Iterator[EMState]:
        """Yield the state after each iteration until it has converged or `max_iter` is reached."""
        while not self.finished(state):
            state = self.advance(state, e_pass(state.parameters))
            yield state

    def advance(self, state: EMState, statistics: SufficientStatistics) -> EMState:
        """The state after an iteration.

        Parameters
        ----------
        state : EMState
        statistics : SufficientStatistics
            Of one pass with its parameters.

        Raises
        ------
        InvalidData
            The log-likelihood is not finite.
        """
        gained = statistics.mean_log_likelihood - self.frame.log_volume
        if not np.isfinite(gained):
            msg = (
                f"the log-likelihood became {gained} in iteration {state.n_iter + 1}: the data hold values "
                "that the first pass did not see. Were they changed during the fit?"
            )
            raise InvalidData(msg)
        parameters = m_step(statistics, state.parameters, self.ridge)
        return replace(state, parameters=parameters, history=(*state.history, gained))
