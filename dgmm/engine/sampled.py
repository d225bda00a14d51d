"""EM on the sample: what one task does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dgmm.data.numpy_array import NumpySource
from dgmm.engine.likelihood import Candidate, e_steps
from dgmm.engine.passes import Passes
from dgmm.engine.scan import Scan
from dgmm.engine.settings import Settings
from dgmm.engine.threads import LocalScheduler
from dgmm.engine.trace import Trace, timed
from dgmm.errors import IllDefinedCovariance, InvalidData, InvalidWeights
from dgmm.mixture.collapse import held_by_ridge, multiplicity, outlying, too_few_rows
from dgmm.mixture.components import Components
from dgmm.mixture.criteria import projected
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.initialization import kind_of_start, reseed, start
from dgmm.mixture.maximization import EMPTY, ridge_in_frame
from dgmm.mixture.parameters import Parameters
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
        Components that rest on too few rows, or on the regularisation alone.
    outlying : tuple of int
        Components of few rows too, but outliers.
    searched : float
        Seconds of the search that it is the result of, if it is of a whole one.
    """

    state: EMState
    trace: Trace = ()
    failed: str = ""
    collapsed: tuple[int, ...] = ()
    outlying: tuple[int, ...] = ()
    searched: float = 0.0

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Greater is better: whole solutions first, then by log-likelihood."""
        return not self.failed, not self.collapsed, self.state.log_likelihood

    def cautions(self) -> Iterator[str]:
        """What a user should hear of its components."""
        return cautions(self.collapsed, self.outlying)


def cautions(collapsed: Sequence[int], outlying: Sequence[int]) -> Iterator[str]:
    """What a user should hear of such components of a `Run`."""
    if collapsed:
        yield (
            f"components {list(collapsed)} rest on very few distinct rows, or on equal values of a "
            "feature, in every start; use fewer components, more starts (n_init), or a larger reg_covar"
        )
    if outlying:
        yield (
            f"components {list(outlying)} hold outliers: very few distinct rows, far from all other "
            "components. If they are errors or missing values, leave those rows out or give them weight 0."
        )


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
    accelerate : bool
        As the settings have it; runs that are only compared are plain EM.
    threads : int
        That it may use.
    """

    run: Run | int
    iterations: int
    tol: float
    above: float = -np.inf
    accelerate: bool = False
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Sampled:
    """The sample of a scan, and what a fit is to do with it."""

    scan: Scan
    settings: Settings

    @classmethod
    def of(cls, scan: Scan, settings: Settings) -> Sampled:
        """In the frame that the settings want."""
        return cls(scan.framed_for(settings.covariance, standardize=settings.standardize), settings)

    @property
    def ridge(self) -> NDArray[np.floating]:
        """What is added to the variances, in the frame."""
        s, scale = self.settings, self.scan.frame.scale
        variance = self.scan.variance / scale / scale
        if s.standardize:  # reg_covar is in units of each feature's variance, as reg_relative is
            return ridge_in_frame(s.covariance, scale, variance, 0.0, s.reg_covar + s.reg_relative)
        return ridge_in_frame(s.covariance, scale, variance, s.reg_covar, s.reg_relative)

    def check(self) -> None:
        """Refuse fewer rows than components, but for those of weight 0 or with a missing value.

        Raises
        ------
        InvalidWeights, InvalidData
        """
        weights, k = self.scan.weights, self.settings.n_components
        present = len(self.scan.rows) if weights is None else np.count_nonzero(weights)
        if present >= k:
            return
        if weights is None:
            msg = f"only {present} rows have no missing value, for {k} components; use fewer"
            raise InvalidData(msg)
        msg = f"only {present} rows have a positive weight, for {k} components; use fewer"
        raise InvalidWeights(msg)

    def em(self, tol: float, max_iter: int, accelerate: bool) -> EM:
        """The iteration."""
        return EM(self.scan.frame, self.ridge, tol, max_iter, accelerate)

    def e_pass(self, threads: int = 1) -> Callable[[Parameters], SufficientStatistics]:
        """A pass over the sample, by so many threads of this process."""
        found = self.scan
        weights = None if found.weights is None else NumpySource(found.weights, column=True)
        passes = Passes(NumpySource(found.rows, name="the sample"), weights, LocalScheduler(threads))

        def statistics(parameters: Parameters) -> SufficientStatistics:
            candidate = Candidate(parameters, found.frame, found.radius_squared)
            return e_steps(passes, [candidate], [self.ridge], found.n_rows)[0]

        return statistics

    def e_step(self, parameters: Parameters) -> EStep:
        """The E-step on the sample in double precision, for what belongs to each row."""
        return EStep(Components.prepare(parameters, _DOUBLE, self.scan.radius_squared), self.scan.frame)

    def begin(self, index: int) -> EMState:
        """The start number `index`."""
        return EMState(self._found(self._begin(index))[0])

    def lost(self) -> list[int]:
        """Components that a given start puts so far from all rows that none belongs to them: they begin anew."""
        return self._found(self._begin(0))[1]

    def _found(self, begun: Parameters) -> tuple[Parameters, list[int]]:
        """A start after its lost components began anew, and which these are."""
        lost: list[int] = []
        if not self.settings.start.given:
            return begun, lost
        rows = self.scan.frame.apply(self.scan.rows)
        # The last one that all rows belonged to may be lost once others have begun anew.
        while more := [k for k in self._lost(begun) if k not in lost]:
            begun = reseed(rows, self.scan.weights, begun, more, self.ridge)
            lost += more
        return begun, sorted(lost)

    def _lost(self, begun: Parameters) -> list[int]:
        """Those without a row in the sample; where it is not all rows, out of the range of all rows too."""
        counts = self.e_pass()(begun).counts
        lost = (counts <= EMPTY * counts.sum()) & (begun.weights > 0)
        if not self.scan.complete:
            means = begun.to_data(self.scan.frame).means
            lost &= ((means < self.scan.low) | (means > self.scan.high)).any(axis=1)
        return [int(k) for k in np.flatnonzero(lost)]

    def _begin(self, index: int) -> Parameters:
        """The start number `index` as drawn, and as given."""
        s, found, given = self.settings, self.scan, self.settings.start
        frame = found.frame
        if given.complete:
            return given.parameters(s.covariance).to_frame(frame)
        rng = np.random.default_rng([s.seed, index])
        kind = kind_of_start(s.init_params, index)
        rows = frame.apply(found.rows)
        drawn = start(rows, found.weights, s.n_components, s.covariance, kind, self.ridge, rng)
        return given.parameters(s.covariance, drawn.to_data(frame)).to_frame(frame) if given.given else drawn

    @cached_property
    def times(self) -> NDArray[np.floating]:
        """How often each row of the sample occurs in it; 0 where it has no weight."""
        times = multiplicity(self.scan.rows)
        return times if self.scan.weights is None else np.where(self.scan.weights > 0, times, 0.0)

    def ended(self, state: EMState, trace: Trace) -> Run:
        """The run that leads here."""
        components = Components.prepare(state.parameters, _DOUBLE, self.scan.radius_squared)
        few = too_few_rows(components, EStep(components, self.scan.frame), self.scan.rows, self.times)
        far = outlying(components, few)
        bad = {*few, *held_by_ridge(state.parameters, self.ridge)} - {*far}
        return Run(state, trace, "", tuple(sorted(bad)), tuple(far))


def climb(sampled: Sampled, request: Climb) -> Run:
    """Run EM on the sample.

    Raises
    ------
    IllDefinedCovariance
        Already of the start.
    """
    run = Run(sampled.begin(request.run)) if isinstance(request.run, int) else request.run
    state, trace = run.state, run.trace
    em = sampled.em(request.tol, request.iterations, request.accelerate)
    try:
        for state, step in timed(em.iterate(run.state, sampled.e_pass(request.threads))):
            trace = (*trace, step)
            if state.n_iter >= _PATIENCE and projected(state.history) <= request.above:
                break
        return sampled.ended(state, trace)
    except IllDefinedCovariance as error:
        return Run(state, trace, str(error))
