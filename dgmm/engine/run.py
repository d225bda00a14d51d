"""A fit from its data to its model: memory plan, checkpoints, progress."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dgmm.data.source import Source
from dgmm.engine import record
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.checkpoint import Checkpoint, environment
from dgmm.engine.fit import Event, Fit, Outcome, Progress, Scanned
from dgmm.engine.memory import check_plan, thread_bytes
from dgmm.engine.model import Model
from dgmm.engine.passes import Passes
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.settings import Settings


class Observer(Protocol):
    """Watches a fit; whatever it raises stops the fit, with the last state on disk."""

    def on_plan(self, planned_bytes: int, available_bytes: int | None) -> None:
        """The memory plan of a worker thread has been made."""

    def on_rows(self, done: int, total: int) -> None:
        """So many rows of the running pass are done."""

    def on_event(self, event: Event) -> None:
        """Something was found; with a checkpoint, it is on disk."""


class Silence:
    """An observer that does nothing."""

    def on_plan(self, planned_bytes: int, available_bytes: int | None) -> None:
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
    checkpoint: str | Path | None = None,
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
        The directory in which every finished start and every iteration is made durable.
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
    observer = observer or Silence()
    if not seed_is_given:
        recorded = Checkpoint.recorded_identity(checkpoint) if checkpoint is not None else None
        settings = replace(settings, seed=recorded["seed"] if recorded else secrets.randbits(32))
    with one_blas_thread(), scheduler_for(local=source.local) as scheduler:
        mixtures = [(settings.n_components, settings.covariance)] * settings.n_finalists
        per_thread = thread_bytes(source, weights, mixtures, settings.sample_rows(source))
        planned = check_plan(scheduler, per_thread, source.name)
        observer.on_plan(planned, scheduler.memory_per_thread())
        passes = Passes(source, weights, scheduler, lambda done: observer.on_rows(done, source.n_rows))
        fit = _run(passes, settings, checkpoint, observer)
    outcome = fit.outcome()
    scan = fit.progress.scan
    assert scan is not None  # noqa: S101  it comes first
    model = Model(
        parameters=outcome.run.state.parameters,
        frame=scan.frame,
        dtype=source.dtype,
        radius_squared=scan.radius_squared,
        converged=outcome.converged,
        trace=outcome.run.trace,
        n_passes=outcome.n_passes,
        n_rows=scan.n_rows,
        weight=scan.weight,
        settings={"seed": settings.seed},
    )
    return model, outcome


def _run(passes: Passes, settings: Settings, directory: str | Path | None, observer: Observer) -> Fit:
    fit = Fit(passes, settings)
    if directory is None:
        _watch(fit, observer.on_event)
        return fit
    content = ""
    if passes.delayed:
        # Only its content says whether a Dask graph still gives the same rows.
        scanned = next(fit.events())
        assert isinstance(scanned, Scanned)  # noqa: S101
        content = scanned.scan.content
    identity = record.identity(passes.source, passes.weights, settings, settings.seed, content)
    with Checkpoint(directory, identity, environment()) as checkpoint:
        found = record.load(checkpoint)
        if fit.progress.scan is not None and found.scan is None:
            record.save(checkpoint, Scanned(fit.progress.scan))
            found = Progress(scan=fit.progress.scan)
        fit = Fit(passes, settings, found)

        def keep(event: Event) -> None:
            record.save(checkpoint, event)
            observer.on_event(event)

        _watch(fit, keep)
    return fit


def _watch(fit: Fit, on_event: Callable[[Event], None]) -> None:
    for event in fit.events():
        on_event(event)
