"""One BLAS thread: with more, the order of its sums would depend on how busy the machine is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_info, threadpool_limits


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP in this process to one thread meanwhile."""
    with threadpool_limits(1):
        yield


_limited = threading.Lock()
_limit_is_set = False


def limit_worker_blas() -> None:
    """Limit BLAS in a worker process to one thread, once and for good.

    A limit that comes and goes with the tasks races: when one task ends, another runs on two threads.
    """
    global _limit_is_set  # noqa: PLW0603  a limit of the process is process state
    with _limited:
        if not _limit_is_set:
            if any(pool["num_threads"] > 1 for pool in threadpool_info()):
                threadpool_limits(1)
            _limit_is_set = True
