"""The same on Azure Blob Storage, as far as Microsoft's emulator is it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
import zarr
from servers.azurite import CONTAINER, Azurite, azurite, install

from dgmm import GaussianMixture, load
from dgmm.data import store
from dgmm.data.opening import open_source
from dgmm.data.zarr_store import UrlStore
from dgmm.engine import archive
from dgmm.engine.checkpoint import Checkpoint
from dgmm.engine.folder import Changed, folder_at
from dgmm.engine.model import KIND
from dgmm.errors import CheckpointInUse, SourceNotFound, StoreError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    program, why_not = install(tmp_path_factory.mktemp("npm"))
    if program is None:
        pytest.skip(why_not)  # in CI too: it is not Python's to install
    with azurite(program, tmp_path_factory.mktemp("azurite") / "server") as running:
        yield running


@pytest.fixture(params=["az://", "abfss://"])
def az(request: pytest.FixtureRequest, server: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a folder that nobody else uses, and credentials for it in the environment."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{request.param}{CONTAINER}/{uuid.uuid4().hex}"


def test_objects_and_conditions(az):
    folder = folder_at(az)
    first = folder.put("x", b"1", None)
    for over in (None, {"e_tag": '"0x1"'}):
        with pytest.raises(Changed):
            folder.put("x", b"2", over)
    folder.put("x", b"2", folder.version("x"))
    with pytest.raises(Changed):
        folder.put("x", b"3", first)
    assert folder.read("x") == b"2"
    assert [file.name for file in folder.list()] == ["x"]
    folder.delete("x")
    folder.delete("x")
    assert folder.version("x") is None


def test_refusals(az, monkeypatch):
    with pytest.raises(SourceNotFound, match="az://no-such-container does not exist"):
        store.list_objects("az://no-such-container/x")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.raises(StoreError, match=r"access is refused.*AZURE_STORAGE_ACCOUNT_KEY") as caught:
        store.read(f"{az}/x")
    assert "d3Jvbmc" not in str(caught.value)


def test_one_driver_at_a_time(az):
    with Checkpoint(az, {"seed": 1}, {}) as checkpoint:
        for step in range(6):
            checkpoint.save_step("iteration", step, {"step": step}, {})
        checkpoint.save_step("iteration", 5, {"step": "again"}, {})
        with pytest.raises(CheckpointInUse):
            Checkpoint(az, {"seed": 1}, {}).__enter__()
    with Checkpoint(az, {"seed": 1}, {}) as checkpoint:
        assert checkpoint.epoch == 2
        assert checkpoint.load_latest("iteration") == (5, {"step": "again"}, {})


def test_a_fit_from_and_to_azure(az, server, tmp_path, monkeypatch):
    monkeypatch.setattr("dgmm.engine.settings.SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((5000, 2)) + 4 * rng.integers(3, size=(5000, 1))
    for place in (tmp_path / "x.zarr", UrlStore(f"{az}/x.zarr")):
        zarr.create_array(place, data=rows, chunks=(500, 2))
    here, there = (GaussianMixture(3, random_state=0) for _ in range(2))
    here.fit(tmp_path / "x.zarr").save(tmp_path / "m")
    there.fit(f"{az}/x.zarr", checkpoint=f"{az}/run").save(f"{az}/m")
    # The files also say where the rows were.
    (_, found), (_, expected) = (archive.read(model, KIND) for model in (f"{az}/m", tmp_path / "m"))
    assert {name: a.tobytes() for name, a in found.items()} == {name: a.tobytes() for name, a in expected.items()}
    assert load(f"{az}/m").n_components == 3
    first = open_source(f"{az}/x.zarr").fingerprint()
    store.write(f"{az}/x.zarr/c/0/0", store.read(f"{az}/x.zarr/c/1/0"))
    assert open_source(f"{az}/x.zarr").fingerprint() != first
    for found in store.list_objects(az):
        assert server.key.encode() not in store.read(f"{az}/{found.name}")
