"""The active `distributed.Client` as the place where passes run: losses are retried, the guilty are named."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dask
from dask.delayed import Delayed, delayed
from dask.highlevelgraph import HighLevelGraph
from distributed import KilledWorker, span, wait
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from dgmm.engine.blas import limit_worker_blas
from dgmm.engine.guilty import deadly
from dgmm.engine.scheduler import Build, Process, RowCount, Scheduler, Task
from dgmm.engine.watch import Watch
from dgmm.errors import ClusterError

# So often in a row may a pass, or what is left of a map, be lost without anything done.
_ATTEMPTS = 30
_LONGEST_PAUSE_SECONDS = 10.0
# So many workers have to die of a task, the last of them while it ran alone.
_DEATHS = 12
_POLL_SECONDS = 0.5
_TELL_SECONDS = 2.0
# A task has to be worth what a worker spends on it; and the scheduler, which spends so many seconds (measured:
# benchmarks/workers.py), is not to be busier than for this share of the time with tasks of all threads.
_TASK_SECONDS = 0.5
_SCHEDULER_SECONDS = 1.5e-3
_SCHEDULER_SHARE = 1 / 3
# Of rows done, in messages of all threads.
_REPORTS_PER_SECOND = 50
_log = logging.getLogger(__name__)


class _TopicReporter:
    """Sends progress from a worker by way of the scheduler's event log.

    However many threads there are, the scheduler gets about as many messages a second: what a thread has not sent
    at the end of a leaf waits for its next one.
    """

    _unsent = threading.local()

    def __init__(self, topic: str, attempt: str, n_threads: int) -> None:
        self._topic = topic
        self._attempt = attempt
        self._seconds = n_threads / _REPORTS_PER_SECOND

    def __call__(self, rows: int) -> None:
        unsent = self._unsent
        if getattr(unsent, "attempt", None) != self._attempt:
            unsent.attempt, unsent.rows, unsent.sent = self._attempt, 0, -math.inf
        unsent.rows += rows
        self._send(max(self._seconds, _POLL_SECONDS))

    def flush(self) -> None:
        """At the end of a leaf: send what has not been sent, unless this thread has sent something just now."""
        self._send(self._seconds)

    def _send(self, seconds: float) -> None:
        from distributed import get_worker

        now, unsent = time.monotonic(), self._unsent
        if now - unsent.sent > seconds:
            get_worker().log_event(self._topic, [self._attempt, unsent.rows])
            unsent.rows, unsent.sent = 0, now


def task_seconds(n_threads: int) -> float:
    """Seconds of work that are worth a task where so many threads run them."""
    return max(_TASK_SECONDS, n_threads * _SCHEDULER_SECONDS / _SCHEDULER_SHARE)


class DistributedScheduler(Scheduler):
    """The active `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._topic = f"dgmm-{id(self):x}-{time.time_ns():x}"
        self._watch = Watch(client, self._topic)
        # One span for all passes: Dask's own would be another one for each, and workers never forget the
        # measurements of a span: 0.2 MiB a pass where `crick` is installed.
        with span("dgmm"):
            self._annotations = dask.get_annotations()
        self._watch.wait_for_workers()

    @property
    def n_threads(self) -> int:  # type: ignore[override]
        return max(self._watch.total("threads"), 1)

    @property
    def task_seconds(self) -> float:  # type: ignore[override]
        return task_seconds(self.n_threads)

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        failed, n_threads = 0, self.n_threads
        while True:
            token = self._token()
            try:
                with self._hearing(token, on_rows):
                    ((_, value),) = self._values([build(token, _TopicReporter(self._topic, token, n_threads))])
                    return value
            except _LOSSES as error:
                failed += 1
                self._lost(error, failed, token, lambda fresh: build(fresh, _unheard).dask)

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        missing = dict(enumerate(arguments))
        failed = 0
        while missing:
            token, numbers = self._token(), list(missing)
            try:
                for at, value in self._values(_calls(task, shared, missing, token)):
                    del missing[numbers[at]]
                    failed = 0
                    yield numbers[at], value
            except _LOSSES as error:
                failed += 1
                self._lost(
                    error,
                    failed,
                    token,
                    lambda fresh: HighLevelGraph.merge(*(c.dask for c in _calls(task, shared, missing, fresh))),
                )

    def _token(self) -> str:
        """What makes the keys of another attempt unlike those before."""
        self._watch.begin()
        return f"{self._topic}-{time.time_ns():x}"

    @contextlib.contextmanager
    def _hearing(self, token: str, on_rows: Callable[[int], None]) -> Iterator[None]:
        """Meanwhile hear of the rows of an attempt."""
        count = RowCount(on_rows)

        def hear(event: tuple[float, Any]) -> None:
            attempt, rows = event[1]
            if attempt == token:  # tasks of earlier ones may still run
                count(rows)

        self.client.subscribe_topic(self._topic, hear)
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self.client.unsubscribe_topic(self._topic)

    def _values(self, roots: Sequence[Delayed]) -> Iterator[tuple[int, Any]]:
        """Number and value of each as they are done; whatever goes wrong cancels the others."""
        waiting: dict[Any, int] = {}
        try:
            waiting.update((self._submit(root), number) for number, root in enumerate(roots))
            while waiting:
                with contextlib.suppress(TimeoutError):
                    # Short waits let signal handlers run.
                    wait(list(waiting), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
                for future in [future for future in waiting if future.done()]:
                    if future.status in ("cancelled", "lost"):
                        raise _LostPass(future.status)
                    value = self._watch.wait(partial(self.client.gather, future, asynchronous=True))
                    future.release()  # else it is computed again if its holder dies
                    yield waiting.pop(future), value
                if waiting:
                    self._watch.look()
        except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            self._cancel(waiting)
            raise _LostPass(str(error)) from error
        except BaseException:
            # Interrupted or failed: workers need not finish what nobody waits for.
            self._cancel(waiting)
            raise

    def _submit(self, root: Delayed) -> Any:
        with warnings.catch_warnings(), dask.annotate(**self._annotations):
            # Large K x D: the parameters are part of the graph so that the scheduler can recompute them.
            warnings.filterwarnings("ignore", message="Sending large graph")
            return self.client.compute(root)

    def _cancel(self, futures: Mapping[Any, int]) -> None:
        with contextlib.suppress(Exception):
            self.client.cancel(list(futures))

    def _lost(self, error: Exception, failed: int, token: str, graph: Callable[[str], Any]) -> None:
        """Return if the loss is worth another attempt."""
        if failed == _ATTEMPTS:
            msg = (
                f"{self.client} cannot finish the pass: lost {failed} times in a row, at last by "
                f"{type(error).__name__}: {error}. The last state is in the checkpoint, if there is one; look at "
                "the logs of the workers and of the scheduler, then run the same fit again."
            )
            raise ClusterError(msg) from error
        self._watch.look()
        _log.warning("a pass was lost (%s): computing it again", " ".join(str(error).split()))
        if isinstance(error, KilledWorker):
            self._try_alone(error, token, graph)
        pause = time.monotonic() + min(0.1 * 2.0**failed, _LONGEST_PAUSE_SECONDS)
        while time.monotonic() < pause:
            self._watch.look()
            time.sleep(0.1)

    def _try_alone(self, killed: KilledWorker, token: str, graph: Callable[[str], Any]) -> None:
        """Run a suspect while nothing else of ours runs: tasks that wait on a dying worker are blamed too.

        Raises
        ------
        DeadlyTask
        """
        deaths = killed.allowed_failures + 1
        while True:
            fresh = self._token()
            # Tasks of somebody's own Dask graph have keys of their own.
            ours = isinstance(killed.task, str)
            suspect = killed.task.replace(token, fresh) if ours else killed.task
            tasks = dict(graph(fresh))
            if suspect not in tasks:  # optimized into another one
                return
            try:
                for _ in self._values([Delayed(suspect, tasks)]):
                    return
            except KilledWorker as again:
                if again.task != suspect:
                    return
                deaths += again.allowed_failures + 1
            except _LOSSES:
                return
            if deaths >= _DEATHS:
                name = suspect.removesuffix(f"-{fresh}") if ours else str(suspect)
                raise deadly(name, deaths) from killed

    def processes(self) -> list[Process]:
        return [Process(w["nthreads"], w["memory_limit"]) for w in self._watch.workers().values()]

    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self.client.status != "running":
            return
        call = self.client.run(function, *arguments, on_error="ignore", asynchronous=True)
        told = asyncio.run_coroutine_threadsafe(call, self.client.loop.asyncio_loop)
        with contextlib.suppress(Exception):  # of what is gone already
            told.result(_TELL_SECONDS)
        told.cancel()

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        one_each = {worker["host"]: address for address, worker in self._watch.workers().items()}
        found: dict[str, Any] = self._watch.wait(
            lambda: self.client.run(
                function, *arguments, workers=list(one_each.values()), on_error="return", asynchronous=True
            )
        )
        return found


class _LostPass(Exception):
    """The scheduler dropped the pass."""


_LOSSES = (KilledWorker, CommClosedError, ClosedClientError, TimeoutError, _LostPass)


def _calls(task: Task, shared: Any, arguments: Mapping[int, Any], token: str) -> list[Delayed]:
    # A task and not scattered data: if its holder dies, the scheduler computes it again.
    held = delayed(_itself, pure=False, traverse=False)(shared, dask_key_name=f"dgmm-shared-{token}")
    call = delayed(_call, pure=False, traverse=False)
    return [
        call(task, held, argument, dask_key_name=f"dgmm-{task.__name__}-{number}-{token}")
        for number, argument in arguments.items()
    ]


def _itself(value: Any) -> Any:
    return value


def _call(task: Task, shared: Any, argument: Any) -> Any:
    limit_worker_blas()
    return task(shared, argument)


def _unheard(rows: int) -> None:
    pass
