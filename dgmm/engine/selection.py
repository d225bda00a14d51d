"""Which number of components and which covariances: candidates that share passes. No printing, no files.

Every candidate is searched for on the sample; those that are hopeless there are dropped; the others share passes
over all rows, and a last one for the criteria.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from dgmm.engine.candidates import Entry, Foreseen, foresee, search_alone
from dgmm.engine.events import Event, Iterated, Judged, Progress, Scanned, Searched, reached_by
from dgmm.engine.likelihood import Candidate, Criteria, CriteriaWork
from dgmm.engine.lockstep import Member, shared_passes
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Run, Sampled
from dgmm.engine.scan import Scan, scan
from dgmm.engine.search import ended
from dgmm.engine.settings import Contest
from dgmm.engine.subset import Subset
from dgmm.errors import IllDefinedCovariance, InvalidParameter
from dgmm.mixture.criteria import aic, bic, icl, projected
from dgmm.mixture.em import EMState

CRITERIA = ("bic", "aic", "icl", "holdout")
# A candidate is dropped on the sample if it is behind by more than so many standard errors of the difference and
# so many times the correction for having been fitted to the sample.
_STANDARD_ERRORS = 4.0
_CORRECTIONS = 1.0
# In the full passes a candidate is done with once this many times the log-likelihood that EM seems to have left
# would not make it the best.
_HOPE = 10.0
# Of more rows than these some are held out, and enough are not, for any sensible fraction.
_SURE = 1 << 20


class Selection:
    """The steps of a selection.

    Parameters
    ----------
    passes : Passes
        Over all rows, or those not held out.
    contest : Contest
    progress : Progress
        Where an earlier run stopped.
    """

    def __init__(self, passes: Passes, contest: Contest, progress: Progress | None = None) -> None:
        held_out = Subset(contest.holdout, contest.settings.seed) if contest.holdout else None
        self._passes = replace(passes, subset=held_out)
        self._contest = contest
        self.progress = progress or Progress()

    @property
    def scan(self) -> Scan:
        """What the scan found."""
        assert self.progress.scan is not None  # noqa: S101  the first event made it
        return self.progress.scan

    def scan_of(self, name: str) -> Scan:
        """The same in the frame of a candidate."""
        return Sampled.of(self.scan, self._contest.of(name)).scan

    @property
    def n_passes(self) -> int:
        """Over all rows, all in all."""
        judged, finalists = self.progress.judged, self.progress.finalists.values()
        iterations = 0 if self.scan.complete else max((run.state.n_iter for run in finalists), default=0)
        return self.scan.n_passes + iterations + (1 + bool(judged.held_out) if judged else 0)

    def events(self) -> Iterator[Event]:
        """Run, or go on; an event is yielded once it is part of `progress`."""
        self._check_holdout()
        if self.progress.scan is None:
            rows = self._contest.sample_rows(self._passes.source)
            found = scan(self._passes, sample_rows=rows, seed=self._contest.settings.seed)
            self.progress = replace(self.progress, scan=found)
            yield Scanned(found)
        yield from self._search()
        if not _eligible(self.progress.runs):
            raise IllDefinedCovariance(self.progress.runs[self._contest.names[0]].failed)
        self.foreseen = self._foresee()
        finalists = self.progress.finalists or self._hopeful()
        yield from self._full_passes(finalists)
        if self.progress.judged is None:
            self.progress = replace(self.progress, judged=self._judge())
            assert self.progress.judged is not None  # noqa: S101
            yield self.progress.judged

    def _check_holdout(self) -> None:
        """Refuse a fraction that leaves nothing to score, or fewer rows than components to fit."""
        subset, n = self._passes.subset, self._passes.source.n_rows
        if subset is None or n > _SURE:
            return
        kept = int(subset.weights(np.arange(n), None).sum())
        largest = max(self._contest.of(name).n_components for name in self._contest.names)
        if kept == n or kept < largest:
            msg = (
                f"holdout is {subset.fraction}: of {n} rows it leaves out {n - kept}, and {kept} for fits of up "
                f"to {largest} components; choose another fraction, or fewer components"
            )
            raise InvalidParameter(msg)

    def _search(self) -> Iterator[Event]:
        known, contest = self.progress.runs, self._contest
        missing = [name for name in contest.names if not (name in known and self._ended(name, known[name]))]
        # The longest first, so that no worker is left with one at the end.
        missing.sort(key=lambda name: -contest.of(name).n_components)
        arguments = [contest.of(name) for name in missing]
        for number, run in self._passes.scheduler.map(search_alone, self.scan, arguments):
            self.progress = replace(self.progress, runs={**self.progress.runs, missing[number]: run}, judged=None)
            yield Searched(missing[number], run)

    def _ended(self, name: str, run: Run) -> bool:
        settings = self._contest.of(name)
        return not self.scan.complete or ended(run, settings.max_iter, settings.tol)

    def _foresee(self) -> dict[str, Foreseen]:
        runs = {name: self.progress.runs[name] for name in self._contest.names}
        sound = [name for name, run in runs.items() if not run.failed]
        arguments = [(self._contest.of(name), runs[name].state.parameters) for name in sound]
        found = dict(self._passes.scheduler.map(foresee, self.scan, arguments))
        return {name: found[i] for i, name in enumerate(sound)}

    def predicted(self, name: str, *, held_out: bool = False) -> Criteria:
        """What a pass over all rows is to find: the sample's likelihood, less what its fit made of noise.

        In the mean a fit to n rows gains p / 2n on these and loses as much on others (Akaike 1974).
        """
        seen, weight, rows = self.foreseen[name], self.scan.weight, len(self.scan.rows)
        mean = float(np.average(seen.density, weights=self.scan.weights))
        own = 1 / max(weight, rows)
        mean -= seen.n_parameters / 2 * (1 / rows + (own if held_out else -own))
        return Criteria(mean * weight, weight, seen.entropy * weight)

    def _hopeful(self) -> dict[str, Run]:
        """Candidates that the sample does not rule out, as they enter the full passes."""
        if self.scan.complete:
            return {name: self.progress.runs[name] for name in self.foreseen}
        criterion, rows = self._contest.criterion, len(self.scan.rows)
        # A lead of one in mean log-likelihood is one of 2 n in an information criterion.
        unit = 1.0 if criterion == "holdout" else 2 * self.scan.weight
        values = {name: self._foreseen_entry(name).value(criterion) for name in self.foreseen}
        best = min(_eligible(self.progress.runs), key=lambda name: values[name])
        kept = {}
        for name, seen in self.foreseen.items():
            difference = seen.density - self.foreseen[best].density
            error = float(np.sqrt(np.cov(difference, aweights=self.scan.weights) / rows))
            correction = abs(seen.n_parameters - self.foreseen[best].n_parameters) / (2 * rows)
            margin = unit * (_STANDARD_ERRORS * error + _CORRECTIONS * correction)
            if values[name] <= values[best] + margin:
                run = self.progress.runs[name]
                kept[name] = Run(EMState(run.state.parameters), collapsed=run.collapsed, outlying=run.outlying)
        return kept

    def _full_passes(self, finalists: Mapping[str, Run]) -> Iterator[Event]:
        self.progress = replace(self.progress, finalists=finalists)
        if self.scan.complete:
            return
        members = {}
        for name, run in finalists.items():
            settings = self._contest.of(name)
            sampled = Sampled.of(self.scan, settings)
            em = sampled.em(settings.tol, settings.full_iterations(self.scan.n_passes), settings.accelerate)
            members[name] = Member(em, sampled.scan.radius_squared, run)
        for runs in shared_passes(self._passes, members, self._beaten):
            self.progress = replace(self.progress, finalists=runs, judged=None)
            yield Iterated(runs)

    def _beaten(self, runs: Mapping[str, Run]) -> set[str]:
        """Those that cannot win any more."""
        weight, criterion = self.scan.weight, self._contest.criterion
        if criterion == "holdout":
            return set()

        def value(name: str, mean: float) -> float:
            found = Criteria(mean * weight, weight, self.foreseen[name].entropy * weight)
            return self.entry(name, found, None).value(criterion)

        reached = {name: run.state.log_likelihood for name, run in runs.items()}
        left = {name: projected(run.state.history) - reached[name] for name, run in runs.items()}
        lead = min(value(name, reached[name]) for name in _eligible(runs))
        return {name for name, mean in reached.items() if value(name, mean + _HOPE * left[name]) > lead}

    def _judge(self) -> Judged:
        sound = {name: run for name, run in self.progress.finalists.items() if not run.failed}
        candidates = []
        for name, run in sound.items():
            own = self.scan_of(name)
            candidates.append(Candidate(run.state.parameters, own.frame, own.radius_squared))
        found = [dict(zip(sound, self._passes.run(CriteriaWork(candidates)).members, strict=True))]
        if self._passes.subset is not None:
            rest = replace(self._passes, subset=replace(self._passes.subset, held_out=True))
            found.append(dict(zip(sound, rest.run(CriteriaWork(candidates)).members, strict=True)))
        reached = {name: reached_by(run) for name, run in sound.items()}
        return Judged(found[0], found[1] if len(found) > 1 else {}, reached)

    def table(self) -> dict[str, Entry]:
        """A line for each candidate, after the last event."""
        judged = self.progress.judged
        assert judged is not None  # noqa: S101
        entries = {}
        for name in self._contest.names:
            if name in judged.criteria:
                entries[name] = self.entry(name, judged.criteria[name], judged.held_out.get(name))
            elif name not in self.foreseen:
                entries[name] = self.entry(name, Criteria(np.nan, self.scan.weight, np.nan), None)
            else:
                entries[name] = self._foreseen_entry(name)
        return entries

    def best(self) -> str:
        """The candidate of the lowest criterion; those with collapsed components only if all have some."""
        entries = self.table()
        return min(
            _eligible(self.progress.finalists), key=lambda name: entries[name].value(self._contest.criterion)
        )

    def _foreseen_entry(self, name: str) -> Entry:
        """The line that the sample foresees for a candidate."""
        held_out = self.predicted(name, held_out=True) if self._contest.holdout else None
        return self.entry(name, self.predicted(name), held_out)

    def entry(self, name: str, found: Criteria, held_out: Criteria | None) -> Entry:
        """The line of a candidate."""
        settings, start = self._contest.of(name), self.progress.runs[name]
        run = self.progress.finalists.get(name)
        n_parameters = start.state.parameters.n_parameters
        total, weight = found.log_likelihood, found.weight
        judging = 0 if run is None else 1 + bool(self._contest.holdout)
        passes = 0 if run is None or self.scan.complete else run.state.n_iter
        return Entry(
            n_components=settings.n_components,
            covariance_type=settings.covariance_type,
            log_likelihood=total / weight,
            n_parameters=n_parameters,
            bic=bic(total, n_parameters, weight),
            aic=aic(total, n_parameters),
            icl=icl(total, n_parameters, weight, found.entropy),
            held_out=held_out.log_likelihood / held_out.weight if held_out else np.nan,
            n_passes=self.scan.n_passes + passes + judging,
            converged=run is not None and run.state.converged(settings.tol),
            collapsed=bool(start.collapsed),
            dropped=run is None and not start.failed,
            failed=start.failed or (run.failed if run else ""),
            seconds=start.searched + (sum(step.seconds for step in run.trace) if passes and run else 0.0),
        )


def _eligible(runs: Mapping[str, Run]) -> list[str]:
    """Those that can be the best: not failed, and with collapsed components only if all others have some."""
    sound = [name for name, run in runs.items() if not run.failed]
    return [name for name in sound if not runs[name].collapsed] or sound
