"""A fit as a generator of events: scan, restarts on the sample, full passes. No printing, no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from dgmm.data.source import Source, open_source, open_weights
from dgmm.engine.likelihood import EStepWork
from dgmm.engine.passes import Passes
from dgmm.engine.scan import Scan, scan
from dgmm.engine.scheduling import LocalScheduler
from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.criteria import collapsed, converged
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.initialization import start
from dgmm.mixture.maximization import ridge_in_frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics

# Rows of the sample that restarts run on, less where the rows are long.
_SAMPLE_ROWS = 50_000
_SAMPLE_BYTES = 1 << 26


@dataclass(frozen=True)
class Start:
    """What the user gives of the start, in data units; None is found on the sample.

    Attributes
    ----------
    weights : ndarray (K,) or None
    means : ndarray (K, D) or None
    covariances : ndarray or None
        In the shape of the covariance type.
    """

    weights: Array | None = None
    means: Array | None = None
    covariances: Array | None = None

    @property
    def complete(self) -> bool:
        """Nothing is left to be found."""
        return self.weights is not None and self.means is not None and self.covariances is not None

    def parameters(self, covariance: CovarianceType, drawn: Parameters | None = None) -> Parameters:
        """What is given, and of `drawn` (in data units) the rest."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Parameters(covariance, **given) if drawn is None else replace(drawn, **given)


@dataclass(frozen=True)
class Settings:
    """What a fit is asked to do; the names are the estimator's."""

    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    reg_relative: float
    max_iter: int
    n_init: int
    init_params: str
    seed: int
    start: Start = field(default_factory=Start)

    @property
    def covariance(self) -> CovarianceType:
        """The constraint on the covariances."""
        return covariance_type(self.covariance_type)

    @property
    def n_starts(self) -> int:
        """A complete start leaves nothing to chance: once is enough."""
        return 1 if self.start.complete else self.n_init


@dataclass(frozen=True, eq=False)
class Restart:
    """One start's run on the sample.

    Attributes
    ----------
    state : EMState
        The last one.
    failed : str
        Why it could not go on; empty if it could.
    collapsed : tuple of int
        Components that rest on too few rows.
    """

    state: EMState
    failed: str = ""
    collapsed: tuple[int, ...] = ()

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Greater is better: whole solutions first, then by log-likelihood."""
        return not self.failed, not self.collapsed, self.state.log_likelihood


@dataclass(frozen=True, eq=False)
class Progress:
    """Everything a fit has found so far; all of it can be put on disk.

    Attributes
    ----------
    scan : Scan or None
    restarts : dict
        By number of the start.
    state : EMState or None
        Of the full passes.
    """

    scan: Scan | None = None
    restarts: dict[int, Restart] = field(default_factory=dict)
    state: EMState | None = None


@dataclass(frozen=True, eq=False)
class Scanned:
    """The scan is done."""

    scan: Scan


@dataclass(frozen=True, eq=False)
class Stepped:
    """One iteration on the sample."""

    index: int
    state: EMState


@dataclass(frozen=True, eq=False)
class Restarted:
    """One start has run to its end on the sample."""

    index: int
    restart: Restart


@dataclass(frozen=True, eq=False)
class Iterated:
    """One iteration on all rows."""

    state: EMState


Event = Scanned | Stepped | Restarted | Iterated


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a fit.

    Attributes
    ----------
    state : EMState
    converged : bool
    collapsed : tuple of int
        Components that rest on too few rows, if no start was without any.
    """

    state: EMState
    converged: bool
    collapsed: tuple[int, ...]


