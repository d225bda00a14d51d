"""The active `distributed.Client` as the place where passes run: losses are retried, waiting is bounded."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask
from dask.delayed import Delayed, delayed
from dask.utils import format_time, parse_timedelta

from dgmm.engine.blas import limit_worker_blas
from dgmm.engine.scheduling import Build, Scheduler, Task
from dgmm.errors import ClusterError

_ATTEMPTS = 4
_POLL_SECONDS = 0.5
_SAY_AGAIN_SECONDS = 60.0
_log = logging.getLogger(__name__)


class _TopicReporter:
    """Sends progress from a worker by way of the scheduler's event log."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._rows = 0
        self._sent = time.monotonic()

    def __call__(self, rows: int) -> None:
        self._rows += rows
        if time.monotonic() - self._sent > _POLL_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what has not been sent."""
        from distributed import get_worker

        if self._rows:
            get_worker().log_event(self._topic, self._rows)
        self._rows, self._sent = 0, time.monotonic()


class DistributedScheduler(Scheduler):
    """The active `distributed.Client`."""

    task_seconds = 0.5

    def __init__(self, client: Any) -> None:
        self.client = client
        self._topic = f"dgmm-{id(self):x}-{time.time_ns():x}"
        self._wait_for_workers()

    @property
    def n_threads(self) -> int:  # type: ignore[override]
        return max(int(sum(self._workers().values())), 1)

    def _workers(self) -> dict[str, int]:
        """Threads of each worker."""
        # A client that lost its scheduler has none to ask.
        if self.client.status not in ("running", "connecting") or self.client.scheduler is None:
            raise _gone(self.client)
        found: dict[str, int] = self.client.nthreads()
        return found

    def _wait_for_workers(self) -> None:
        """Workers may be jobs in a queue: waiting for the first is no fault, until it takes too long."""
        if self._workers():
            return
        limit = parse_timedelta(dask.config.get("dgmm.worker-timeout", "1 h"))
        address = self.client.scheduler.address
        began = said = time.monotonic()
        _log.warning("no worker at %s: waiting for one, %s at most", address, format_time(limit))
        while not self._workers():
            now = time.monotonic()
            if now - began > limit:
                msg = (
                    f"no worker joined {address} within {format_time(limit)}. Check the queue of the cluster and "
                    "the logs of its jobs, or raise workers.wait of its file (the Dask setting "
                    "dgmm.worker-timeout). The last state is in the checkpoint, if there is one."
                )
                raise ClusterError(msg)
            if now - said > _SAY_AGAIN_SECONDS:
                said = now
                _log.warning("still no worker at %s after %s", address, format_time(now - began))
            with contextlib.suppress(TimeoutError):
                self.client.wait_for_workers(1, timeout=min(limit, _POLL_SECONDS))
        _log.warning("workers have joined %s after %s", address, format_time(time.monotonic() - began))

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        self.client.subscribe_topic(self._topic, lambda event: on_rows(event[1]))
        try:
            for attempt in range(_ATTEMPTS):
                with self._retrying(attempt):
                    future = self._submit(build(self._token()))
                    for done in self._as_completed([future]):
                        return done.result()
        finally:
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(self._topic)
        raise AssertionError

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        missing = dict(enumerate(arguments))
        for attempt in range(_ATTEMPTS):
            with self._retrying(attempt):
                token = self._token()
                # A task and not scattered data: if its holder dies, the scheduler computes it again.
                held = delayed(_itself, pure=False, traverse=False)(shared, dask_key_name=f"dgmm-shared-{token}")
                numbers = {
                    self._submit(
                        delayed(_call, pure=False, traverse=False)(
                            task, held, argument, dask_key_name=f"dgmm-{task.__name__}-{number}-{token}"
                        )
                    ): number
                    for number, argument in missing.items()
                }
                for done in self._as_completed(list(numbers)):
                    value = done.result()
                    done.release()  # else it is computed again if its holder dies
                    del missing[numbers[done]]
                    yield numbers[done], value
                return

    def _token(self) -> str:
        return f"{self._topic}-{time.time_ns():x}"

    @contextlib.contextmanager
    def _retrying(self, attempt: int) -> Iterator[None]:
        """Let a loss pass, unless it was the last attempt or the cluster is gone."""
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            yield
        except (KilledWorker, CommClosedError, TimeoutError, _LostPass) as error:
            if self.client.status != "running" or attempt == _ATTEMPTS - 1:
                raise _gone(self.client, error) from error

    def _submit(self, root: Delayed) -> Any:
        with warnings.catch_warnings():
            # Large K x D: the parameters are part of the graph so that the scheduler can recompute them.
            warnings.filterwarnings("ignore", message="Sending large graph")
            return self.client.compute(root)

    def _as_completed(self, futures: Sequence[Any]) -> Iterator[Any]:
        """Yield each future when it is done; whatever goes wrong cancels the others."""
        from distributed import wait

        waiting = list(futures)
        try:
            while waiting:
                # Short waits let signal handlers run and notice a cluster that is gone.
                with contextlib.suppress(TimeoutError):
                    wait(waiting, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
                for future in [f for f in waiting if f.done()]:
                    if future.status in ("cancelled", "lost"):
                        raise _LostPass(future.status)
                    waiting.remove(future)
                    yield future
                if waiting and self.client.status not in ("running", "connecting"):
                    raise _LostPass(f"the client is {self.client.status}")  # noqa: EM102
                if waiting:
                    self._wait_for_workers()
        except BaseException as error:
            lost = any(f.status == "cancelled" for f in waiting) and not isinstance(error, _LostPass)
            # Interrupted or failed: workers need not finish what nobody waits for.
            with contextlib.suppress(Exception):
                self.client.cancel(waiting)
            if lost:
                raise _LostPass(str(error)) from error
            raise

    def reporter(self, on_rows: Callable[[int], None]) -> Callable[[int], None]:
        return _TopicReporter(self._topic)

    def memory_per_thread(self) -> int | None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        shares = [w["memory_limit"] // max(w["nthreads"], 1) for w in workers if w["memory_limit"]]
        return min(shares, default=None)

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        one_each = {info["host"]: address for address, info in workers.items()}
        found: dict[str, Any] = self.client.run(
            function, *arguments, workers=list(one_each.values()), on_error="return"
        )
        return found


def _gone(client: Any, error: BaseException | None = None) -> ClusterError:
    why = f"{type(error).__name__}: {error}" if error else "its scheduler is gone"
    msg = (
        f"{client} cannot finish the pass: {why}. The last state is in the checkpoint, if there is one; look at "
        "the logs of the workers and of the scheduler, then run the same fit again."
    )
    return ClusterError(msg)


class _LostPass(Exception):
    """The scheduler dropped the pass."""


def _itself(value: Any) -> Any:
    return value


def _call(task: Task, shared: Any, argument: Any) -> Any:
    limit_worker_blas()
    return task(shared, argument)
