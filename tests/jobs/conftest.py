"""What the tests of real batch systems share: data, the unbroken fit, and what to do where a server is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import ROOT, dgmm, environment
from fittings import FIT, Script

N_ROWS, N_FEATURES, N_COMPONENTS = 200_000, 6, 3


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More rows than the sample, in 25 chunks: a fit makes passes of many leaves over all of them."""
    rng = np.random.default_rng(7)
    centres = rng.normal(0, 3, (N_COMPONENTS, N_FEATURES))
    rows = centres[rng.integers(N_COMPONENTS, size=N_ROWS)] + rng.normal(0, 2, (N_ROWS, N_FEATURES))
    path = tmp_path_factory.mktemp("shared") / "rows.zarr"
    zarr.create_array(path, data=rows.astype(np.float32), chunks=(8192, N_FEATURES))
    return path


@pytest.fixture(scope="session")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model file of a fit in one go, on this machine."""
    folder = tmp_path_factory.mktemp("unbroken")
    finished = dgmm("fit", data, *FIT, "--model", folder / "m", "--workers", 1, cwd=folder)
    assert finished.code == 0, finished.err
    return (folder / "m").read_bytes()


@pytest.fixture(scope="session")
def job_environment() -> dict[str, str]:
    """Jobs find this checkout's dgmm on the path, as those of a user with an active environment do."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**environment(PATH=path, DASK_DGMM__BLOCKS_PER_LEAF="1"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start_script(tmp_path: Path, data: Path, job_environment: dict[str, str]) -> Iterator[Callable[..., Script]]:
    """Run a script of jobs/ as a user does in the checkout; nothing of it is left at the end."""
    started: list[Script] = []

    def call(name: str, **settings: object) -> Script:
        given = {
            "DATA": data,
            "CHECKPOINT": tmp_path / "ck",
            "CLUSTER": tmp_path / "cluster.yaml",
            "COMPONENTS": 3,
        }
        given |= {"OPTIONS": " ".join(map(str, FIT[2:]))} | settings
        env = job_environment | {key: str(value) for key, value in given.items()}
        started.append(Script(name, tmp_path / f"{len(started)}.log", env))
        return started[-1]

    yield call
    for script in started:
        script.kill()
