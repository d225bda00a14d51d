"""Tells a person how a fit is going: plain lines, or one line that moves on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dask.utils import format_bytes, format_time

from dgmm.engine.fit import Event, Iterated, Restarted, Scanned, Stepped

_REFRESH_SECONDS = 0.2


class ProgressLog:
    """An observer that writes lines.

    Parameters
    ----------
    every : int
        Write every so many iterations; starts and the scan always.
    timed : bool
        Add rows/s and the time of a pass; show the rows of the running pass on a terminal.
    stream : file, optional
        Standard output by default.
    """

    def __init__(self, *, every: int = 1, timed: bool = True, stream: TextIO | None = None) -> None:
        self._every = every
        self._timed = timed
        self._stream = stream or sys.stdout
        self._live = timed and self._stream.isatty()
        self._began = self._shown = time.monotonic()
        self._total = 0

    def on_plan(self, planned_bytes: int, available_bytes: int | None) -> None:
        limit = "no limit" if available_bytes is None else f"limit {format_bytes(available_bytes)}"
        if self._timed:
            self._line(f"memory planned for a worker thread: {format_bytes(planned_bytes)} ({limit})")

    def on_rows(self, done: int, total: int) -> None:
        self._total = total
        now = time.monotonic()
        if not self._live or now - self._shown < _REFRESH_SECONDS or not done:
            return
        self._shown = now
        elapsed = now - self._began
        left = elapsed * max(total - done, 0) / done
        self._stream.write(
            f"\r\x1b[K  {done / total:5.0%}  {done / elapsed:,.0f} rows/s  pass ends in {format_time(left)}"
        )
        self._stream.flush()

    def on_event(self, event: Event) -> None:
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        match event:
            case Scanned(scan):
                text = f"scan: {scan.n_rows:,} rows, sample of {len(scan.rows):,}"
                self._line(text + self._pace(scan.n_rows, seconds))
            case Stepped(index, state):
                if state.n_iter % self._every == 0:
                    self._line(f"start {index + 1}, iteration {state.n_iter}: {_gain(state.history)}")
            case Restarted(index, restart):
                note = f", failed: {restart.failed}" if restart.failed else ""
                note += f", collapsed components {list(restart.collapsed)}" if restart.collapsed else ""
                state = restart.state
                self._line(
                    f"start {index + 1} done on the sample: {state.n_iter} iterations, "
                    f"log-likelihood {state.log_likelihood:.9g}{note}"
                )
            case Iterated(state):
                if state.n_iter % self._every == 0:
                    text = f"iteration {state.n_iter}: {_gain(state.history)}"
                    self._line(text + self._pace(self._total, seconds))

    def _pace(self, rows: int, seconds: float) -> str:
        if not self._timed or not rows:
            return ""
        return f", {format_time(seconds)} a pass, {rows / max(seconds, 1e-9):,.0f} rows/s"

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()


def _gain(history: tuple[float, ...]) -> str:
    text = f"log-likelihood {history[-1]:.9g}"
    return text if len(history) < 2 else f"{text} ({history[-1] - history[-2]:+.3g})"
