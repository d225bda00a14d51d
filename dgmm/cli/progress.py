"""What a person sees on standard error while a command computes."""

from __future__ import annotations

import sys

from dgmm.cli import signals
from dgmm.engine.events import Event
from dgmm.progress import ProgressLog


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
    """Lines for what is durable; notices a signal, at the latest when something is found.

    Attributes
    ----------
    idle : bool
        Nothing has been found: all was there already.
    """

    def __init__(self) -> None:
        super().__init__(stream=sys.stderr)
        self.idle = True

    def on_event(self, event: Event) -> None:
        """Show it, unless a signal has come."""
        self.idle = False
        super().on_event(event)
        signals.check()
