"""Where a pass runs: the active Dask client, or Dask's scheduler of this process.

Results do not depend on it.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask
from dask.delayed import Delayed, delayed
from dask.system import CPU_COUNT
from dask.utils import parse_timedelta

from dgmm.engine.blas import limit_worker_blas
from dgmm.errors import ClusterError

_LOCAL_SCHEDULERS = ("synchronous", "sync", "single-threaded", "threads", "threading")
_ATTEMPTS = 4
_POLL_SECONDS = 0.5

Build = Callable[[str], Delayed]
"""Makes the graph of a pass; the string makes its keys unlike those of any earlier attempt."""
Task = Callable[[Any, Any], Any]
"""A function of what all its calls share and of an argument of its own."""


class Scheduler(ABC):
    """Computes the graph of a pass."""

    n_threads: int
    #: Seconds of work worth a task here.
    task_seconds: float

    @abstractmethod
    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        """Compute what `build` describes; `on_rows` hears of rows as they are done."""

    @abstractmethod
    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield number and value of each ``task(shared, argument)`` as they are done."""

    @abstractmethod
    def reporter(self, on_rows: Callable[[int], None]) -> Callable[[int], None]:
        """A callable for the leaves that carries a number of rows back to `on_rows`."""

    @abstractmethod
    def memory_per_thread(self) -> int | None:
        """Bytes that one thread may use on the smallest worker, or None where nothing limits them."""


class LocalScheduler(Scheduler):
    """Dask's threaded (or, if configured, synchronous) scheduler."""

    task_seconds = 0.05

    def __init__(self) -> None:
        configured = dask.config.get("scheduler", None)
        self._name = configured if configured in _LOCAL_SCHEDULERS else "threads"
        serial = self._name in _LOCAL_SCHEDULERS[:3]
        self.n_threads = 1 if serial else int(dask.config.get("num_workers", None) or CPU_COUNT)

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        return dask.compute(build("local"), scheduler=self._name)[0]

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        call = delayed(lambda argument: task(shared, argument), pure=False, traverse=False)
        for first in range(0, len(arguments), self.n_threads):
            batch = arguments[first : first + self.n_threads]
            yield from enumerate(dask.compute(*map(call, batch), scheduler=self._name), first)

    def reporter(self, on_rows: Callable[[int], None]) -> Callable[[int], None]:
        return on_rows

    def memory_per_thread(self) -> int | None:
        # The limit of a batch job's cgroup counts, as Dask has it for its workers.
        from distributed.system import MEMORY_LIMIT

        return int(MEMORY_LIMIT) // self.n_threads


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
        if self._workers():
            return
        limit = parse_timedelta(dask.config.get("dgmm.worker-timeout", "1 h"))
        try:
            self.client.wait_for_workers(1, timeout=limit)
        except TimeoutError:
            msg = (
                f"no worker joined {self.client.scheduler.address} within {limit:.0f} s. Check the queue of "
                "the cluster, or raise the Dask setting dgmm.worker-timeout."
            )
            raise ClusterError(msg) from None

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


@contextlib.contextmanager
def scheduler_for(*, local: bool) -> Iterator[Scheduler]:
    """Choose where to run.

    Parameters
    ----------
    local : bool
        The rows live in this process's memory: workers never get them.
    """
    # Without this module there is no client; importing it would cost half a second.
    distributed = sys.modules.get("distributed")
    if local or distributed is None:
        yield LocalScheduler()
        return
    try:
        distributed.get_worker()
    except ValueError:
        pass
    else:
        with distributed.worker_client() as client:
            yield DistributedScheduler(client)
        return
    try:
        client = distributed.get_client()
    except ValueError:
        yield LocalScheduler()
    else:
        yield DistributedScheduler(client)
