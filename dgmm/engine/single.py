"""A single pass over some data: it chooses where to run and names what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dgmm.data.source import Source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.passes import Passes, Work
from dgmm.engine.reach import check_readable
from dgmm.engine.scheduler import Scheduler
from dgmm.engine.scheduling import scheduler_for
from dgmm.engine.validity import naming_chunks


def single_pass(
    source: Source,
    weights: Source | None,
    work: Work,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Any:
    """The sum of the work's results over all rows, on the active Dask client if there is one.

    Parameters
    ----------
    source, weights : Source
    work : Work
    on_rows : callable
        Hears of rows done so far, and of all rows.

    Raises
    ------
    UnreachablePath, NonFiniteData, InvalidWeights, ClusterError
    """

    def vet(scheduler: Scheduler) -> None:
        check_readable(scheduler, source, weights)

    with one_blas_thread(), naming_chunks(source), scheduler_for(local=source.local, vet=vet) as scheduler:
        return Passes(source, weights, scheduler, lambda done: on_rows(done, source.n_rows)).run(work)
