"""Passes that write something of each row: the units of an output that are missing, and only those."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dgmm.data.row_output import RowOutput
from dgmm.data.source import Source
from dgmm.engine.passes import Passes, Work
from dgmm.engine.scheduler import Scheduler


def write_missing(
    source: Source,
    output: RowOutput,
    work: Work,
    scheduler: Scheduler,
    on_rows: Callable[[int, int], None],
) -> int:
    """Write what is missing of an output, and mark it complete.

    Parameters
    ----------
    source : Source
        With a row for each of the output's.
    output : RowOutput
    work : Work
        Writes a block, which is a unit of the output, and adds up rows written.
    scheduler : Scheduler
    on_rows : callable
        Hears of rows written so far, and of rows to write.

    Returns
    -------
    int
        Rows written.
    """
    stretches = _stretches(output.missing_units())
    to_write = sum(int(bounds[-1] - bounds[0]) for bounds in stretches)
    written = 0
    for bounds in stretches:

        def count(done: int, before: int = written) -> None:
            on_rows(before + done, to_write)

        written += int(Passes(source.rows(bounds), None, scheduler, count).run(work))
    output.finish()
    return written


def _stretches(units: list[tuple[int, int]]) -> list[NDArray[np.int64]]:
    """Bounds of the units, a list for each stretch without a gap; an interrupted run leaves few."""
    stretches: list[list[int]] = []
    for start, stop in units:
        if stretches and stretches[-1][-1] == start:
            stretches[-1].append(stop)
        else:
            stretches.append([start, stop])
    return [np.array(bounds, dtype=np.int64) for bounds in stretches]
