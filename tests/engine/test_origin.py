"""A model file says what was fitted and how it was chosen; files that do not are read all the same."""

from __future__ import annotations

import dataclasses

import dask.array as da
import numpy as np
import pytest
import zarr

import dgmm
from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine import archive
from dgmm.engine.model import KIND, Model
from dgmm.engine.origin import Origin
from dgmm.errors import CollapsedComponentWarning

N = 400


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, (N // 2, 2)), rng.normal(9, 1, (N // 2, 2))])


@pytest.fixture(scope="module")
def stored(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(100, 2))
    zarr.create_array(folder / "w.zarr", data=np.linspace(0.5, 1.5, N), chunks=(100,))
    return folder


def reloaded(mixture, folder) -> Model:
    mixture.save(folder / "m")
    return Model.load(folder / "m")


def test_a_fit_records_addresses_fingerprint_and_versions(stored, tmp_path):
    data, weights = str(stored / "x.zarr"), str(stored / "w.zarr")
    fitted = GaussianMixture(2, random_state=0).fit(data, sample_weight=weights)
    origin = reloaded(fitted, tmp_path).origin
    assert origin == fitted._model.origin
    assert (origin.data, origin.weights) == (data, weights)
    assert origin.fingerprint == open_source(data).fingerprint()
    assert origin.versions == archive.versions()
    assert (origin.opened_with, origin.given, origin.collapsed, origin.choice) == ({}, (), (), None)


def test_rows_in_memory_and_of_a_graph_have_no_address(rows):
    in_memory = GaussianMixture(2, random_state=0).fit(rows, sample_weight=np.ones(N))._model.origin
    assert (in_memory.data, in_memory.fingerprint, in_memory.weights) == ("", "", "")
    graph = GaussianMixture(2, random_state=0).fit(da.from_array(rows, chunks=(100, 2)))._model.origin
    other = GaussianMixture(2, random_state=0).fit(da.from_array(rows + 1, chunks=(100, 2)))._model.origin
    assert graph.data == ""
    assert graph.weights is None
    assert len(graph.fingerprint) == 64
    assert graph.fingerprint != other.fingerprint


def test_a_given_start_and_accepted_holes_are_recorded(tmp_path, rows):
    holes = zarr.create_array(tmp_path / "x.zarr", shape=(N, 2), chunks=(100, 2), dtype=float)
    holes[:300] = rows[:300]
    mixture = GaussianMixture(2, random_state=0, means_init=[[0, 0], [9, 9]])
    origin = mixture.fit(open_source(tmp_path / "x.zarr", missing_chunks="fill"))._model.origin
    assert origin.given == ("means",)
    assert origin.opened_with == {"missing_chunks": "fill"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://key:secret@bucket/rows.zarr", "s3://bucket/rows.zarr"),
        ("simplecache::ftp://me:secret@host/rows.zarr", "simplecache::ftp://host/rows.zarr"),
        ("https://host/rows.zarr?X-Amz-Signature=secret", "https://host/rows.zarr"),
        ("https://host:8080/a/rows.zarr", "https://host:8080/a/rows.zarr"),
        ("what?/me@home/rows.zarr", "what?/me@home/rows.zarr"),
        ("s3://bucket/run#1/rows?.zarr", "s3://bucket/run#1/rows?.zarr"),
        ("abfss://me@account.dfs.core.windows.net/x.zarr", "abfss://me@account.dfs.core.windows.net/x.zarr"),
        ("az://me:secret@account/x.zarr", "az://account/x.zarr"),
    ],
)
def test_no_secret_of_an_address_is_recorded(name, expected, stored, tmp_path):
    source = open_source(stored / "x.zarr")
    source.address = name
    fitted = GaussianMixture(1, random_state=0).fit(source)
    assert reloaded(fitted, tmp_path).origin.data == expected
    assert b"secret" not in (tmp_path / "m").read_bytes()


def test_components_on_few_rows_are_recorded(tmp_path):
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(size=(300, 2)), np.full((2, 2), 1e6)])
    with pytest.warns(CollapsedComponentWarning):
        fitted = GaussianMixture(2, random_state=0).fit(rows)
    origin = reloaded(fitted, tmp_path).origin
    (k,) = origin.collapsed + origin.outlying
    assert fitted.weights_[k] < 0.01


def test_a_selection_leaves_its_table(rows, tmp_path):
    found = dgmm.select(rows, (1, 2, 3), ("full", "diag"), criterion="aic", random_state=0)
    choice = reloaded(found.best, tmp_path).origin.choice
    assert (choice.criterion, choice.holdout) == ("aic", 0.0)
    assert all(np.isnan(entry.seconds) and np.isnan(entry.held_out) for entry in choice.table)
    comparable = [dataclasses.replace(entry, seconds=0.0, held_out=0.0) for entry in choice.table]
    assert comparable == [dataclasses.replace(entry, seconds=0.0, held_out=0.0) for entry in found.table]


def test_a_file_of_an_earlier_version_is_read(rows, tmp_path):
    fitted = GaussianMixture(2, random_state=0).fit(rows)
    header, arrays = archive.unpack(fitted._model.pack(), KIND, "m")
    for name in ("origin", "format", "schema", "kind", "versions"):
        del header[name]
    archive.write(tmp_path / "m", archive.pack(KIND, header, arrays))
    found = dgmm.load(tmp_path / "m")
    assert found._model.origin == Origin(versions=archive.versions())
    np.testing.assert_array_equal(found.predict(rows), fitted.predict(rows))
