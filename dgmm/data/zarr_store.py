"""Zarr's view of a folder of objects: errors say what to do, and a pickle holds the URL alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from dgmm.data.address import split_url
from dgmm.data.store import Stored, check_writable, only_serves, root_store, stored
from dgmm.data.store_errors import translated, writing


class UrlStore(ObjectStore[Any]):
    """The objects below a URL.

    It is opened with the first request, in whichever process that is: no credentials travel with it, and a
    scheduler through which it passes needs neither those nor obstore.

    Parameters
    ----------
    url : str
        Of a folder: its keys are what Zarr calls the root.
    read_only : bool
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        Store.__init__(self, read_only=read_only)
        self.url = url
        key = split_url(url)[1]
        self._prefix = f"{key}/" if key else ""

    async def _open(self) -> None:
        # Several requests at once may open it: Zarr's own method would refuse the second.
        self.store = await root_store(self.url)
        self._is_open = True

    @property
    def supports_listing(self) -> bool:
        """Web servers do not list what they hold."""
        return not only_serves(self.url)

    def with_read_only(self, read_only: bool = False) -> UrlStore:
        """The same objects."""
        return UrlStore(self.url, read_only=read_only)

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlStore) and (self.url, self.read_only) == (other.url, other.read_only)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return _reopened, (self.url, self.read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The object, or a part of it; None if there is none."""
        await self._ensure_open()
        with translated(f"{self.url}/{key}"):
            return await super().get(self._prefix + key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects."""
        await self._ensure_open()
        with translated(self.url):
            return await super().get_partial_values(prototype, [(self._prefix + k, r) for k, r in key_ranges])

    async def exists(self, key: str) -> bool:
        """Whether there is such an object now."""
        await self._ensure_open()
        with translated(f"{self.url}/{key}"):
            return await super().exists(self._prefix + key)

    async def getsize(self, key: str) -> int:
        """Bytes of the object."""
        await self._ensure_open()
        with translated(f"{self.url}/{key}"):
            return await super().getsize(self._prefix + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write the object."""
        check_writable(self.url)
        await self._ensure_open()
        with writing(f"{self.url}/{key}"):
            await super().set(self._prefix + key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write the object unless there is one."""
        check_writable(self.url)
        await self._ensure_open()
        with writing(f"{self.url}/{key}"):
            await super().set_if_not_exists(self._prefix + key, value)

    async def delete(self, key: str) -> None:
        """Delete the object, if there is one."""
        await self._ensure_open()
        with translated(f"{self.url}/{key}"):
            await super().delete(self._prefix + key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects below."""
        await self._ensure_open()
        async for key in self.list_prefix(prefix):
            await self.delete(key)

    async def list(self) -> AsyncGenerator[str, None]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """All keys below."""
        await self._ensure_open()
        with translated(f"{self.url}/{prefix}"):
            async for key in super().list_prefix(self._prefix + prefix):
                yield key.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names directly below."""
        await self._ensure_open()
        with translated(f"{self.url}/{prefix}"):
            async for name in super().list_dir(self._prefix + prefix):
                yield name


async def objects_below(store: ObjectStore[Any], prefix: str) -> list[Stored]:
    """List any obstore's objects with size and ETag, which Zarr's own listings leave out."""
    import obstore

    await store._ensure_open()
    folder, where = _place(store, prefix)
    with translated(where):
        return [stored(meta, folder) for meta in await obstore.list(store.store, folder or None).collect_async()]


async def object_at(store: ObjectStore[Any], key: str) -> Stored:
    """Size and ETag of one object; `FileNotFoundError` if there is none."""
    import obstore

    await store._ensure_open()
    path, where = _place(store, key)
    with translated(where):
        return stored(await obstore.head_async(store.store, path), "")


def _place(store: ObjectStore[Any], key: str) -> tuple[str, str]:
    """The key in the bucket, and what messages call it."""
    if isinstance(store, UrlStore):
        return (store._prefix + key).rstrip("/"), f"{store.url}/{key}".rstrip("/")
    return key, f"{store}/{key}"


def _reopened(url: str, read_only: bool) -> UrlStore:
    return UrlStore(url, read_only=read_only)
