"""Tells a person how a fit is going: plain lines, or one line that moves on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dask.utils import format_bytes, format_time

from dgmm.engine.events import Event, Iterated, Judged, Scanned, Searched
from dgmm.engine.memory import Plan

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

    def on_plan(self, plan: Plan) -> None:
        if not self._timed:
            return
        limit = "no limit" if plan.available_bytes is None else f"limit {format_bytes(plan.available_bytes)}"
        self._line(f"memory planned for a worker thread: {format_bytes(plan.thread_bytes)} ({limit})")
        if plan.kept_bytes:
            whole = plan.kept_bytes == plan.data_bytes
            kept = "the data" if whole else f"{format_bytes(plan.kept_bytes)} of the data"
            self._line(f"{kept} ({format_bytes(plan.data_bytes)}) stay in memory after the first pass")

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
                text = f"scan: {scan.n_rows:,} rows, sample of {len(scan.rows):,}{left_out(scan.n_missing)}"
                self._line(text + self._pace(scan.n_rows, seconds))
            case Searched(name, run):
                note = f", failed: {run.failed}" if run.failed else ""
                note += f", collapsed components {list(run.collapsed)}" if run.collapsed else ""
                self._line(
                    f"sample, {spoken(name)}: {run.state.n_iter} iterations, "
                    f"log-likelihood {run.state.log_likelihood:.9g}{note}"
                )
            case Iterated(finalists):
                if event.n_iter % self._every == 0:
                    running = sum(run.state.n_iter == event.n_iter for run in finalists.values())
                    text = f"iteration {event.n_iter}: {_gain(event.best.state.history)}"
                    text += f", {running} at work" if len(finalists) > 1 else ""
                    self._line(text + self._pace(self._total, seconds))
            case Judged(criteria):
                self._line(f"criteria of {len(criteria)} candidates" + self._pace(self._total, seconds))

    def _pace(self, rows: int, seconds: float) -> str:
        if not self._timed or not rows:
            return ""
        return f", {format_time(seconds)} a pass, {rows / max(seconds, 1e-9):,.0f} rows/s"

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()


def spoken(name: str) -> str:
    """The name of a run as people count: start-0003-1 is start 4, full-0003 three components."""
    kind, number, *rest = name.split("-")
    words = {
        "start": f"start {int(number) + 1}",
        "last": f"start {int(number) + 1} to the end",
        "move": f"split-and-merge round {int(rest[0]) + 1} of start {int(number) + 1}" if rest else "",
    }
    return words.get(kind) or f"{int(number)} components, {kind}"


def left_out(n_missing: int) -> str:
    """How messages say that rows were left out."""
    return f", {n_missing:,} rows with a missing value left out" if n_missing else ""


def _gain(history: tuple[float, ...]) -> str:
    text = f"log-likelihood {history[-1]:.9g}"
    return text if len(history) < 2 else f"{text} ({history[-1] - history[-2]:+.3g})"
