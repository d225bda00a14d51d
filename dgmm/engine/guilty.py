"""Errors that name the task which ends a run, or the rows that it reads."""

from __future__ import annotations

from dask.utils import format_time

from dgmm.errors import DeadlyTask, HangingTask

_AFTER = "The last state is in the checkpoint, if there is one"


def deadly(task: str, deaths: int, culprit: str = "") -> DeadlyTask:
    """An error that says of what workers die; `culprit` is the beginning of the sentence."""
    error = DeadlyTask(
        f"{culprit or f'the task {task} ends'} every worker that computes it: {deaths} died, the last of them "
        "while nothing else ran. Not enough memory, a damaged chunk or a fault in a library may be why: look at "
        f"the logs of the workers. {_AFTER}; mend the cause, and run the same fit again."
    )
    error.task, error.deaths = task, deaths
    return error


def hanging(task: str, workers: tuple[str, ...], seconds: float, culprit: str = "") -> HangingTask:
    """An error that says what does not end, on which workers, at last after so many seconds."""
    error = HangingTask(
        f"{culprit or f'the task {task} hangs'} on every worker that tries: on {', '.join(workers)}, at last for "
        f"{format_time(seconds)}. A file system or an object store that does not answer may be why: look whether "
        f"the data can be read there. {_AFTER}; mend the cause, and run the same fit again, with a larger "
        "dgmm.leaf-timeout (a Dask setting) if this takes so long by its nature."
    )
    error.task, error.workers, error.seconds = task, workers, seconds
    return error


def naming_rows(error: DeadlyTask | HangingTask, start: int, stop: int, data: str) -> DeadlyTask | HangingTask:
    """The same error, about rows."""
    rows = f"rows {start}:{stop} of {data}"
    found = (
        deadly(error.task, error.deaths, f"{rows} end")
        if isinstance(error, DeadlyTask)
        else hanging(error.task, error.workers, error.seconds, f"{rows} hang")
    )
    found.rows = start, stop
    return found
