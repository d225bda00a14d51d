"""A fit, or a selection, from its data to its model: memory plan, checkpoints, progress."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from dgmm.data.address import Address
from dgmm.data.source import Source
from dgmm.engine import record
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.environment import environment
from dgmm.engine.events import Event, Progress, Scanned
from dgmm.engine.fit import Fit, Outcome
from dgmm.engine.identity import contest_identity, fit_identity
from dgmm.engine.keeping import Keeping
from dgmm.engine.memory import Held, Plan, check_plan, fit_plan
from dgmm.engine.model import Model
from dgmm.engine.origin import Choice, Origin
from dgmm.engine.passes import Passes
from dgmm.engine.reach import check_readable, warn_if_hidden
from dgmm.engine.scan import Scan
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.selection import Selection
from dgmm.engine.settings import Contest, Settings
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.covariance_type import CovarianceType


class Observer(Protocol):
    """Watches a fit; whatever it raises stops the fit, with the last state on disk."""

    def on_plan(self, plan: Plan) -> None:
        """The memory plan has been made."""

    def on_rows(self, done: int, total: int) -> None:
        """So many rows of the running pass are done."""

    def on_event(self, event: Event) -> None:
        """Something was found; with a checkpoint, it is on disk."""


class Steps(Protocol):
    """A fit or a selection."""

    progress: Progress

    def events(self) -> Iterator[Event]:
        """Run, or go on."""


T = TypeVar("T", bound=Steps)


class Silence:
    """An observer that does nothing."""

    def on_plan(self, plan: Plan) -> None:
        pass

    def on_rows(self, done: int, total: int) -> None:
        pass

    def on_event(self, event: Event) -> None:
        pass


def fit_model(
    source: Source,
    weights: Source | None,
    settings: Settings,
    *,
    seed_is_given: bool,
    checkpoint: Address | None = None,
    observer: Observer | None = None,
) -> tuple[Model, Outcome]:
    """Fit, or go on with a fit.

    Parameters
    ----------
    source, weights : Source
    settings : Settings
    seed_is_given : bool
        Otherwise the seed recorded in the checkpoint is used, or a new one drawn.
    checkpoint : path, optional
        The directory, or the URL of an object store, in which every finished start and every iteration is made
        durable.
    observer : Observer, optional

    Returns
    -------
    Model
    Outcome

    Raises
    ------
    CheckpointError
        The directory belongs to another fit, or another driver is at work in it.
    NotEnoughMemory, NonFiniteData, InvalidWeights, IllDefinedCovariance, ClusterError
    """
    settings = _seeded(settings, checkpoint, seed_is_given=seed_is_given)
    fit = _compute(
        lambda passes, progress: Fit(passes, settings, progress),
        source,
        weights,
        [(settings.n_components, settings.covariance)] * settings.n_finalists,
        settings.sample_rows(source),
        lambda content: fit_identity(source, weights, settings, settings.seed, content),
        checkpoint,
        observer or Silence(),
    )
    outcome = fit.outcome()
    return _model(fit.scan, outcome, source, weights, settings), outcome


def select_model(
    source: Source,
    weights: Source | None,
    contest: Contest,
    *,
    seed_is_given: bool,
    checkpoint: Address | None = None,
    observer: Observer | None = None,
) -> tuple[Model, Outcome, Selection]:
    """Fit candidates in shared passes, or go on with that; see `fit_model`.

    Returns
    -------
    Model
        Of the best candidate.
    Outcome
    Selection
        With its table.
    """
    contest = replace(contest, settings=_seeded(contest.settings, checkpoint, seed_is_given=seed_is_given))
    selection = _compute(
        lambda passes, progress: Selection(passes, contest, progress),
        source,
        weights,
        [(k, covariance_type(kind)) for k, kind in contest.candidates],
        contest.sample_rows(source),
        lambda content: contest_identity(source, weights, contest, contest.settings.seed, content),
        checkpoint,
        observer or Silence(),
    )
    best = selection.best()
    settings = contest.of(best)
    run = selection.progress.finalists[best]
    outcome = Outcome(run, run.state.converged(settings.tol), selection.n_passes)
    choice = Choice(contest.criterion, contest.holdout, tuple(selection.table().values()))
    return _model(selection.scan_of(best), outcome, source, weights, settings, choice), outcome, selection


def _seeded(settings: Settings, checkpoint: Address | None, *, seed_is_given: bool) -> Settings:
    """With the seed that was given, recorded, or drawn now."""
    if seed_is_given:
        return settings
    recorded = Checkpoint.recorded_identity(checkpoint) if checkpoint is not None else None
    seed = recorded.get("seed") if recorded else None
    return replace(settings, seed=seed if type(seed) is int else secrets.randbits(32))


def _model(
    scan: Scan,
    outcome: Outcome,
    source: Source,
    weights: Source | None,
    settings: Settings,
    choice: Choice | None = None,
) -> Model:
    return Model(
        parameters=outcome.run.state.parameters,
        frame=scan.frame,
        dtype=source.dtype,
        radius_squared=scan.radius_squared,
        converged=outcome.converged,
        trace=outcome.run.trace,
        n_passes=outcome.n_passes,
        n_rows=scan.n_rows,
        n_missing=scan.n_missing,
        weight=scan.weight,
        settings={
            name: value for name, value in vars(settings).items() if isinstance(value, bool | int | float | str)
        },
        origin=Origin.of(source, weights, scan, settings.start, outcome.run, choice),
    )


def _compute(
    make: Callable[[Passes, Progress | None], T],
    source: Source,
    weights: Source | None,
    mixtures: Sequence[tuple[int, CovarianceType]],
    sample_rows: int,
    identity: Callable[[str], dict[str, Any]],
    directory: Address | None,
    observer: Observer,
) -> T:
    """Run steps where the client, or this process, computes, once the memory that they need is there."""

    def vet(scheduler: Scheduler) -> None:
        available = scheduler.memory_per_thread()
        plan = fit_plan(source, weights, mixtures, sample_rows)
        planned = check_plan(available, plan, source)
        per_thread = plan(Held.of(source))
        kept = keeping.plan(scheduler.processes(), per_thread, sample_rows)
        size = source.n_rows * source.n_features * source.dtype.itemsize
        observer.on_plan(Plan(planned, available, min(kept, size), size))
        check_readable(scheduler, source, weights)
        if directory is not None:
            warn_if_hidden(scheduler, directory)

    keeping = Keeping(source)
    with one_blas_thread(), scheduler_for(local=source.local, vet=vet) as scheduler:
        passes = Passes(
            source, weights, scheduler, lambda done: observer.on_rows(done, source.n_rows), keeping=keeping
        )
        try:
            return _durable(lambda progress: make(passes, progress), passes, identity, directory, observer)
        finally:
            keeping.end(scheduler)


def _durable(
    make: Callable[[Progress | None], T],
    passes: Passes,
    identity: Callable[[str], dict[str, Any]],
    directory: Address | None,
    observer: Observer,
) -> T:
    """Run steps, or go on with those in the directory: there, an event is on disk before it is told."""
    steps = make(None)
    if directory is None:
        for event in steps.events():
            observer.on_event(event)
        return steps
    content = ""
    if not passes.identified:
        # Only its content says whether a Dask graph, say, still gives the same rows.
        scanned = next(steps.events())
        assert isinstance(scanned, Scanned)  # noqa: S101
        content = scanned.scan.content
    with Checkpoint(directory, identity(content), environment()) as checkpoint:
        found = record.load(checkpoint)
        if steps.progress.scan is not None and found.scan is None:
            record.save(checkpoint, Scanned(steps.progress.scan))
            found = Progress(scan=steps.progress.scan)
        steps = make(found)
        for event in steps.events():
            record.save(checkpoint, event)
            observer.on_event(event)
    return steps
