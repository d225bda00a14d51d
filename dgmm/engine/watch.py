"""Watches scheduler and workers: who is silent for too long is noticed, nothing waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NoReturn

import dask
from dask.utils import format_time, parse_timedelta

from dgmm.errors import ClusterError, SchedulerLost

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
# A connection that a fault of the network broke is there again sooner.
_RECONNECT_SECONDS = 2.0
_SAY_AGAIN_SECONDS = 60.0
# What a nanny gets to end its worker, which takes 5 s if that is stopped.
_RESTART_SECONDS = 10.0
_DEFAULTS = {"worker-timeout": "1 h", "heartbeat-timeout": "30 s", "scheduler-timeout": "30 s"}
_log = logging.getLogger(__name__)

Request = Callable[[], Coroutine[Any, Any, Any]]


class Watch:
    """Asks the scheduler, with an end to its patience, and looks after the workers.

    Dask settings: after ``dgmm.scheduler-timeout`` without an answer the scheduler is given up, after
    ``dgmm.heartbeat-timeout`` without a heartbeat a worker is started again, and after ``dgmm.worker-timeout``
    without any worker a run ends.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.address = client.scheduler.address if client.scheduler else "an address that is gone"
        self._looked = time.monotonic()
        # Of each worker: when the scheduler heard of it last, by its own clock, and for how long it has not since.
        self._heard: dict[str, tuple[float, float]] = {}

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """What the scheduler knows of each worker, by address.

        Raises
        ------
        SchedulerLost
        """
        identity: Mapping[str, Any] = self._ask(lambda: self._client.scheduler.identity(n_workers=-1))
        workers: Mapping[str, Mapping[str, Any]] = identity["workers"]
        return workers

    def wait(self, request: Request) -> Any:
        """What a request returns, however long workers take for it.

        Raises
        ------
        SchedulerLost, ClusterError
        """
        self._connected()
        return self._result(request, self.look)

    def look(self) -> None:
        """Notice, now and then, who is gone or silent.

        Raises
        ------
        SchedulerLost
            It does not answer.
        ClusterError
            There has been no worker for too long.
        """
        self._connected()
        elapsed = time.monotonic() - self._looked
        if elapsed < _LOOK_SECONDS:
            return
        workers = self.workers()
        self._looked = time.monotonic()
        if not workers:
            self.wait_for_workers()
        # A driver or a scheduler that was stopped itself must not take its own silence for theirs.
        elapsed = min(elapsed, 2 * _LOOK_SECONDS)
        heard = {address: worker["last_seen"] for address, worker in workers.items()}
        self._heard = {
            address: (seen, self._heard[address][1] + elapsed)
            if self._heard.get(address, (None,))[0] == seen
            else (seen, 0.0)
            for address, seen in heard.items()
        }
        limit = _limit("heartbeat-timeout")
        silent = [address for address, (_, seconds) in self._heard.items() if seconds > limit]
        if silent:
            self._restart(silent, limit)

    def _restart(self, silent: Iterable[str], limit: float) -> None:
        """Have nannies end silent workers; what these held or ran is computed again elsewhere."""
        addresses = list(silent)
        _log.warning("no heartbeat for %s: restarting worker %s", format_time(limit), ", ".join(addresses))
        # As distributed's own worker-ttl does: a worker without a nanny, or whose nanny is silent too, is removed.
        self._ask(
            lambda: self._client.scheduler.restart_workers(
                workers=addresses,
                timeout=_RESTART_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"dgmm-silent-workers-{time.time()}",
            ),
            more=2 * _RESTART_SECONDS,
        )

    def wait_for_workers(self) -> None:
        """Workers may be jobs in a queue: waiting for the first is no fault, until it takes too long.

        Raises
        ------
        SchedulerLost, ClusterError
        """
        if self.workers():
            return
        limit = _limit("worker-timeout")
        began = said = time.monotonic()
        _log.warning("no worker at %s: waiting for one, %s at most", self.address, format_time(limit))
        while not self.workers():
            now = time.monotonic()
            if now - began > limit:
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
