from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

N_ROWS, N_FEATURES, N_COMPONENTS = 600_000, 8, 3


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 MB in 5 blocks: more rows than the sample, so that a fit makes passes over all of them."""
    rng = np.random.default_rng(5)
    labels = rng.integers(N_COMPONENTS, size=N_ROWS)
    centres = rng.normal(0, 3, (N_COMPONENTS, N_FEATURES))
    rows = (centres[labels] + rng.normal(0, 2, (N_ROWS, N_FEATURES))).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    zarr.create_array(path, data=rows, chunks=(16384, N_FEATURES))
    zarr.create_array(path.parent / "w.zarr", data=rng.random(N_ROWS), chunks=(50_000,))
    return path
