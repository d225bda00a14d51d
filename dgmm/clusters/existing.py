"""A cluster that runs already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgmm.clusters.schema import Existing
from dgmm.clusters.tls import security_of
from dgmm.engine.open_scheduler import warn_if_open
from dgmm.errors import ClusterError, InvalidParameter


def at(scheduler: str) -> Existing:
    """The cluster of a scheduler's address, such as ``tcp://node17:8786`` or ``node17:8786``, or scheduler file.

    Raises
    ------
    InvalidParameter
        It is neither.
    """
    if Path(scheduler).is_file():
        return Existing(kind="scheduler", file=scheduler)
    host, _, port = scheduler.rpartition(":")
    if not host or not port.isdecimal():
        msg = (
            f"{scheduler!r} is not a file and not an address; expected a scheduler file that exists, or an "
            "address such as tcp://127.0.0.1:8786"
        )
        raise InvalidParameter(msg)
    return Existing(kind="scheduler", address=scheduler)


def describe(cluster: Existing) -> str:
    """What `start` does."""
    return f"nothing is started: workers of the scheduler at {cluster.address or cluster.file} are used"


@contextlib.contextmanager
def start(cluster: Existing) -> Iterator[Any]:
    """A client of the scheduler.

    Raises
    ------
    ClusterError
        Nobody answers, or not with the expected certificate.
    """
    from distributed import Client

    where = cluster.address or cluster.file
    given = {"address": cluster.address} if cluster.address else {"scheduler_file": cluster.file}
    if cluster.file is not None and not Path(cluster.file).is_file():
        msg = f"there is no scheduler file {cluster.file}. Start the scheduler with it, or correct the path."
        raise ClusterError(msg)
    try:
        client = Client(**given, security=security_of(cluster.tls))
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        msg = (
            f"no scheduler answers at {where}: {error}. Check that it runs, can be reached from here, and uses "
            "the same certificates, if any."
        )
        raise ClusterError(msg) from error
    with client:
        warn_if_open(client.scheduler.address)
        yield client
