"""EM on the sample: what one task does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.scan import Scan
from dgmm.engine.settings import Settings
from dgmm.engine.trace import Trace, timed
from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import Components
from dgmm.mixture.criteria import collapsed, projected
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.initialization import kind_of_start, start
from dgmm.mixture.maximization import ridge_in_frame
from dgmm.mixture.merging import Merge, find_merges
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.splitting import Split, find_split
from dgmm.mixture.statistics import SufficientStatistics

# Iterations after which a run that is not heading for what it has to reach is given up.
_PATIENCE = 20
_DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class Run:
    """EM on the sample, from one start as far as it came.

    Attributes
    ----------
    state : EMState
        The last one.
    trace : tuple of Step
        Of its iterations.
    failed : str
        Why it could not go on; empty if it could.
    collapsed : tuple of int
        Components that rest on too few rows.
    searched : float
        Seconds of the search that it is the result of, if it is of a whole one.
    """

    state: EMState
    trace: Trace = ()
    failed: str = ""
    collapsed: tuple[int, ...] = ()
    searched: float = 0.0

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Greater is better: whole solutions first, then by log-likelihood."""
        return not self.failed, not self.collapsed, self.state.log_likelihood


@dataclass(frozen=True, eq=False)
class Climb:
    """A request to run EM.

    Attributes
    ----------
    run : Run or int
        Where to begin; a number asks for that start.
    iterations : int
        The number after which to stop, counted from the beginning of the run.
    tol : float
    above : float
        A log-likelihood that the run has to reach; where it does not seem to, it is given up.
    """

    run: Run | int
    iterations: int
    tol: float
    above: float = -np.inf


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


@dataclass(frozen=True, eq=False)
class Sampled:
    """The sample of a scan, and what a fit is to do with it."""

    scan: Scan
    settings: Settings

    @property
    def ridge(self) -> NDArray[np.floating]:
        """What is added to the variances, in the frame."""
        s, scale = self.settings, self.scan.frame.scale
        variance = self.scan.variance / scale / scale
        return ridge_in_frame(s.covariance, scale, variance, s.reg_covar, s.reg_relative)

    def em(self, tol: float, max_iter: int) -> EM:
        """The iteration."""
        return EM(self.scan.frame, self.ridge, tol, max_iter)

    def e_step(self, parameters: Parameters, dtype: np.dtype[np.floating]) -> EStep:
        """The E-step on the sample."""
        return EStep(Components.prepare(parameters, dtype, self.scan.radius_squared), self.scan.frame)

    def statistics(self, parameters: Parameters) -> SufficientStatistics:
        """Of the whole sample."""
        rows = self.scan.rows
        return self.e_step(parameters, rows.dtype)(rows, self.scan.weights)

    def begin(self, index: int) -> EMState:
        """The start number `index`."""
        s, found, given = self.settings, self.scan, self.settings.start
        frame = found.frame
        if given.complete:
            return EMState(given.parameters(s.covariance).to_frame(frame))
        rng = np.random.default_rng([s.seed, index])
        kind = kind_of_start(s.init_params, index)
        rows = frame.apply(found.rows)
        drawn = start(rows, found.weights, s.n_components, s.covariance, kind, self.ridge, rng)
        if not given.given:
            return EMState(drawn)
        return EMState(given.parameters(s.covariance, drawn.to_data(frame)).to_frame(frame))

    def collapsed(self, state: EMState) -> tuple[int, ...]:
        """Components that rest on too few rows of the sample."""
        components = Components.prepare(state.parameters, _DOUBLE, self.scan.radius_squared)
        return tuple(collapsed(components, EStep(components, self.scan.frame), self.scan.rows))


def climb(sampled: Sampled, request: Climb) -> Run:
    """Run EM on the sample.

    Raises
    ------
    IllDefinedCovariance
        Already of the start.
    """
    run = Run(sampled.begin(request.run)) if isinstance(request.run, int) else request.run
    state, trace = run.state, run.trace
    em = sampled.em(request.tol, request.iterations)
    try:
        for state, step in timed(em.iterate(run.state, sampled.statistics)):
            trace = (*trace, step)
            if state.n_iter >= _PATIENCE and projected(state.history) <= request.above:
                break
        return Run(state, trace, "", sampled.collapsed(state))
    except IllDefinedCovariance as error:
        return Run(state, trace, str(error))


def unite(sampled: Sampled, parameters: Parameters) -> list[Merge]:
    """Merges, those that lose least first."""
    density, _ = _posterior(sampled, parameters, [])
    return find_merges(*_weighted(sampled), parameters, density + sampled.scan.frame.log_volume)


def divide(sampled: Sampled, request: Divide) -> list[Split]:
    """Splits of the components asked for, as far as they gain enough."""
    parameters = request.parameters
    rows, weights = _weighted(sampled)
    each = sorted({k for components, _ in request.wanted for k in components})
    _, responsibilities = _posterior(sampled, parameters, each)
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


def _posterior(
    sampled: Sampled, parameters: Parameters, components: list[int]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Log-density of each row of the sample, and the responsibilities of some components."""
    rows = sampled.scan.rows
    density, responsibilities = np.empty(len(rows)), np.empty((len(components), len(rows)))
    for tile, log_density, r in sampled.e_step(parameters, _DOUBLE).posterior(rows):
        density[tile] = log_density
        responsibilities[:, tile] = r[components]
    return density, responsibilities
