"""A prediction writes what is missing, and reads nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.data.zarr_array import ZarrSource
from dgmm.engine.predict import open_output, predict
from dgmm.engine.quantities import Labels, LogDensity, Responsibilities
from dgmm.errors import CheckpointMismatch, NonFiniteData, ShapeMismatch

WANTED = (Labels(), Responsibilities(), LogDensity())


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray, GaussianMixture]:
    monkeypatch.setattr("dgmm.data.zarr_array.BLOCK_BYTES", 1)
    monkeypatch.setattr("dgmm.data.zarr_output.UNIT_ROWS", 100)
    rows = np.random.default_rng(0).normal(size=(950, 3))
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(50, 3))
    return tmp_path, rows, GaussianMixture(2, random_state=0, tol=1).fit(rows)


def test_units_that_are_there_are_neither_read_nor_written(case, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rows, mixture = case
    source = open_source(folder / "x.zarr")
    output = open_output(folder / "p.zarr", source, mixture._model, "model", WANTED)
    assert len(output.units) == 10
    assert predict(source, mixture._model, output, WANTED) == 950
    for unit in (0, 3, 4, 9):
        (folder / f"p.zarr/log_density/c/{unit}").unlink()
    zarr.open_group(folder / "p.zarr").attrs["complete"] = False

    read, real = [], ZarrSource.read
    monkeypatch.setattr(ZarrSource, "read", lambda self, a, b: read.append((a, b)) or real(self, a, b))
    assert predict(source, mixture._model, output, WANTED) == 350
    assert sorted(read) == [(0, 100), (300, 400), (400, 500), (900, 950)]
    group = zarr.open_group(folder / "p.zarr", mode="r")
    np.testing.assert_array_equal(group["labels"][:], mixture.predict(rows))
    np.testing.assert_array_equal(group["responsibilities"][:], mixture.predict_proba(rows))
    np.testing.assert_array_equal(group["log_density"][:], mixture.score_samples(rows))


def test_other_models_data_and_features_are_refused(case) -> None:
    folder, rows, mixture = case
    source = open_source(folder / "x.zarr")
    open_output(folder / "p.zarr", source, mixture._model, "model", WANTED)
    with pytest.raises(CheckpointMismatch, match="another model"):
        open_output(folder / "p.zarr", source, mixture._model, "other", WANTED)
    zarr.create_array(folder / "y.zarr", data=rows + 1, chunks=(50, 3))
    with pytest.raises(CheckpointMismatch, match="another data"):
        open_output(folder / "p.zarr", open_source(folder / "y.zarr"), mixture._model, "model", WANTED)
    with pytest.raises(ShapeMismatch, match="2 features"):
        open_output(folder / "q.zarr", open_source(rows[:, :2]), mixture._model, "model", WANTED)


def test_nan_is_refused_and_named(case) -> None:
    folder, _, mixture = case
    zarr.open_array(folder / "x.zarr", mode="r+")[512, 1] = np.nan
    source = open_source(folder / "x.zarr")
    output = open_output(folder / "p.zarr", source, mixture._model, "model", WANTED)
    with pytest.raises(NonFiniteData, match=r"chunk c/10/0 of .*row 512, feature 1"):
        predict(source, mixture._model, output, WANTED)
    assert not output.complete
