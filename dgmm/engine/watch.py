"""Watches scheduler, workers and leaves: who is late for too long is noticed, nothing waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import dask
from dask.utils import format_time, parse_timedelta

from dgmm.engine.guilty import hanging as hanging_error
from dgmm.engine.late import Late
from dgmm.errors import ClusterError, HangingTask, SchedulerLost

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
# A connection that a fault of the network broke is there again sooner.
_RECONNECT_SECONDS = 2.0
_SAY_AGAIN_SECONDS = 60.0
# What a nanny gets to end its worker, which takes 5 s if that is stopped.
_RESTART_SECONDS = 10.0
# So many workers have to hang on a leaf, each for twice as long as the one before.
_HANGS = 3
_DEFAULTS = {
    "worker-timeout": "1 h",
    "heartbeat-timeout": "30 s",
    "leaf-timeout": "60 s",
    "scheduler-timeout": "30 s",
}
_log = logging.getLogger(__name__)

Request = Callable[[], Coroutine[Any, Any, Any]]


class Watch:
    """Asks the scheduler, with an end to its patience, and looks after the workers.

    Dask settings: after ``dgmm.scheduler-timeout`` without an answer the scheduler is given up, after
    ``dgmm.heartbeat-timeout`` without a heartbeat a worker is started again, and after ``dgmm.worker-timeout``
    without any worker a run ends. A leaf that takes ten times as long as most, and at least ``dgmm.leaf-timeout``,
    is computed by another worker.

    Parameters
    ----------
    client : distributed.Client
    topic : str
        What the keys of our leaves have in them.
    """

    def __init__(self, client: Any, topic: str = "") -> None:
        self._client = client
        self._topic = topic
        self.address = client.scheduler.address if client.scheduler else "an address that is gone"
        self._looked = time.monotonic()
        self._served = False
        # For how long we have seen someone or something be late.
        self._waited: dict[Hashable, float] = {}
        # Of leaves of this attempt that hung, by key.
        self._hung: dict[str, HangingTask] = {}

    def begin(self) -> None:
        """Another attempt: none of its leaves has hung."""
        self._hung.clear()

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """What the scheduler knows of each worker, by address.

        Raises
        ------
        SchedulerLost
        """
        identity: Mapping[str, Any] = self._ask(lambda: self._client.scheduler.identity(n_workers=-1))
        workers: Mapping[str, Mapping[str, Any]] = identity["workers"]
        return workers

    def total(self, of: Literal["workers", "threads"]) -> int:
        """How many workers, or threads of all workers, there are.

        Raises
        ------
        SchedulerLost
        """
        total: int = self._ask(self._late)[of]
        return total

    def wait(self, request: Request) -> Any:
        """What a request returns, however long workers take for it.

        Raises
        ------
        SchedulerLost, ClusterError
        """
        self._connected()
        return self._result(request, self.look)

    def look(self) -> None:
        """Notice, now and then, who is gone or silent, and which leaf hangs.

        Raises
        ------
        SchedulerLost
            It does not answer.
        ClusterError
            There has been no worker for too long.
        HangingTask
            A leaf has hung too often.
        """
        self._connected()
        elapsed = time.monotonic() - self._looked
        if elapsed < _LOOK_SECONDS:
            return
        late = self._ask(self._late)
        self._looked = time.monotonic()
        if not late["workers"]:
            self.wait_for_workers()
        # A driver or a scheduler that was stopped itself must not take its own silence for theirs.
        elapsed = min(elapsed, 2 * _LOOK_SECONDS)
        limit = _limit("heartbeat-timeout")
        limits: dict[Hashable, float] = {("silent", *worker): limit for worker in late["silent"].items()}
        limits |= {("leaf", key, address): seconds for key, address, seconds, _ in late["leaves"]}
        self._waited = {what: self._waited.get(what, -elapsed) + elapsed for what in limits}
        over = {what for what, seconds in self._waited.items() if seconds > limits[what] / 2}
        for what in over:
            del self._waited[what]
        silent = [address for address, seen in late["silent"].items() if ("silent", address, seen) in over]
        if silent:
            _log.warning("no heartbeat for %s: restarting worker %s", format_time(limit), ", ".join(silent))
            self._restart(self._client.scheduler.restart_workers, silent)
        hanging = [leaf for leaf in late["leaves"] if ("leaf", *leaf[:2]) in over]
        if hanging:
            self._free(hanging)

    async def _late(self) -> Mapping[str, Any]:
        """Who is late, by the scheduler's `Late`: the identities of all workers would be long, each second."""
        while True:
            late: Mapping[str, Any] | None = None
            if self._served:
                late = await self._client.scheduler.dgmm_late(
                    heartbeat=_limit("heartbeat-timeout"),
                    leaf=_limit("leaf-timeout"),
                    topic=self._topic,
                    hung={key: len(error.workers) for key, error in self._hung.items()},
                )
            if late is not None:
                return late
            await self._client.register_plugin(Late())  # the first time, or the scheduler is another one
            self._served = True

    def _free(self, hanging: Sequence[tuple[str, str, float, float | None]]) -> None:
        """Take leaves from the workers that they hang on: the scheduler gives them to others."""
        for key, address, seconds, median in hanging:
            name = key.partition(f"-{self._topic}-")[0]
            usual = "none has finished yet" if median is None else f"others take {format_time(median)}"
            _log.warning(
                "%s has not ended for %s on %s (%s): restarting this worker, the leaf is computed elsewhere",
                name, format_time(seconds), address, usual,
            )  # fmt: skip
            before = self._hung[key].workers if key in self._hung else ()
            self._hung[key] = hanging_error(name, (*before, address), seconds)
        self._restart(self._client.scheduler.dgmm_restart, [address for _, address, *_ in hanging])
        for error in self._hung.values():
            if len(error.workers) == _HANGS:
                raise error

    def _restart(self, restart: Callable[..., Coroutine[Any, Any, Any]], workers: list[str]) -> None:
        """Have nannies end workers; what these held or ran is computed again elsewhere."""
        # As distributed's own worker-ttl does: a worker without a nanny, or whose nanny is silent too, is removed.
        self._ask(
            lambda: restart(
                workers=workers,
                timeout=_RESTART_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"dgmm-late-workers-{time.time()}",
            ),
            more=2 * _RESTART_SECONDS,
        )

    def wait_for_workers(self) -> None:
        """Workers may be jobs in a queue: waiting for the first is no fault, until it takes too long.

        Raises
        ------
        SchedulerLost, ClusterError
        """
        if self.total("workers"):
            return
        limit = _limit("worker-timeout")
        began = said = time.monotonic()
        _log.warning("no worker at %s: waiting for one, %s at most", self.address, format_time(limit))
        while not self.total("workers"):
            now = time.monotonic()
            if now - began > limit:
                for error in self._hung.values():
                    raise error  # this is why there is none
                msg = (
                    f"no worker joined {self.address} within {format_time(limit)}. Check the queue of the cluster "
                    "and the logs of its jobs, or raise workers.wait of its file (the Dask setting "
                    "dgmm.worker-timeout). The last state is in the checkpoint, if there is one."
                )
                raise ClusterError(msg)
            if now - said > _SAY_AGAIN_SECONDS:
                said = now
                _log.warning("still no worker at %s after %s", self.address, format_time(now - began))
            time.sleep(_POLL_SECONDS)
        _log.warning("workers have joined %s after %s", self.address, format_time(time.monotonic() - began))

    def _ask(self, request: Request, more: float = 0.0) -> Any:
        """The scheduler's answer."""
        limit = _limit("scheduler-timeout") + more
        began = time.monotonic()

        def patience() -> None:
            self._connected()
            if time.monotonic() - began > limit:
                self._give_up(f"has not answered for {format_time(limit)}")

        while True:
            patience()
            try:
                return self._result(request, patience)
            except OSError:  # the connection broke: it may be there again in a moment
                time.sleep(_POLL_SECONDS)

    def _result(self, request: Request, meanwhile: Callable[[], None]) -> Any:
        """What a request returns; short waits let signal handlers run."""
        asked = asyncio.run_coroutine_threadsafe(request(), self._client.loop.asyncio_loop)
        try:
            while not concurrent.futures.wait([asked], _POLL_SECONDS).done:
                meanwhile()
            return asked.result()
        finally:
            asked.cancel()

    def _connected(self) -> None:
        """Wait a moment for a connection that broke."""
        began = time.monotonic()
        while self._client.status != "running" or self._client.scheduler is None:
            ended = self._client.status in ("closing", "closed")
            if ended or time.monotonic() - began > _RECONNECT_SECONDS:
                self._give_up("is gone")
            time.sleep(_POLL_SECONDS)

    def _give_up(self, why: str) -> NoReturn:
        msg = (
            f"the scheduler at {self.address} {why}. The last state is in the checkpoint, if there is one; look "
            "at the scheduler's log, then run the same fit again."
        )
        raise SchedulerLost(msg)


def _limit(name: str) -> float:
    return float(parse_timedelta(dask.config.get(f"dgmm.{name}", _DEFAULTS[name])))
