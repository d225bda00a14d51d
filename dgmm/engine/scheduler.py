"""What computes: told what to do and on what, in a Dask cluster (`client`) or in this process (`threads`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from dask.delayed import Delayed

Report = Callable[[int], None]
"""Carries a number of rows from a leaf to the driver."""
Build = Callable[[str, Report], Delayed]
"""Makes the graph of a pass; the string makes its keys unlike those of any earlier attempt."""
Task = Callable[[Any, Any], Any]
"""A function of what all its calls share and of an argument of its own."""


class Process(NamedTuple):
    """One that computes: its threads, and the bytes of memory that it may use, or None where nothing limits it."""

    n_threads: int
    memory: int | None


class Scheduler(ABC):
    """Computes the graph of a pass."""

    n_threads: int
    #: Seconds of work worth a task here.
    task_seconds: float

    @abstractmethod
    def compute(self, build: Build, on_rows: Callable[[int], None]) -> Any:
        """Compute what `build` describes; `on_rows` hears of the rows so far, from 0 with each attempt."""

    @abstractmethod
    def map(self, task: Task, shared: Any, arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield number and value of each ``task(shared, argument)`` as they are done."""

    @abstractmethod
    def processes(self) -> list[Process]:
        """Those that compute, as long as no worker joins or leaves."""

    def threads_each(self, n_tasks: int) -> int:
        """Threads that each of so many tasks, at the same time, may have of the process where it runs."""
        return 1

    def memory_per_thread(self) -> int | None:
        """Bytes that one thread may use on the smallest worker, or None where nothing limits them."""
        return min((p.memory // max(p.n_threads, 1) for p in self.processes() if p.memory), default=None)

    @abstractmethod
    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in every process that computes; who does not answer soon is not waited for."""

    @abstractmethod
    def on_hosts(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What a function returns, or raises, in one worker of each host but this process, by worker."""


class RowCount:
    """Adds up rows, and tells how many there are so far."""

    def __init__(self, on_rows: Callable[[int], None]) -> None:
        self._on_rows = on_rows
        self._done = 0

    def __call__(self, rows: int) -> None:
        self._done += rows
        self._on_rows(self._done)
