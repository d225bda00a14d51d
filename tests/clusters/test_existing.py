"""A scheduler that runs already, with TLS: who shows another certificate, or none, is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from commands import ROOT, dgmm, environment
from servers.slurm import poll

import dgmm as package
from dgmm.clusters.schema import Certificates
from dgmm.clusters.tls import security_of, temporary_files
from dgmm.errors import ClusterError, InvalidClusterFile

CONFIG = ROOT / "cluster-configs" / "scheduler.yaml"


@pytest.fixture
def certificates(tmp_path: Path) -> Iterator[tuple[Certificates, Certificates]]:
    """Ours, and a stranger's."""
    with temporary_files(tmp_path / "ours") as ours, temporary_files(tmp_path / "theirs") as theirs:
        assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o700
        yield ours, theirs


@pytest.fixture
def scheduler_file(tmp_path: Path, certificates) -> Iterator[Path]:
    """Of a `dask scheduler` and a `dask worker` that a user has started."""
    ours, _ = certificates
    tls = ["--tls-ca-file", ours.ca, "--tls-cert", ours.cert, "--tls-key", ours.key]
    file = tmp_path / "scheduler.json"
    listen = ["--host", "127.0.0.1", "--no-dashboard", "--protocol", "tls", "--scheduler-file", file, *tls]
    started = []
    try:
        for module, options in (
            ("dask_scheduler", ["--port", "0"]),
            ("dask_worker", ["--nthreads", "1", "--memory-limit", "1GiB", "--no-nanny", "--death-timeout", "60"]),
        ):
            command = [sys.executable, "-m", f"distributed.cli.{module}", *listen, *options]
            started.append(subprocess.Popen(command, env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL))
            poll(file.exists, 60, lambda: "no scheduler file")
        yield file
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_certificates(tmp_path, certificates, scheduler_file):
    ours, theirs = certificates
    zarr.create_array(tmp_path / "x.zarr", data=np.random.default_rng(0).normal(size=(500, 2)))
    where = {"address": None, "file": str(scheduler_file)}
    with package.cluster(CONFIG, **where, tls=ours.model_dump()) as client:
        assert client.scheduler.address.startswith("tls://")
        package.GaussianMixture(2, random_state=0).fit(str(tmp_path / "x.zarr"))
    with dask.config.set({"distributed.comm.timeouts.connect": "3 s"}):
        for tls in (theirs.model_dump(), None):
            with (
                pytest.raises(ClusterError, match=r"no scheduler answers at .*uses the same certificates"),
                package.cluster(CONFIG, **where, tls=tls),
            ):
                pass
    call = ("cluster", "run", CONFIG, "--set", "address=null", "--set", f"file={scheduler_file}")
    for part, path in ours.model_dump().items():
        call += ("--set", f"tls.{part}={path}")
    finished = dgmm(*call, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "works: 1 worker(s) on 127.0.0.1, the same bits as here" in finished.out


def test_missing_files_are_named(tmp_path, certificates):
    ours, _ = certificates
    with pytest.raises(InvalidClusterFile, match=r"tls.key names /none.pem, but there is no such file"):
        security_of(ours.model_copy(update={"key": "/none.pem"}))
    with (
        pytest.raises(ClusterError, match=r"there is no scheduler file none\.json"),
        package.cluster(CONFIG, address=None, file="none.json"),
    ):
        pass
