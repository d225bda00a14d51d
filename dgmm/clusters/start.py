"""A cluster file to a Dask client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask

from dgmm.clusters.config import load_cluster
from dgmm.clusters.schema import Cluster
from dgmm.engine.scheduling import client_when_needed
from dgmm.errors import MissingExtra

# A task that was merely queued on a dying worker is blamed as well, which loses the pass; but with a high number
# it takes long to find a guilty one.
_ALLOWED_FAILURES = 9
# A scheduler that we did not start, or that takes the driver along when it dies, is not started again.
_LASTING = ("scheduler", "mpi")
_RENEWALS = 3
_BATCH = ("slurm", "pbs", "lsf", "sge")
_MODULES = dict.fromkeys(_BATCH, "batch") | {"scheduler": "existing"}
_NEEDED = dict.fromkeys(_BATCH, ("dask_jobqueue",)) | {
    "mpi": ("dask_mpi", "mpi4py"), "ssh": ("asyncssh",), "kubernetes": ("dask_kubernetes",),
}  # fmt: skip


def cluster(file: str | Path, /, **overrides: Any) -> AbstractContextManager[Any]:
    """The workers that a file of cluster-configs/ describes, while a ``with`` block lasts.

    Parameters
    ----------
    file : path
        YAML; see docs/clusters.md.
    **overrides
        Values in place of the file's: ``queue="long"``, ``workers={"count": 20}`` or ``**{"workers.count": 20}``.

    Returns
    -------
    context manager of distributed.Client
        Fits and predictions inside the block run there; if the scheduler is lost, on a new cluster, up to three
        times.

    Raises
    ------
    InvalidClusterFile
        Naming the file, the key, and what is valid there; at once, before the block is entered.
    MissingExtra
        A package has to be installed; the message has the command.
    ClusterError
        The cluster does not start.

    Examples
    --------
    >>> import dgmm
    >>> with dgmm.cluster("cluster-configs/local.yaml", workers={"count": 2}) as client:  # doctest: +SKIP
    ...     dgmm.GaussianMixture(16).fit("rows.zarr", checkpoint="run1")
    """
    return _held(load_cluster(file, overrides))


@contextlib.contextmanager
def _held(described: Cluster) -> Iterator[Any]:
    with client_when_needed(lambda: client_of(described), renewals(described)) as client:
        yield client()


def renewals(described: Cluster) -> int:
    """How often a new cluster is started where the scheduler of the last one is lost."""
    return 0 if described.kind in _LASTING else _RENEWALS


@contextlib.contextmanager
def client_of(described: Cluster) -> Iterator[Any]:
    """Start what is described, and give the client."""
    # Its defaults have to be there before they are overridden: what goes back to "unset" would take them along.
    import distributed  # noqa: F401

    module = _module(described)
    settings = {
        "distributed.scheduler.allowed-failures": _ALLOWED_FAILURES,
        # Workers keep the call stacks of the last hour, a gigabyte and more that no plan has room for.
        "distributed.worker.profile.enabled": False,
        "dgmm.worker-timeout": f"{described.workers.wait} s",
    }
    with dask.config.set(settings), module.start(described) as client:
        yield client


def describe(described: Cluster) -> str:
    """What `client_of` would start or submit, for people."""
    text: str = _module(described).describe(described)
    return text


def _module(described: Cluster) -> Any:
    kind = described.kind
    missing = [name for name in _NEEDED.get(kind, ()) if find_spec(name) is None]
    if missing:
        msg = f"a {kind} cluster needs the package {missing[0]}; pip install 'dgmm[{kind}]'"
        raise MissingExtra(msg)
    return import_module(f"dgmm.clusters.{_MODULES.get(kind, kind)}")
