"""A fit that takes as many iterations as it is told to, and has many leaves in each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from sklearn.exceptions import ConvergenceWarning

import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.engine.run import Silence

ROWS, CHUNK = 8000, 200


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of one chunk, leaves of one block, a sample of a few rows."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set({"dgmm.blocks-per-leaf": 1}):
        patch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
        patch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
        yield


def store(folder: Path) -> str:
    """Rows of clusters that overlap: EM crawls."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((ROWS, 3)) + 1.5 * rng.integers(3, size=(ROWS, 1))
    array = zarr.create_array(folder / "rows.zarr", shape=rows.shape, chunks=(CHUNK, 3), dtype="f8")
    array[:] = rows
    return str(folder / "rows.zarr")


def fitted(path: str, iterations: int, observer: Any = None, **where: Any) -> bytes:
    """Parameters and history of a fit of so many iterations."""
    mixture = GaussianMixture(3, random_state=1, max_iter=iterations, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(path, observer=observer or Silence(), **where)
    assert mixture.n_iter_ == iterations
    return mixture._model.parameters.covariances.tobytes() + np.array(mixture.lower_bounds_).tobytes()


def expected(path: str, iterations: int) -> bytes:
    """The bits without any cluster."""
    with dask.config.set(scheduler="synchronous"):
        return fitted(path, iterations)
