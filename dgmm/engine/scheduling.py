"""Where a pass runs: the active Dask client, or Dask's scheduler of this process.

Results do not depend on it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import dask
from dask.delayed import Delayed, delayed
from dask.system import CPU_COUNT

from dgmm.engine.open_scheduler import warn_if_open

_LOCAL_SCHEDULERS = ("synchronous", "sync", "single-threaded", "threads", "threading")

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

    @abstractmethod
    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What a function returns, or raises, in one worker of each host but this process, by worker."""


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

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {}


class _WhenNeeded(Scheduler):
    """A scheduler that is there once something has to be computed: a fit that is complete starts no cluster."""

    def __init__(self, start: Callable[[], Scheduler]) -> None:
        self._start = start

    @functools.cached_property
    def _started(self) -> Scheduler:
        return self._start()

    @property
    def n_threads(self) -> int:  # type: ignore[override]
        return self._started.n_threads

    @property
    def task_seconds(self) -> float:  # type: ignore[override]
        return self._started.task_seconds

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        return self._started.compute(build, on_rows)

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        return self._started.map(task, shared, arguments) if arguments else iter(())

    def reporter(self, on_rows: Callable[[int], None]) -> Callable[[int], None]:
        return self._started.reporter(on_rows)

    def memory_per_thread(self) -> int | None:
        return self._started.memory_per_thread()

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return self._started.on_hosts(function, *arguments)


_start_client: ContextVar[Callable[[], Any] | None] = ContextVar("_start_client", default=None)


@contextlib.contextmanager
def client_when_needed(client: AbstractContextManager[Any]) -> Iterator[None]:
    """Meanwhile the first pass enters `client`, and all passes run there; it is left at the end.

    Parameters
    ----------
    client : context manager
        Yields a `distributed.Client`.
    """
    with contextlib.ExitStack() as stack:
        token = _start_client.set(functools.cache(lambda: stack.enter_context(client)))
        try:
            yield
        finally:
            _start_client.reset(token)


@contextlib.contextmanager
def scheduler_for(*, local: bool, vet: Callable[[Scheduler], None] = lambda _: None) -> Iterator[Scheduler]:
    """Choose where to run.

    Parameters
    ----------
    local : bool
        The rows live in this process's memory: workers never get them.
    vet : callable
        Sees the scheduler before anything is computed there, and may refuse it.
    """
    start = None if local else _start_client.get()
    if start is not None:

        def started() -> Scheduler:
            scheduler = _of_client(start())
            vet(scheduler)
            return scheduler

        yield _WhenNeeded(started)
        return
    with _active(local=local) as scheduler:
        vet(scheduler)
        yield scheduler


@contextlib.contextmanager
def _active(*, local: bool) -> Iterator[Scheduler]:
    """The active client, also within a task, or this process."""
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
            yield _of_client(client)
        return
    try:
        client = distributed.get_client()
    except ValueError:
        yield LocalScheduler()
    else:
        if client.scheduler is not None:
            warn_if_open(client.scheduler.address)
        yield _of_client(client)


def _of_client(client: Any) -> Scheduler:
    from dgmm.engine.client import DistributedScheduler

    return DistributedScheduler(client)
