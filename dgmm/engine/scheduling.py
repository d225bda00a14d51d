"""Where a pass runs: the active Dask client, or threads of this process.

Results do not depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from dgmm.engine.open_scheduler import warn_if_open
from dgmm.engine.scheduler import Build, Process, Scheduler, Task
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import SchedulerLost

T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Clients:
    """Clients of clusters that are started when they are needed: another one where a scheduler is lost."""

    def __init__(self, start: Callable[[], AbstractContextManager[Any]], renewals: int) -> None:
        self._start = start
        self._renewals = renewals
        self._left = renewals
        self._stack = contextlib.ExitStack()
        self._client: Any = None

    def current(self) -> Any:
        """The client, started if there is none."""
        if self._client is None:
            self._client = self._stack.enter_context(self._start())
        return self._client

    def renew(self, lost: SchedulerLost) -> None:
        """Leave a cluster without a scheduler, so that the next one is started."""
        if self._client is None or not self._left:
            raise lost
        self._left -= 1
        _log.warning(
            "%s Starting a new cluster and going on there (%d of at most %d).",
            str(lost).partition(". ")[0] + ".", self._renewals - self._left, self._renewals,
        )  # fmt: skip
        self._client = None
        with contextlib.suppress(Exception):  # of what is gone already
            self._stack.__exit__(type(lost), lost, lost.__traceback__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


class _WhenNeeded(Scheduler):
    """A scheduler that is there once something has to be computed: a fit that is complete starts no cluster."""

    def __init__(self, clients: _Clients, vet: Callable[[Scheduler], None]) -> None:
        self._clients = clients
        self._vet = vet
        self._vetted: tuple[Any, Scheduler] | None = None

    def _started(self) -> Scheduler:
        client = self._clients.current()
        if self._vetted is None or self._vetted[0] is not client:
            scheduler = _of_client(client)
            self._vet(scheduler)
            self._vetted = client, scheduler
        return self._vetted[1]

    def _there(self, call: Callable[[Scheduler], T]) -> T:
        """What a call returns, on another cluster if the scheduler of this one is lost."""
        while True:
            try:
                return call(self._started())
            except SchedulerLost as lost:
                self._clients.renew(lost)

    @property
    def n_threads(self) -> int:  # type: ignore[override]
        return self._there(lambda scheduler: scheduler.n_threads)

    @property
    def task_seconds(self) -> float:  # type: ignore[override]
        return self._there(lambda scheduler: scheduler.task_seconds)

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        return self._there(lambda scheduler: scheduler.compute(build, on_rows))

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        missing = dict(enumerate(arguments))
        while missing:
            numbers = list(missing)
            values = self._there(lambda scheduler: scheduler.map(task, shared, list(missing.values())))
            try:
                for at, value in values:
                    del missing[numbers[at]]
                    yield numbers[at], value
            except SchedulerLost as lost:
                self._clients.renew(lost)

    def processes(self) -> list[Process]:
        return self._there(lambda scheduler: scheduler.processes())

    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self._vetted is not None:
            self._vetted[1].tell(function, *arguments)

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return self._there(lambda scheduler: scheduler.on_hosts(function, *arguments))


_clients: ContextVar[_Clients | None] = ContextVar("_clients", default=None)


@contextlib.contextmanager
def client_when_needed(
    start: Callable[[], AbstractContextManager[Any]], renewals: int = 0
) -> Iterator[Callable[[], Any]]:
    """Meanwhile the first pass starts a cluster, and all passes run there; it is left at the end.

    Parameters
    ----------
    start : callable
        Gives a context manager of a `distributed.Client`, which is told if a `SchedulerLost` ends it.
    renewals : int
        How often another one is started, where the scheduler of the last one is lost.

    Yields
    ------
    callable
        Gives the client, starting its cluster if need be.
    """
    before = _clients.get()
    with _Clients(start, renewals) as clients:
        _clients.set(clients)
        try:
            yield clients.current
        finally:
            _clients.set(before)  # a notebook may leave it in another context: a token would not do


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
    clients = None if local else _clients.get()
    if clients is not None:
        yield _WhenNeeded(clients, vet)
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
