"""Data that are damaged, or change, while a fit runs or between two runs of it: never a wrong result."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import h5py
import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from distributed import Client, LocalCluster
from facts import new_seed, tell
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm import GaussianMixture, open_source
from dgmm.data import store
from dgmm.data.opening import open_convertible
from dgmm.data.zarr_store import UrlStore
from dgmm.engine.convert import Conversion, convert
from dgmm.engine.events import Iterated
from dgmm.engine.record import read
from dgmm.engine.run import Silence
from dgmm.errors import CheckpointMismatch, DataChanged, InvalidData, MissingChunks

N, D = 2_000, 2
RNG = np.random.default_rng(3)
ROWS = RNG.standard_normal((N, D)) + 5 * RNG.integers(2, size=(N, 1))

CHAINS: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "zstd": {"compressors": ZstdCodec()},
    "zstd with checksum": {"compressors": ZstdCodec(checksum=True)},
    "blosc": {"compressors": BloscCodec(cname="lz4")},
    "gzip": {"compressors": GzipCodec()},
    "blosc, crc32c": {"compressors": [BloscCodec(cname="lz4"), Crc32cCodec()]},
    "shards": {"shards": (400, D)},
    "shards of blosc": {"shards": (400, D), "compressors": BloscCodec(cname="zstd")},
    "shards with crc32c": {"shards": (400, D), "compressors": [BloscCodec(), Crc32cCodec()]},
    "2: plain": {"zarr_format": 2, "compressors": None},
    "2: blosc": {"zarr_format": 2, "compressors": numcodecs.Blosc()},
    "2: zlib": {"zarr_format": 2, "compressors": numcodecs.Zlib()},
    "2: lz4": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "2: fletcher32": {"zarr_format": 2, "filters": [numcodecs.Fletcher32()], "compressors": numcodecs.Blosc()},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgmm.data.zarr_array, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 200)


@contextmanager
def in_threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    with (
        LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def on_workers(client: Client) -> Iterator[None]:
    with client.as_current(), dask.config.set(scheduler=client):
        yield


@dataclass
class Chunk:
    """A stored object that faults happen to, with what it was before."""

    path: Path

    def __post_init__(self) -> None:
        self.content, self.status = self.path.read_bytes(), self.path.stat()

    def restore(self) -> None:
        """As ``cp -p`` does."""
        self._write(self.content)

    def delete(self) -> None:
        self.path.unlink()

    def truncate(self) -> None:
        self._write(self.content[: random.randrange(len(self.content))])

    def flip(self) -> None:
        """What a disk does: the time of modification stays."""
        # Not in the first bytes: those of a gzip file hold a time that means nothing.
        bit = random.randrange(16 * 8, len(self.content) * 8)
        changed = bytearray(self.content)
        changed[bit // 8] ^= 1 << (bit % 8)
        self._write(changed)

    def rewrite(self) -> None:
        """With the same values: only its time tells."""
        self.path.write_bytes(self.content)
        os.utime(self.path, ns=(self.status.st_atime_ns, self.status.st_mtime_ns + 1))

    def _write(self, content: bytes) -> None:
        self.path.write_bytes(content)
        os.utime(self.path, ns=(self.status.st_atime_ns, self.status.st_mtime_ns))


class At(Silence):
    """Lets something happen once, after an iteration."""

    def __init__(self, iteration: int, fault: Callable[[], None]) -> None:
        self._iteration, self._fault = iteration, fault

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == self._iteration:
            self._fault()


def fitted(data: Any, checkpoint: Path | None = None, observer: Silence | None = None, **more: Any) -> bytes:
    mixture = GaussianMixture(2, random_state=0, max_iter=4, tol=0)
    with dask.config.set({"dgmm.blocks-per-leaf": 1}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="EM did not converge")
        mixture.fit(data, checkpoint=checkpoint, observer=observer, **more)
    return mixture._model.parameters.covariances.tobytes() + np.array(mixture.lower_bounds_).tobytes()


def stored(path: Path, chain: str) -> Chunk:
    """The rows at a path, and a chunk of them."""
    zarr.create_array(path, data=ROWS, chunks=(100, D), **CHAINS[chain])
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("zarr.json", ".zarray", ".zattrs"))
    return Chunk(random.choice(found))


# Blocks are read in every pass, where they would stay in memory.
READ_AGAIN = {"dgmm.kept-bytes": 0}


def survives(
    data: Callable[[], Any],
    fault: Callable[[], None],
    chunk: Chunk,
    folder: Path,
    *,
    kept: bool,
    several: bool = False,
) -> float:
    """A fault after the second iteration is an error that names the chunk, and nothing is lost; seconds.

    Of several workers another than the one that has a block in memory may compute it, and then has to read it.
    """
    expected = (DataChanged,) if kept else (InvalidData,)
    if kept and several:
        expected = (DataChanged, InvalidData)
    unbroken = fitted(data())
    began = time.monotonic()
    with (
        nullcontext() if kept else dask.config.set(READ_AGAIN),
        pytest.raises(expected, match=key_of(chunk)),
    ):
        GaussianMixture(2, random_state=0, max_iter=4, tol=0).fit(
            data(), checkpoint=folder / "ck", observer=At(2, fault)
        )
    assert {run.state.n_iter for run in read(folder / "ck")[1].finalists.values()} == {2}
    chunk.restore()
    assert fitted(data(), folder / "ck") == unbroken
    return time.monotonic() - began


def key_of(chunk: Chunk) -> str:
    parts = chunk.path.parts
    return "/".join(parts[parts.index("c") :]) if "c" in parts else chunk.path.name.replace(".", r"\.")


@pytest.mark.parametrize(
    ("where", "faults"),
    [
        ("threads", 3),
        *(pytest.param(where, 42, marks=pytest.mark.slow) for where in ("threads", "workers")),
        *(pytest.param(where, 1000, marks=pytest.mark.long) for where in ("threads", "workers")),
    ],
)
def test_a_damaged_chunk(faults: int, where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    random.seed(new_seed())
    place = in_threads() if where == "threads" else on_workers(request.getfixturevalue("workers"))
    chains = random.sample(list(CHAINS), k=len(CHAINS))
    recoveries: list[float] = []
    with place:
        for number in range(faults):
            path = tmp_path / f"{number}"
            chunk = stored(path / "x", chains[number % len(chains)])
            kinds, kept = [chunk.delete, chunk.truncate, chunk.rewrite], random.choice([False, True])
            # A block in memory is what was read, whatever the disk does: only a look at the file tells.
            if open_source(path / "x").checksum and not kept:
                kinds.append(chunk.flip)
            fault = random.choice(kinds)
            data, several = partial(open_source, path / "x"), where == "workers"
            recoveries.append(survives(data, fault, chunk, path, kept=kept, several=several))
            shutil.rmtree(path)
    tell(
        f"chunk deleted, truncated, flipped or rewritten, {where}", faults, len(recoveries), max(recoveries), "yes"
    )


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
def test_every_truncation_and_many_flips_of_a_chunk(chain: str, tmp_path: Path) -> None:
    """What `dgmm info` says of a checksum holds."""
    zarr.create_array(tmp_path / "x", data=ROWS[:8], chunks=(4, D), **{**CHAINS[chain], **_tiny(chain)})
    source = open_source(tmp_path / "x")
    last = max(p for p in (tmp_path / "x").rglob("*") if p.is_file() and p.name not in ("zarr.json", ".zarray"))
    chunk = Chunk(last)
    for length in range(len(chunk.content)):
        chunk._write(chunk.content[:length])
        with pytest.raises(InvalidData, match=f"Chunk {key_of(chunk)}"):
            source.read(0, 8)
    silent = 0
    for bit in random.sample(range(len(chunk.content) * 8), 200):
        changed = bytearray(chunk.content)
        changed[bit // 8] ^= 1 << (bit % 8)
        chunk._write(changed)
        try:
            silent += not np.array_equal(source.read(0, 8), ROWS[:8])
        except InvalidData as error:
            assert key_of(chunk).replace("\\", "") in str(error)  # noqa: PT017
    assert (silent == 0) == bool(source.checksum)


def _tiny(chain: str) -> dict[str, Any]:
    return {"shards": (8, D)} if "shards" in chain else {}


def grid(folder: Path) -> Any:
    shape = (20, 10, 10)
    values = {name: (("t", "y", "x"), ROWS[:, i].reshape(shape)) for i, name in enumerate("ab")}
    xarray.Dataset(values).to_zarr(
        folder / "grid", encoding={name: {"chunks": (1, 10, 10)} for name in "ab"}, consolidated=False
    )
    return lambda: open_source(folder / "grid"), folder / "grid/b/c/7/0/0"


def columns(folder: Path) -> Any:
    table = pd.DataFrame(np.column_stack([ROWS, ROWS]), columns=["a", "b", "c", "d"])
    convert(Conversion(open_source(table), None, np.dtype("f8")), folder / "table")
    return lambda: open_source(folder / "table", variables=["a", "d"]), folder / "table/rows/c/0/0"


@pytest.mark.parametrize("kind", [grid, columns])
@pytest.mark.parametrize(
    ("fault", "kept"),
    [*itertools.product(["delete", "truncate", "rewrite"], [False, True]), ("flip", False)],
)
def test_what_is_made_of_zarr_arrays(kind: Any, fault: str, kept: bool, tmp_path: Path) -> None:
    data, path = kind(tmp_path)
    chunk = Chunk(path)
    if fault == "flip" and not data().checksum:
        return  # nothing could notice it
    with in_threads():
        survives(data, getattr(chunk, fault), chunk, tmp_path, kept=kept)


def test_a_flipped_bit_of_what_is_in_memory_changes_nothing(tmp_path: Path) -> None:
    chunk = stored(tmp_path / "x", "zstd with checksum")
    with in_threads():
        unbroken = fitted(tmp_path / "x")
        assert fitted(tmp_path / "x", observer=At(2, chunk.flip)) == unbroken


def test_weights_that_change_between_passes(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(100, D))
    zarr.create_array(tmp_path / "w", data=np.ones(N), chunks=(100,))
    chunk = Chunk(tmp_path / "w/c/7")
    with in_threads(), pytest.raises(DataChanged, match=r"Chunk c/7 of .*w was written again since"):
        fitted(tmp_path / "x", observer=At(2, chunk.rewrite), sample_weight=tmp_path / "w")


def test_a_chunk_of_an_object_store(s3: str) -> None:
    zarr.create_array(UrlStore(f"{s3}/x"), data=ROWS, chunks=(100, D))

    def other(key: str) -> None:
        store.write(f"{s3}/x/{key}", store.read(f"{s3}/x/c/1/0"))

    with in_threads():
        with pytest.raises(DataChanged, match=r"Chunk c/7/0 of s3://.* was written again since"):
            fitted(f"{s3}/x", observer=At(2, lambda: other("c/7/0")))
        with pytest.raises(DataChanged, match=r"Chunk c/9/0 of s3://.* is gone now"):
            fitted(f"{s3}/x", observer=At(2, lambda: store.delete(f"{s3}/x/c/9/0")))
        other("c/9/0")
        with (
            dask.config.set(READ_AGAIN),
            pytest.raises(MissingChunks, match=r"Chunk c/9/0 of s3://.* is gone now"),
        ):
            fitted(f"{s3}/x", observer=At(2, lambda: store.delete(f"{s3}/x/c/9/0")))


def as_npy(folder: Path, rows: np.ndarray) -> Any:
    np.save(folder / "x.npy", rows)
    return folder / "x.npy"


def as_parquet(folder: Path, rows: np.ndarray) -> Any:
    """A folder to which a file is added."""
    (folder / "t").mkdir(exist_ok=True)
    pd.DataFrame(rows[:N], columns=["a", "b"]).to_parquet(folder / "t/0.parquet")
    if len(rows) > N:
        pd.DataFrame(rows[N:], columns=["a", "b"]).to_parquet(folder / "t/1.parquet")
    return folder / "t"


def as_hdf5(folder: Path, rows: np.ndarray) -> Any:
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=rows)
    return folder / "x.h5"


def as_zarr(folder: Path, rows: np.ndarray) -> Any:
    if not (folder / "x").exists():
        zarr.create_array(folder / "x", data=rows, chunks=(100, D))
        return folder / "x"
    array = zarr.open_array(folder / "x", mode="r+")
    array.resize(rows.shape)
    changed = np.flatnonzero((array[:] != rows).any(axis=1))
    array[changed[0] : changed[-1] + 1] = rows[changed[0] : changed[-1] + 1]
    return folder / "x"


def as_grid(folder: Path, rows: np.ndarray) -> Any:
    values = {name: (("t", "y"), rows[:, i].reshape(-1, 100)) for i, name in enumerate("ab")}
    xarray.Dataset(values).to_zarr(folder / "grid", mode="w", consolidated=False)
    return folder / "grid"


def as_array(folder: Path, rows: np.ndarray) -> Any:
    return rows


@pytest.mark.parametrize("written", [as_zarr, as_npy, as_parquet, as_hdf5, as_grid, as_array])
@pytest.mark.parametrize("change", ["appended", "changed"])
def test_data_that_change_between_runs_are_refused(written: Any, change: str, tmp_path: Path) -> None:
    other = np.concatenate([ROWS, ROWS[:100]]) if change == "appended" else ROWS.copy()
    other[1234] += change == "changed"
    with in_threads():
        fitted(written(tmp_path, ROWS), tmp_path / "ck")
        with pytest.raises(CheckpointMismatch, match=r"the data changed .* Remove"):
            fitted(written(tmp_path, other), tmp_path / "ck")


def test_weights_that_change_between_runs_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x", data=ROWS, chunks=(100, D))
    for number, weights in enumerate((np.ones(N), np.arange(1.0, N + 1))):
        zarr.create_array(tmp_path / "w", data=weights, chunks=(100,), overwrite=True)
        with in_threads(), pytest.raises(CheckpointMismatch, match="weights") if number else nullcontext():
            fitted(tmp_path / "x", tmp_path / "ck", sample_weight=tmp_path / "w")


def test_text_that_changes_between_runs_is_refused(tmp_path: Path) -> None:
    for number, rows in enumerate((ROWS, ROWS[:-1])):
        pd.DataFrame(rows, columns=["a", "b"]).to_csv(tmp_path / "t.csv", index=False)
        wanted = Conversion(open_convertible(str(tmp_path / "t.csv")), None, np.dtype("f8"))
        with in_threads(), pytest.raises(CheckpointMismatch, match="data") if number else nullcontext():
            convert(wanted, tmp_path / "out")
