"""A fit as a generator of events: scan, search on the sample, full passes. No printing, no files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dgmm.engine.events import Event, Iterated, Progress, Scanned, best_of
from dgmm.engine.lockstep import Member, shared_passes
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Run, Sampled
from dgmm.engine.scan import Scan, scan
from dgmm.engine.search import Search
from dgmm.engine.settings import Settings
from dgmm.errors import DataWarning, IllDefinedCovariance
from dgmm.mixture.em import EMState


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of a fit.

    Attributes
    ----------
    run : Run
        The best one; its `collapsed` and `outlying` components are those of the sample.
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
        """Run, or go on; an event is yielded once it is part of `progress`.

        Raises
        ------
        IllDefinedCovariance
            Every start ended in one, or every finalist.
        """
        settings = self._settings
        if self.progress.scan is None:
            found = scan(
                self._passes,
                sample_rows=settings.sample_rows(self._passes.source),
                seed=settings.seed,
            )
            self.progress = replace(self.progress, scan=found)
            yield Scanned(found)
        assert self.progress.scan is not None  # noqa: S101
        sampled = Sampled.of(self.progress.scan, settings)
        sampled.check()
        finalists = self.progress.finalists
        if settings.start.given and not (finalists or self.progress.runs):
            _warn_of_lost(sampled)
        if not finalists and settings.start.complete and not sampled.scan.complete:
            finalists = {"0": Run(sampled.begin(0))}
        elif not finalists:
            search = Search(sampled, self._passes.scheduler, self.progress.runs)
            for event in search.events():
                self.progress = replace(self.progress, runs=dict(search.runs))
                yield event
            if all(run.failed for run in search.best):
                raise IllDefinedCovariance(search.best[0].failed)
            if sampled.scan.complete:
                self._outcome = search.best[0]
                return
            finalists = {
                str(i): Run(EMState(run.state.parameters), collapsed=run.collapsed, outlying=run.outlying)
                for i, run in enumerate(search.best)
            }
        yield from self._full_passes(sampled, finalists)

    def _full_passes(self, sampled: Sampled, finalists: Mapping[str, Run]) -> Iterator[Event]:
        settings = self._settings
        iterations = settings.full_iterations(sampled.scan.n_passes)
        em = sampled.em(settings.tol, iterations, settings.accelerate)
        members = {name: Member(em, sampled.scan.radius_squared, run) for name, run in finalists.items()}
        self._outcome = best_of(finalists)
        for runs in shared_passes(self._passes, members):
            self.progress = replace(self.progress, finalists=runs)
            self._outcome = best_of(runs)
            yield Iterated(runs)

    @property
    def scan(self) -> Scan:
        """What the scan found, in the frame of the parameters."""
        assert self.progress.scan is not None  # noqa: S101  the first event made it
        return Sampled.of(self.progress.scan, self._settings).scan

    def outcome(self) -> Outcome:
        """The result, after the last event."""
        run, found = self._outcome, self.progress.scan
        assert found is not None  # noqa: S101  it comes first
        passes = max((r.state.n_iter for r in self.progress.finalists.values()), default=0)
        return Outcome(run, run.state.converged(self._settings.tol), found.n_passes + passes)


def _warn_of_lost(sampled: Sampled) -> None:
    try:
        lost = sampled.lost()
    except IllDefinedCovariance:
        return  # EM will say so
    if lost:
        msg = (
            f"components {lost} of the given start are so far from all rows that no row belongs to them: they "
            "begin anew, each at the row that the others explain worst. Check the units of means_init."
        )
        warnings.warn(msg, DataWarning, stacklevel=2)
