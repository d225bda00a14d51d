"""A fit as a generator of events: scan, search on the sample, full passes. No printing, no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from dgmm.engine.lockstep import Member, shared_passes
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Run, Sampled
from dgmm.engine.scan import Scan, scan
from dgmm.engine.search import Search, Searched
from dgmm.engine.settings import Settings
from dgmm.mixture.criteria import converged
from dgmm.mixture.em import EMState


@dataclass(frozen=True, eq=False)
class Progress:
    """Everything a fit has found so far; all of it can be put on disk.

    Attributes
    ----------
    scan : Scan or None
    runs : dict
        Of the search on the sample, by name.
    finalists : dict
        Of the full passes, by name; empty before the first one.
    """

    scan: Scan | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    finalists: Mapping[str, Run] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scanned:
    """The scan is done."""

    scan: Scan


@dataclass(frozen=True, eq=False)
class Iterated:
    """One pass over all rows, an iteration of each finalist that was not finished."""

    finalists: Mapping[str, Run]

    @property
    def n_iter(self) -> int:
        """Passes so far, but for the scan."""
        return max(run.state.n_iter for run in self.finalists.values())

    @property
    def best(self) -> Run:
        """The one that leads."""
        return _best(self.finalists)


Event = Scanned | Searched | Iterated


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a fit.

    Attributes
    ----------
    run : Run
        The best one; its `collapsed` are components that rest on too few rows of the sample.
    converged : bool
    n_passes : int
        Over all rows, the scan among them.
    """

    run: Run
    converged: bool
    n_passes: int


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
        """Run, or go on; an event is yielded once it is part of `progress`."""
        settings = self._settings
        if self.progress.scan is None:
            found = scan(
                self._passes,
                sample_rows=settings.sample_rows(self._passes.source),
                seed=settings.seed,
                isotropic=settings.covariance.isotropic,
            )
            self.progress = replace(self.progress, scan=found)
            yield Scanned(found)
        assert self.progress.scan is not None  # noqa: S101
        sampled = Sampled(self.progress.scan, settings)
        finalists = self.progress.finalists
        if not finalists and settings.start.complete and not sampled.scan.complete:
            finalists = {"0": Run(sampled.begin(0))}
        elif not finalists:
            search = Search(sampled, self._passes.scheduler, self.progress.runs)
            for event in search.events():
                self.progress = replace(self.progress, runs=dict(search.runs))
                yield event
            if sampled.scan.complete:
                self._outcome = search.best[0]
                return
            finalists = {
                str(i): Run(EMState(run.state.parameters), collapsed=run.collapsed)
                for i, run in enumerate(search.best)
            }
        yield from self._full_passes(sampled, finalists)

    def _full_passes(self, sampled: Sampled, finalists: Mapping[str, Run]) -> Iterator[Event]:
        em = sampled.em(self._settings.tol, self._settings.max_full_iterations)
        members = {name: Member(em, sampled.scan.radius_squared, run) for name, run in finalists.items()}
        self._outcome = _best(finalists)
        for runs in shared_passes(self._passes, members):
            self.progress = replace(self.progress, finalists=runs)
            self._outcome = _best(runs)
            yield Iterated(runs)

    def outcome(self) -> Outcome:
        """The result, after the last event."""
        run = self._outcome
        passes = max((r.state.n_iter for r in self.progress.finalists.values()), default=0)
        return Outcome(run, converged(run.state.history, self._settings.tol), 1 + passes)


def _best(runs: Mapping[str, Run]) -> Run:
    return max(runs.values(), key=lambda run: (not run.failed, run.state.log_likelihood))
