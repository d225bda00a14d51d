"""What a notebook shows while a fit runs: how far it is, the curve of the log-likelihood, and when it may end."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from dask.utils import format_time

from dgmm.engine.events import Event, Iterated, Searched
from dgmm.engine.memory import Plan
from dgmm.engine.run import Observer
from dgmm.mixture.criteria import iterations_left
from dgmm.pages import polyline, render
from dgmm.progress import ProgressLog

_REFRESH_SECONDS = 0.5
_SIZE = (420, 110)


def watcher(verbose: int, every: int, tol: float) -> Observer | None:
    """What reports a fit: a display in a notebook, lines elsewhere, nothing where `verbose` is 0.

    Parameters
    ----------
    verbose : int
        2 adds the time that passes take to the lines.
    every : int
        Iterations between two lines.
    tol : float
        What ends the fit.
    """
    if not verbose:
        return None
    if in_notebook():
        return LiveDisplay(tol)
    return ProgressLog(every=every, timed=verbose > 1)


def in_notebook() -> bool:
    """Whether somebody looks at this process through a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class LiveDisplay:
    """An observer that keeps one output of a notebook's cell up to date.

    Its plain text, for what cannot show HTML, is the last lines of the log.

    Parameters
    ----------
    tol : float
        What EM may still gain when the fit ends, per row.
    """

    def __init__(self, tol: float) -> None:
        self._tol = tol
        self._text = io.StringIO()
        self._log = ProgressLog(stream=self._text)
        self._began = time.monotonic()
        self._pass_began = self._shown = self._began
        self._done = self._total = 0
        self._history: tuple[float, ...] = ()
        self._seconds: list[float] = []
        self._handle: Any = None

    def on_plan(self, plan: Plan) -> None:
        """Show what is planned."""
        self._log.on_plan(plan)
        self._show()

    def on_rows(self, done: int, total: int) -> None:
        """Move the bar, now and then."""
        if done < self._done or not self._done:
            self._pass_began = time.monotonic()
        self._done, self._total = done, total
        if time.monotonic() - self._shown >= _REFRESH_SECONDS:
            self._show()

    def on_event(self, event: Event) -> None:
        """Show what was found."""
        self._log.on_event(event)
        self._done = 0
        if isinstance(event, Iterated):
            self._history = event.best.state.history
            self._seconds.append(event.best.trace[-1].seconds if event.best.trace else 0.0)
        if not isinstance(event, Searched) or time.monotonic() - self._shown >= _REFRESH_SECONDS:
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        self._shown = time.monotonic()
        lines = self._text.getvalue().splitlines()
        bundle = {"text/plain": "\n".join(lines[-3:]), "text/html": self._page(lines)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def _page(self, lines: list[str]) -> str:
        return render(
            "live.html",
            state=lines[-1] if lines else "the first pass begins",
            elapsed=format_time(self._shown - self._began),
            share=self._done / self._total if self._total else 0.0,
            pass_ends=self._pass_ends(),
            fit_ends=self._fit_ends(),
            history=self._history,
            size=_SIZE,
            curve=polyline(self._history, *_SIZE, margin=6),
        )

    def _pass_ends(self) -> str:
        if not self._done:
            return ""
        elapsed = self._shown - self._pass_began
        return str(format_time(elapsed * (self._total - self._done) / self._done))

    def _fit_ends(self) -> str:
        """When EM may be as good as converged, by Aitken's estimate."""
        left = iterations_left(self._history, self._tol)
        if left is None:
            return ""
        recent = sorted(self._seconds[-5:])
        return f"{left} iterations, {format_time(left * recent[len(recent) // 2])}"
