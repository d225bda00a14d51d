"""Which chunks of a Zarr array are stored, found by one listing of the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

from dgmm.data.zarr_store import object_at, objects_below
from dgmm.errors import InvalidData

Coordinates = tuple[int, ...]
ZarrArray = zarr.Array[Any]
# A checkpoint knows the data by it.
RESTORE = "Restore it with its time of modification (cp -p, rsync -t) and run the same again"
REQUESTS = 64  # in flight at once on a remote store
T = TypeVar("T")


class Chunk(NamedTuple):
    """A stored chunk: its size in bytes, and what changes when it is written again."""

    size: int
    stamp: str


@dataclass(frozen=True)
class Missing:
    """Chunks that are not stored."""

    count: int
    total: int
    first: str
    first_row: int


def storage_shape(array: ZarrArray) -> tuple[int, ...]:
    """Shape of the stored objects: shards where there are any, else chunks."""
    return array.shards or array.chunks


def storage_grid(array: ZarrArray) -> tuple[int, ...]:
    """Number of stored objects along each dimension."""
    return tuple(-(-n // c) for n, c in zip(array.shape, storage_shape(array), strict=True))


def chunk_key(array: ZarrArray, coordinates: Coordinates) -> str:
    """Key of a stored object relative to the array, e.g. "c/3/0" (format 3) or "3.0" (format 2)."""
    key: str = array.metadata.encode_chunk_key(coordinates)
    return key


def expected_chunks(array: ZarrArray) -> Iterator[tuple[Coordinates, str]]:
    """Coordinates and key of every object that a full array has, in row order."""
    return ((at, chunk_key(array, at)) for at in product(*map(range, storage_grid(array))))


def list_chunks(array: ZarrArray) -> dict[str, Chunk]:
    """List what is stored under the array, by key; among it are its metadata."""
    store, prefix = array.store, array.store_path.path
    if isinstance(store, LocalStore):
        return dict(_walk(Path(store.root) / prefix))
    if isinstance(store, ObjectStore) and store.supports_listing:
        return {found.name: Chunk(found.size, found.stamp) for found in sync(objects_below(store, prefix))}
    found: dict[str, Chunk | None]
    if not store.supports_listing:
        found = {}
    elif isinstance(store, FsspecStore):
        found = _find(store, prefix)
    else:
        found = {key.removeprefix(prefix).lstrip("/"): None for key in sync(_keys(store, prefix))}
    listable = any(name in found for name in ("zarr.json", ".zarray"))
    if listable and isinstance(store, FsspecStore):
        return {key: chunk for key, chunk in found.items() if chunk is not None}
    # A store that cannot be listed (plain HTTP) is asked for each chunk.
    keys = list(found) if listable else [key for _, key in expected_chunks(array)]
    chunks = in_batches(lambda key: _ask(array, key), keys)
    return {key: chunk for key, chunk in zip(keys, chunks, strict=True) if chunk is not None}


def is_stored(array: ZarrArray, key: str) -> bool:
    """Ask the store itself, not a cached listing, whether a chunk is there now, and not empty."""
    path = array.store_path / key
    if isinstance(array.store, ObjectStore):
        try:
            return sync(object_at(array.store, path.path)).size > 0
        except FileNotFoundError:
            return False
    # Of a file that was truncated to nothing a shard reads as the fill value too.
    return bool(sync(path.get(default_buffer_prototype(), RangeByteRequest(0, 1))))


def missing_chunks(array: ZarrArray, stored: dict[str, Chunk]) -> Missing | None:
    """Compare what is stored with what a full array has; in shards every inner chunk counts."""
    codec = _sharding(array)
    if codec is None:
        absent = [(at, key) for at, key in expected_chunks(array) if key not in stored]
        if not absent:
            return None
        at, key = absent[0]
        return Missing(len(absent), math.prod(storage_grid(array)), key, at[0] * array.chunks[0])
    return _missing_inner(array, codec, stored)


def fingerprint(array: ZarrArray, stored: dict[str, Chunk]) -> str:
    """SHA-256 of the metadata without user attributes, and of each stored chunk's key, size and stamp."""
    metadata = {key: value for key, value in array.metadata.to_dict().items() if key != "attributes"}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True, default=str).encode())
    for _, key in expected_chunks(array):
        if (chunk := stored.get(key)) is not None:
            digest.update(f"\n{key} {chunk.size} {chunk.stamp}".encode())
    return digest.hexdigest()


