"""Computing in threads of this process."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

import dask
import dask.local
import dask.threaded
from dask.system import CPU_COUNT

from dgmm.engine.scheduler import Build, Process, RowCount, Scheduler, Task

_SERIAL = ("synchronous", "sync", "single-threaded")


class LocalScheduler(Scheduler):
    """Threads of this process, if not told as many as Dask's own scheduler would use; one if that is synchronous.

    Nothing of a call runs any more when it has returned, or failed: who writes the same output next meets no
    thread that still does. An interrupt alone does not wait.
    """

    task_seconds = 0.01

    def __init__(self, n_threads: int | None = None) -> None:
        self._serial = dask.config.get("scheduler", None) in _SERIAL
        most = n_threads or int(dask.config.get("num_workers", None) or CPU_COUNT)
        self.n_threads = 1 if self._serial else most
        # Kept from pass to pass: a thread begins to work some tenths of a millisecond after it is made (measured).
        self._pool: ThreadPoolExecutor | None = None

    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        graph = build("local", RowCount(on_rows))
        # Dask's schedulers by function, not by name: for a name it looks at clients too, and one may be vanishing.
        if self._serial:
            return dask.compute(graph, scheduler=dask.local.get_sync)[0]
        with _threads(self.n_threads) as pool:
            return dask.compute(graph, scheduler=dask.threaded.get, pool=pool)[0]

    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if min(self.n_threads, len(arguments)) <= 1:
            for number, argument in enumerate(arguments):
                yield number, task(shared, argument)
            return
        waiting, done = deque(enumerate(arguments)), SimpleQueue[tuple[int, Any, BaseException | None]]()

        def work() -> None:
            while waiting:
                try:
                    number, argument = waiting.popleft()
                except IndexError:  # another thread has the last
                    return
                try:
                    done.put((number, task(shared, argument), None))
                except BaseException as error:
                    waiting.clear()
                    done.put((number, None, error))

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="dgmm")
        at_work = [self._pool.submit(copy_context().run, work) for _ in range(self.n_threads)]
        try:
            for _ in arguments:
                number, value, error = done.get()
                if error is not None:
                    raise error
                yield number, value
        except BaseException as error:
            waiting.clear()
            if isinstance(error, (Exception, GeneratorExit)):
                wait(at_work)
            else:
                self._pool = None  # which is not done yet
            raise

    def threads_each(self, n_tasks: int) -> int:
        return max(1, self.n_threads // max(n_tasks, 1))

    def processes(self) -> list[Process]:
        # The limit of a batch job's cgroup counts, as Dask has it for its workers.
        from distributed.system import MEMORY_LIMIT

        return [Process(self.n_threads, int(MEMORY_LIMIT))]

    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {}


@contextlib.contextmanager
def _threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that is done with what it began when it is left; what it has not begun it never will."""
    pool = ThreadPoolExecutor(number, thread_name_prefix="dgmm")
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, (Exception, GeneratorExit)), cancel_futures=True)
        raise
    pool.shutdown()
