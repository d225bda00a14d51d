"""SIGINT, SIGTERM and SIGUSR1 end the work in hand, as an exception in the main thread."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.resource_tracker
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from dgmm.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Some parents pass on a Ctrl-C that the terminal has sent already: only a later one means haste.
_ECHO_SECONDS = 2.0

_received: tuple[signal.Signals, float] | None = None


class StopRequested(BaseException):
    """A signal came. Not an `Exception`: a library that swallows those must not swallow this.

    Attributes
    ----------
    advice : str
        What would have kept something.
    """

    advice = ""


def listen() -> None:
    """Turn the first of the signals into `StopRequested`; a second Ctrl-C ends the process at once."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)
    # Python's helper process, which libraries start when they are imported, would die of SIGUSR1 and be missed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    multiprocessing.resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603  signals are process state
    if _received is None:
        _received = signal.Signals(number), time.monotonic()
        # A batch system signals the workers too: what is said about their end is of no use.
        logging.disable(logging.ERROR)
        check()
    elif number == signal.SIGINT and time.monotonic() - _received[1] > _ECHO_SECONDS:
        # Worker processes end when this one is gone.
        os._exit(128 + number)


def check() -> None:
    """Raise `StopRequested` if a signal has come: the first raise may have hit code that ignores exceptions."""
    if _received is not None:
        raise StopRequested(_received[0].name)


@contextlib.contextmanager
def resumable(advice: Callable[[], str]) -> Iterator[None]:
    """Meanwhile a signal leaves a state from which the same command goes on.

    Parameters
    ----------
    advice : callable
        Says what is on disk.

    Raises
    ------
    Interrupted
        A signal came.
    """
    try:
        yield
    except StopRequested as stop:
        msg = f"stopped by {stop}. {advice()} Run the same command again to go on."
        raise Interrupted(msg) from stop


def report(stop: StopRequested) -> int:
    """Say that a signal came and nothing was kept, and give the exit code."""
    sys.stderr.write(f"Stopped by {stop}: nothing was kept. {stop.advice}".rstrip() + "\n")
    return 1