def sample_rows(source: Source) -> int:
    """Rows of the sample."""
    row_bytes = source.n_features * source.dtype.itemsize
    return min(source.n_rows, max(min(_SAMPLE_ROWS, _SAMPLE_BYTES // row_bytes), 1000))


class Fit:
    """The steps of a fit.

    Parameters
    ----------
    passes : Passes
        Over all rows.
    settings : Settings
    progress : Progress
        Where an earlier run stopped.
    """

    def __init__(self, passes: Passes, settings: Settings, progress: Progress | None = None) -> None:
        self._passes = passes
        self._settings = settings
        self.progress = progress or Progress()

    def events(self) -> Iterator[Event]:
        """Run, or go on; the events that make `progress` are yielded once they are part of it."""
        if self.progress.scan is None:
            found = scan(
                self._passes,
                sample_rows=sample_rows(self._passes.source),
                seed=self._settings.seed,
                isotropic=self._settings.covariance.isotropic,
            )
            self.progress = replace(self.progress, scan=found)
            yield Scanned(found)
        skip_restarts = self.progress.state is not None or (
            self._settings.start.complete and not self._scan.complete
        )
        if not skip_restarts:
            yield from self._restarts()
        if not self._scan.complete:
            yield from self._full_passes()

    def outcome(self) -> Outcome:
        """The result, after the last event."""
        best = max(self.progress.restarts.values(), key=lambda r: r.rank, default=None)
        state = self.progress.state or (best.state if best else self._begin(0))
        return Outcome(state, converged(state.history, self._settings.tol), best.collapsed if best else ())

    @property
    def _scan(self) -> Scan:
        assert self.progress.scan is not None  # noqa: S101  the first event made it
        return self.progress.scan

    @property
    def _em(self) -> EM:
        s, found = self._settings, self._scan
        scale = found.frame.scale
        ridge = ridge_in_frame(s.covariance, scale, found.variance / scale / scale, s.reg_covar, s.reg_relative)
        return EM(found.frame, ridge, s.tol, s.max_iter)

    def _begin(self, index: int) -> EMState:
        """The start number `index`."""
        s, found, given = self._settings, self._scan, self._settings.start
        frame = found.frame
        if given.complete:
            return EMState(given.parameters(s.covariance).to_frame(frame))
        rng = np.random.default_rng([s.seed, index])
        rows = frame.apply(found.rows)
        drawn = start(rows, found.weights, s.n_components, s.covariance, s.init_params, self._em.ridge, rng)
        if all(part is None for part in vars(given).values()):
            return EMState(drawn)
        return EMState(given.parameters(s.covariance, drawn.to_data(frame)).to_frame(frame))

    def _restarts(self) -> Iterator[Event]:
        sample = open_source(self._scan.rows)
        weights = self._scan.weights
        passes = Passes(
            sample,
            None if weights is None else open_weights(weights, sample.n_rows, sample.bounds),
            LocalScheduler(),
        )
        em = self._em
        for index in range(self._settings.n_starts):
            earlier = self.progress.restarts.get(index)
            if earlier and (earlier.failed or em.finished(earlier.state)):
                continue
            state, failed = earlier.state if earlier else self._begin(index), ""
            try:
                for reached in em.iterate(state, lambda p: self._e_pass(passes, p)):
                    state = reached
                    yield Stepped(index, state)
                bad = tuple(self._collapsed(state))
            except IllDefinedCovariance as error:
                failed, bad = str(error), ()
            restart = Restart(state, failed, bad)
            restarts = {**self.progress.restarts, index: restart}
            self.progress = replace(self.progress, restarts=restarts)
            yield Restarted(index, restart)
        restarts = self.progress.restarts
        if all(restart.failed for restart in restarts.values()):
            raise IllDefinedCovariance(restarts[0].failed)

    def _full_passes(self) -> Iterator[Event]:
        state = self.progress.state
        if state is None and self._settings.start.complete:
            state = self._begin(0)
        elif state is None:
            best = max(self.progress.restarts.values(), key=lambda r: r.rank)
            state = EMState(best.state.parameters)
        for reached in self._em.iterate(state, lambda p: self._e_pass(self._passes, p)):
            self.progress = replace(self.progress, state=reached)
            yield Iterated(reached)

    def _e_pass(self, passes: Passes, parameters: Parameters) -> SufficientStatistics:
        found = self._scan
        work = EStepWork(parameters, found.frame, passes.source.dtype, found.radius_squared)
        statistics: SufficientStatistics = passes.run(work)
        return statistics

    def _collapsed(self, state: EMState) -> list[int]:
        double = np.dtype(np.float64)
        components = Components.prepare(state.parameters, double, self._scan.radius_squared)
        return collapsed(components, EStep(components, self._scan.frame), self._scan.rows)
