"""Keeps the jobs of a dask-jobqueue cluster at their number."""

from __future__ import annotations

import time
from typing import Any

_CHECK_SECONDS = 5.0
# A nanny starts a lost worker again: its job is as good as before.
_ABSENT_SECONDS = 30.0
_RETRY_SECONDS = 60.0


class Keeper:
    """Submits again the jobs that were refused, or whose workers have come and gone.

    dask-jobqueue by itself lets a cluster shrink with each job that reaches its time limit. A job that ended
    before its worker joined looks like one that waits in the queue, and is left alone.

    Parameters
    ----------
    jobs : dask_jobqueue.JobQueueCluster
    """

    def __init__(self, jobs: Any) -> None:
        from tornado.ioloop import PeriodicCallback

        self._jobs = jobs
        self._last_seen: dict[Any, float] = {}
        self._retried = time.monotonic()
        self._periodic = PeriodicCallback(self.check, _CHECK_SECONDS * 1000)

    def start(self) -> None:
        """Begin, in the cluster's event loop."""
        self._periodic.start()

    def stop(self) -> None:
        """End, in the cluster's event loop."""
        self._periodic.stop()

    async def check(self) -> None:
        """Look once."""
        now = time.monotonic()
        present = [str(worker.name) for worker in self._jobs.scheduler.workers.values()]
        retry = now - self._retried > _RETRY_SECONDS
        self._retried = now if retry else self._retried
        for name, job in list(self._jobs.workers.items()):
            # Workers of a job of several are called like the job, with a number behind.
            if any(worker == str(name) or worker.startswith(f"{name}-") for worker in present):
                self._last_seen[name] = now
            gone = now - self._last_seen.get(name, now) > _ABSENT_SECONDS
            if gone or (retry and job.job_id is None):
                self._last_seen.pop(name, None)
                self._jobs.workers.pop(name, None)
                await job.close()
        if len(self._jobs.workers) < len(self._jobs.worker_spec):
            self._jobs.scale(jobs=len(self._jobs.worker_spec))
