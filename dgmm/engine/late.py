"""On the scheduler: which workers and which leaf tasks are late, in answers that do not grow with the cluster."""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

# What passes call a leaf, whose pass it is, and the attempt.
_LEAF = re.compile(r"(dgmm-.+-leaf)-\d+-(dgmm-[0-9a-f]+-[0-9a-f]+)-[0-9a-f]+")
_TIMES_MEDIAN = 10
# While no leaf of the kind has finished nobody knows how long one takes: so many times the least limit.
_TIMES_UNKNOWN = 60
_REMEMBERED = 100


class Late(SchedulerPlugin):  # type: ignore[misc]
    """Answers `dgmm_late` and `dgmm_restart`; remembers what the last leaves of each kind took.

    An answer lists those that are late by half their limit. Whoever asks waits for the other half in its own time:
    after a scheduler or a driver was stopped, all would seem to be late.
    """

    name = "dgmm-late"
    idempotent = True

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], deque[float]] = {}
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Serve."""
        self._scheduler = scheduler
        scheduler.handlers.update(dgmm_late=self.late, dgmm_restart=self.restart_innocent)

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **more: Any) -> None:
        """Remember how long a leaf took that has finished."""
        if start != "processing" or finish != "memory" or not (kind := _kind(key)):
            return
        took = sum(part["stop"] - part["start"] for part in more["startstops"] if part["action"] == "compute")
        while kind not in self._seconds and len(self._seconds) >= _REMEMBERED:
            del self._seconds[next(iter(self._seconds))]
        self._seconds.setdefault(kind, deque(maxlen=_REMEMBERED)).append(took)

    def late(self, heartbeat: float, leaf: float, topic: str, hung: Mapping[str, int]) -> dict[str, Any]:
        """What a driver wants to know each second.

        Parameters
        ----------
        heartbeat : float
            Limit of seconds without one.
        leaf : float
            Least limit of seconds for a leaf.
        topic : str
            Whose leaves.
        hung : dict
            How often a leaf has hung: it gets twice as long each time.

        Returns
        -------
        dict
            How many ``workers`` and ``threads`` there are; ``silent``: address and time of the last heartbeat;
            ``leaves``: key, address, limit, and the median of its kind or None.
        """
        now = time.time()
        workers = self._scheduler.workers.values()
        leaves = []
        for worker in workers:
            for task, seconds in worker.executing.items():
                kind = _kind(task.key)
                if kind and kind[1] == topic and task.processing_on is worker and seconds > leaf / 2:
                    median = statistics.median(self._seconds[kind]) if kind in self._seconds else None
                    usual = leaf * _TIMES_UNKNOWN if median is None else _TIMES_MEDIAN * median
                    limit = max(leaf, usual) * 2 ** hung.get(task.key, 0)
                    if seconds > limit / 2:
                        leaves.append([task.key, worker.address, limit, median])
        silent = {w.address: w.last_seen for w in workers if now - w.last_seen > heartbeat / 2}
        threads = sum(worker.nthreads for worker in workers)
        return {"workers": len(workers), "threads": threads, "silent": silent, "leaves": leaves}

    async def restart_innocent(self, workers: Iterable[str], **how: Any) -> Any:
        """As `restart_workers`, but that these workers end is not held against the tasks that they have."""
        for address in workers:
            if worker := self._scheduler.workers.get(address):
                for task in worker.processing:
                    task.suspicious -= 1
        return await self._scheduler.restart_workers(workers=list(workers), **how)


def _kind(key: Any) -> tuple[str, ...] | None:
    found = _LEAF.fullmatch(key) if isinstance(key, str) else None
    return found and found.groups()
