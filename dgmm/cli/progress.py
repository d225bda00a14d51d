"""What a person sees on standard error while a command computes."""

from __future__ import annotations

import sys
import time

from dgmm.cli import signals
from dgmm.engine.fit import Event, Stepped
from dgmm.progress import ProgressLog

_REFRESH_SECONDS = 0.2


class RowsLog(ProgressLog):
    """Shows the rows of a pass: live on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        super().__init__(stream=sys.stderr)

    def __call__(self, done: int, total: int) -> None:
        """Hear of rows done so far."""
        self.on_rows(done, total)
        if self._live and done >= total:
            self._stream.write("\r\x1b[K")


class FitLog(ProgressLog):
    """Lines for what is durable; iterations on the sample, which are many and short, only pass by on a terminal.

    It also notices a signal, at the latest when something is found.
    """

    def __init__(self) -> None:
        super().__init__(stream=sys.stderr)
        self._stepped = 0.0

    def on_event(self, event: Event) -> None:
        """Show it, unless a signal has come."""
        if isinstance(event, Stepped):
            self._on_step(event)
        else:
            super().on_event(event)
        signals.check()

    def _on_step(self, step: Stepped) -> None:
        now = time.monotonic()
        if self._live and now - self._stepped > _REFRESH_SECONDS:
            self._stepped = now
            text = f"start {step.index + 1}, iteration {step.state.n_iter}: {step.state.log_likelihood:.9g}"
            self._stream.write(f"\r\x1b[K  {text}")
            self._stream.flush()
