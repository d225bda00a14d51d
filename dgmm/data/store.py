"""Objects behind a URL: listed, read and written through obstore, with errors that say what to do.

Every function takes the URL of an object, or of the folder of objects: ``s3://bucket/folder/name``. A store is
made from the environment where it is used, and never pickled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dgmm.data import credentials
from dgmm.data.address import kind_of, split_url
from dgmm.data.store_errors import answered, translated, writing
from dgmm.errors import MissingExtra, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")
Version = Mapping[str, str]
"""Which writing of an object: a condition for the next one."""


class _Patience(NamedTuple):
    """How long to wait for a store."""

    timeouts: dict[str, str]
    retries: dict[str, Any]


# The first request to a bucket finds out whether anybody answers there.
_HURRIED = _Patience(
    {"connect_timeout": "3s", "read_timeout": "8s", "timeout": "10s"},
    {"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
)
# Later ones outlast a disturbance; a large object may take minutes, but silence in between is the end.
_PATIENT = _Patience(
    {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "30min"},
    {"max_retries": 8, "retry_timeout": timedelta(seconds=45)},
)


class Stored(NamedTuple):
    """An object as a store lists it.

    Attributes
    ----------
    name : str
        Below the folder that was listed.
    size : int
        Bytes.
    modified : float
        Seconds since 1970, by the store's clock.
    stamp : str
        Changes when the object is written again: its ETag, or the time.
    version : mapping
        For `put`.
    """

    name: str
    size: int
    modified: float
    stamp: str
    version: Version


def only_serves(url: str) -> bool:
    """Whether it is a web server's: those neither list what they hold nor take anything."""
    return kind_of(url) == "http"


def check_writable(url: str) -> None:
    """Refuse the URLs of web servers.

    Raises
    ------
    StoreError
    """
    if only_serves(url):
        msg = f"{url}: nothing can be written to a web server. Use a folder, or an object store (s3://, gs://, az://)."
        raise StoreError(msg)


def list_objects(url: str) -> list[Stored]:
    """List all objects below a folder; none if there is no such folder.

    Raises
    ------
    SourceNotFound
        There is no such bucket.
    StoreError
        No permission, no answer.
    """

    async def ask(obs: Any, store: Any, key: str) -> list[Stored]:
        return [stored(meta, key) for meta in await obs.list(store, key or None).collect_async()]

    return _ask(url, ask)


def is_folder(url: str) -> bool:
    """Whether there is any object below a URL; a web server does not say."""
    if only_serves(url):
        return False

    async def ask(obs: Any, store: Any, key: str) -> bool:
        # The stream asks for a page of the listing when it is needed.
        async for _ in obs.list(store, key or None, chunk_size=1):
            return True
        return False

    return _ask(url, ask)


def is_object(url: str) -> bool:
    """Whether there is an object of this very name."""
    try:
        describe(url)
    except FileNotFoundError:
        return False
    return True


def describe(url: str) -> Stored:
    """Size, time and version of one object.

    Raises
    ------
    FileNotFoundError, StoreError
    """

    async def ask(obs: Any, store: Any, key: str) -> Stored:
        return stored(await obs.head_async(store, key), key.rpartition("/")[0])

    return _ask(url, ask)


def read(url: str) -> bytes:
    """All bytes of an object.

    Raises
    ------
    FileNotFoundError, StoreError
    """

    async def ask(obs: Any, store: Any, key: str) -> bytes:
        return bytes(await (await obs.get_async(store, key)).bytes_async())

    return _ask(url, ask)


def read_range(url: str, start: int, stop: int) -> memoryview:
    """Bytes ``start:stop`` of an object.

    Raises
    ------
    FileNotFoundError, StoreError
    """

    async def ask(obs: Any, store: Any, key: str) -> memoryview:
        return memoryview(await obs.get_range_async(store, key, start=start, end=stop))

    return _ask(url, ask)


def write(url: str, content: bytes) -> Version:
    """Write an object in one request: whole and durable, or not at all.

    Raises
    ------
    StoreError
    """
    return _put(url, content, "overwrite")


def put(url: str, content: bytes, over: Version | None) -> Version:
    """Write an object only where there is none (`over` is None), or only over that version of it.

    Raises
    ------
    FileExistsError
        There is another one.
    StoreError
    """
    return _put(url, content, "create" if over is None else dict(over))


def delete(url: str) -> None:
    """Delete an object; none is as good.

    Raises
    ------
    StoreError
    """

    async def ask(obs: Any, store: Any, key: str) -> None:
        await obs.delete_async(store, key)

    try:
        _ask(url, ask)
    except FileNotFoundError:
        return


async def root_store(url: str) -> ObjectStore:
    """obstore's store of the whole bucket of a URL, once it has answered; on Zarr's event loop.

    Raises
    ------
    MissingExtra, StoreError
    """
    root, made_from = split_url(url)[0], credentials.environment()
    if (known := _known.get(root)) and known[0] == made_from:
        return known[1]
    with translated(url):
        hurried = _open(root, _HURRIED)
        try:
            await _obstore().head_async(hurried, "zarr.json")
        except Exception as error:
            # Refusals are for the request that needs what is refused.
            if not answered(error):
                raise
    store = _open(root, _PATIENT)
    _known[root] = made_from, store
    return store


_known: dict[str, tuple[tuple[tuple[str, str], ...], ObjectStore]] = {}


def _open(root: str, patience: _Patience) -> ObjectStore:
    _obstore()
    from obstore import store

    kind = kind_of(root)
    assert kind is not None  # noqa: S101  callers have asked
    make: Any = {
        "s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore, "http": store.HTTPStore,
    }[kind]  # fmt: skip
    made: ObjectStore = make.from_url(
        root,
        client_options=patience.timeouts | credentials.client_options(kind),
        retry_config=patience.retries,
        **credentials.store_options(kind),
    )
    return made


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        msg = "URLs of object stores need obstore. Install it: pip install 'dgmm[objects]'"
        raise MissingExtra(msg) from error
    return obstore


def _ask(url: str, question: Callable[[Any, Any, str], Awaitable[T]]) -> T:
    # On Zarr's event loop, and not by obstore's blocking functions: there a signal would wait for the answer.
    from zarr.core.sync import sync

    async def answer() -> T:
        store = await root_store(url)
        with translated(url):
            return await question(_obstore(), store, split_url(url)[1])

    return sync(answer())


def _put(url: str, content: bytes, mode: Any) -> Version:
    async def ask(obs: Any, store: Any, key: str) -> Version:
        refused = [obs.exceptions.AlreadyExistsError, obs.exceptions.PreconditionError]
        if isinstance(mode, dict):
            refused.append(FileNotFoundError)  # Amazon's answer where there is nothing to replace
        with writing(url):
            try:
                # Parts of a large object would be written unconditionally.
                return _version(await obs.put_async(store, key, content, mode=mode, use_multipart=False))
            except tuple(refused):
                msg = f"{url} was written, or deleted, by somebody else"
                raise FileExistsError(msg) from None

    check_writable(url)
    return _ask(url, ask)


def stored(meta: Any, folder: str) -> Stored:
    """What obstore says of an object below a folder."""
    modified = meta["last_modified"].timestamp()
    name = meta["path"].removeprefix(folder).lstrip("/")
    return Stored(name, meta["size"], modified, meta["e_tag"] or str(modified), _version(meta))


def _version(meta: Any) -> Version:
    return {key: meta[key] for key in ("e_tag", "version") if meta[key] is not None}
