"""`dgmm info DATA`: shape, names, and whether a flipped bit would be noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from commands import in_process
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

ROWS = np.random.default_rng(0).normal(size=(100, 3))
Info = Callable[..., dict[str, Any]]


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Info:
    def run(*arguments: object) -> dict[str, Any]:
        assert in_process(monkeypatch, "info", *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("stored", "checksum"),
    [
        ({}, None),
        ({"shards": (50, 3)}, None),  # the index alone has one
        ({"compressors": None}, None),
        ({"compressors": BloscCodec()}, None),
        ({"compressors": ZstdCodec()}, None),
        ({"compressors": ZstdCodec(checksum=True)}, "zstd"),
        ({"compressors": GzipCodec()}, "gzip"),
        ({"compressors": [BloscCodec(), Crc32cCodec()]}, "crc32c"),
        ({"compressors": [Crc32cCodec()], "shards": (50, 3)}, "crc32c"),
        ({"zarr_format": 2}, None),
        ({"zarr_format": 2, "compressors": numcodecs.Blosc()}, None),
        ({"zarr_format": 2, "compressors": numcodecs.LZ4()}, None),
        ({"zarr_format": 2, "compressors": numcodecs.Zlib()}, "zlib"),
        ({"zarr_format": 2, "filters": [numcodecs.Fletcher32()], "compressors": None}, "fletcher32"),
    ],
)
def test_a_zarr_array(tmp_path: Path, info: Info, stored: dict[str, Any], checksum: str | None) -> None:

    path = tmp_path / "x"
    zarr.create_array(path, data=ROWS, chunks=(10, 3), **stored)
    facts = info(path)
    assert (facts["kind"], facts["rows"], facts["features"], facts["dtype"]) == ("data", 100, 3, "float64")
    assert facts["checksum"] == checksum


def test_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(10, 3))
    assert in_process(monkeypatch, "info", tmp_path / "x") == 0
    said = capsys.readouterr().out
    assert "100 rows of 3 features (float64), 2.34 kiB a pass" in said
    assert "checksum: none that dgmm knows of. A flipped bit would go unnoticed; `dgmm convert`" in said
    assert in_process(monkeypatch, "convert", tmp_path / "x", tmp_path / "y", local=True) == 0
    capsys.readouterr()
    assert in_process(monkeypatch, "info", tmp_path / "y") == 0
    assert "checksum: crc32c" in capsys.readouterr().out


def test_other_kinds(tmp_path: Path, info: Info) -> None:
    table = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    table.to_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "x.npy", ROWS)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("plain", data=ROWS)
        file.create_dataset("checked", data=ROWS, chunks=(10, 3), fletcher32=True)
    facts = info(tmp_path / "t.parquet", "--columns", "a,c")
    assert facts["feature_names"] == ["a", "c"]
    assert "pages" in facts["checksum"]
    assert info(tmp_path / "x.npy")["checksum"] is None
    assert info(tmp_path / "x.h5/plain")["checksum"] is None
    assert info(tmp_path / "x.h5/checked")["checksum"] == "fletcher32"


def test_a_grid(tmp_path: Path, info: Info) -> None:
    grid = xarray.Dataset(dict.fromkeys(("a", "b"), (("y", "x"), ROWS)))
    some = {"a": {"compressors": [Crc32cCodec()]}}
    grid.to_zarr(tmp_path / "some", encoding=some, consolidated=False)
    grid.to_zarr(tmp_path / "all", encoding={**some, "b": {"compressors": [GzipCodec()]}}, consolidated=False)
    assert info(tmp_path / "some", "--variables", "a,b")["checksum"] is None
    assert info(tmp_path / "all")["checksum"] == "crc32c, gzip"


def test_neither_model_nor_checkpoint_nor_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, "info", tmp_path) == 2
    assert "folder without checkpoints of dgmm, nor data that it knows" in capsys.readouterr().err
