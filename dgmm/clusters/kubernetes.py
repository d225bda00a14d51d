"""Workers that are pods, by way of the Dask operator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import yaml

from dgmm.clusters.schema import Kubernetes
from dgmm.errors import ClusterError


def describe(cluster: Kubernetes) -> str:
    """The DaskCluster that is asked of the operator."""
    workers = cluster.workers
    size = "" if workers.count else f"# scaled between {workers.minimum} and {workers.maximum} workers\n"
    return size + str(yaml.safe_dump(cluster_spec(cluster), sort_keys=False))


def cluster_spec(cluster: Kubernetes) -> dict[str, Any]:
    """The DaskCluster resource."""
    from dask_kubernetes.operator import make_cluster_spec

    workers = cluster.workers
    limits = {"memory": str(workers.memory), "cpu": str(workers.threads)}
    command = ["dask", "worker", "--nthreads", str(workers.threads), "--memory-limit", str(workers.memory)]
    if workers.scratch is not None:
        command += ["--local-directory", workers.scratch]
    spec: dict[str, Any] = make_cluster_spec(
        name=cluster.name,
        image=cluster.image,
        n_workers=workers.count or workers.minimum,
        resources={"limits": limits, "requests": dict(limits)},
        env=dict(workers.environment),
        worker_command=command,
    )
    # The program it names, dask-scheduler, is not in current versions of distributed.
    spec["spec"]["scheduler"]["spec"]["containers"][0]["args"][:1] = ["dask", "scheduler"]
    if cluster.namespace is not None:
        spec["metadata"]["namespace"] = cluster.namespace
    pods = spec["spec"]["worker"]["spec"]
    if cluster.volumes:
        pods["volumes"] = [
            {"name": f"volume-{i}", "persistentVolumeClaim": {"claimName": volume.claim}}
            for i, volume in enumerate(cluster.volumes)
        ]
        pods["containers"][0]["volumeMounts"] = [
            {"name": f"volume-{i}", "mountPath": volume.path} for i, volume in enumerate(cluster.volumes)
        ]
    return spec


@contextlib.contextmanager
def start(cluster: Kubernetes) -> Iterator[Any]:
    """A client of the DaskCluster; it is deleted at the end.

    Raises
    ------
    ClusterError
        The cluster does not answer, or has no Dask operator.
    """
    from dask_kubernetes.operator import KubeCluster
    from distributed import Client

    class Pods(KubeCluster):  # type: ignore[misc]
        """Gives up where the original waits without end, and leaves nothing to its exit handler."""

        async def _start(self) -> None:
            wait = cluster.workers.wait
            try:
                await asyncio.wait_for(super()._start(), wait)
            except BaseException as error:
                await self._close(timeout=10)
                if isinstance(error, TimeoutError) and not str(error):
                    msg = f"the scheduler's pod is not ready after {wait} s; kubectl describe pods says why"
                    raise TimeoutError(msg) from error
                raise

        async def _close(self, timeout: float = 60) -> None:
            # The fit is done, or failed for a reason of its own: that is what is to be said.
            with contextlib.suppress(Exception):
                await super()._close(timeout)
            self.shutdown_on_close = False

    try:
        pods = Pods(custom_cluster_spec=cluster_spec(cluster), namespace=cluster.namespace, quiet=True)
    except Exception as error:
        msg = (
            f"Kubernetes starts no DaskCluster {cluster.name}: {type(error).__name__}: {error}. Check that "
            "kubectl works from here and that the Dask operator is installed."
        )
        raise ClusterError(msg) from error
    with pods:
        if cluster.workers.count is None:
            pods.adapt(minimum=cluster.workers.minimum, maximum=cluster.workers.maximum)
        with Client(pods) as client:
            yield client