def in_batches(ask: Callable[[str], Awaitable[T]], keys: Iterable[str]) -> list[T]:
    """Ask about many keys, some at a time, on Zarr's event loop."""

    async def ask_all() -> list[T]:
        answers: list[T] = []
        waiting = iter(keys)
        while batch := list(islice(waiting, REQUESTS)):
            answers += await asyncio.gather(*map(ask, batch))
        return answers

    return sync(ask_all())


def _sharding(array: ZarrArray) -> ShardingCodec | None:
    codecs: Any = getattr(array.metadata, "codecs", ())
    return codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None


def _missing_inner(array: ZarrArray, codec: ShardingCodec, stored: dict[str, Chunk]) -> Missing | None:
    inner, shard = array.chunks, storage_shape(array)
    per_shard = tuple(s // c for s, c in zip(shard, inner, strict=True))
    inner_grid = tuple(-(-n // c) for n, c in zip(array.shape, inner, strict=True))

    async def present(key: str) -> Any:
        # Zarr has no public way to an index; this is the function its own partial reads go through.
        try:
            index = await codec._load_shard_index_maybe(array.store_path / key, per_shard)
        except (ValueError, RuntimeError) as error:
            msg = f"The index of shard {key} of {array.store_path} cannot be read: {error}. Restore or rewrite it."
            raise InvalidData(msg) from error
        return None if index is None else index.get_full_chunk_map()

    shards = list(expected_chunks(array))
    maps = iter(in_batches(present, (key for _, key in shards if key in stored)))
    count, first, first_row = 0, "", 0
    for at, key in shards:
        # Inner chunks beyond the array's edge are never written.
        within = tuple(min(p, g - a * p) for p, g, a in zip(per_shard, inner_grid, at, strict=True))
        found = next(maps) if key in stored else None
        full = np.zeros(within, bool) if found is None else found[tuple(map(slice, within))]
        absent = np.argwhere(~full)
        if len(absent) and not count:
            first = key if found is None else f"inner chunk {'/'.join(map(str, absent[0]))} of shard {key}"
            first_row = at[0] * shard[0] + int(absent[0][0]) * inner[0]
        count += len(absent)
    return Missing(count, math.prod(inner_grid), first, first_row) if count else None


def _walk(folder: Path) -> Iterator[tuple[str, Chunk]]:
    folders = [("", os.fspath(folder))]
    while folders:
        prefix, path = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    status = entry.stat()
                    yield prefix + entry.name, Chunk(status.st_size, str(status.st_mtime_ns))


def _find(store: FsspecStore, prefix: str) -> dict[str, Chunk | None]:
    store.fs.invalidate_cache()
    root = "/".join(part for part in (store.path.strip("/"), prefix) if part)
    try:
        found = sync(store.fs._find(root if not store.path.startswith("/") else f"/{root}", detail=True))
    except (FileNotFoundError, NotImplementedError):
        return {}
    stamps = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
    return {
        name.strip("/").removeprefix(root).lstrip("/"): Chunk(
            int(info.get("size") or 0), next((str(info[s]) for s in stamps if info.get(s)), "")
        )
        for name, info in found.items()
    }


async def _keys(store: Any, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix + "/" if prefix else "")]


async def _ask(array: ZarrArray, key: str) -> Chunk | None:
    store = array.store
    path = (array.store_path / key).path
    if isinstance(store, MemoryStore):
        value = await store.get(path, default_buffer_prototype())
        content = b"" if value is None else value.to_bytes()
        return None if value is None else Chunk(len(content), hashlib.sha256(content).hexdigest())
    try:
        if isinstance(store, ObjectStore):
            described = await object_at(store, path)
            return Chunk(described.size, described.stamp)
        return Chunk(await store.getsize(path), "")
    except FileNotFoundError:
        return None
