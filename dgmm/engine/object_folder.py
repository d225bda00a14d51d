"""A folder of an object store: every write is one request, which the store does as a whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable

from dgmm.data import store
from dgmm.engine.folder import Changed, File, Folder, Version
from dgmm.errors import CheckpointError


class ObjectFolder(Folder):
    """The objects directly below a URL.

    Parameters
    ----------
    url : str
        Of ``s3://``, ``gs://`` or ``az://``; of ``http(s)://`` to read from.
    """

    def __init__(self, url: str) -> None:
        self.address = url
        self._keeps_conditions = False

    def make(self) -> None:
        store.check_writable(self.address)

    def list(self) -> list[File]:
        return [File(o.name, o.modified) for o in store.list_objects(self.address) if "/" not in o.name]

    def read(self, name: str) -> bytes:
        return store.read(self._url(name))

    def write(self, name: str, content: bytes) -> None:
        store.write(self._url(name), content)

    def version(self, name: str) -> Version | None:
        try:
            return store.describe(self._url(name)).version
        except FileNotFoundError:
            return None

    def put(
        self, name: str, content: bytes, over: Version | None, check: Callable[[], None] = lambda: None
    ) -> Version:
        check()
        try:
            version = store.put(self._url(name), content, over)
        except FileExistsError:
            raise Changed from None
        if not self._keeps_conditions:
            self._try_conditions(name, content)
        return version

    def _try_conditions(self, name: str, content: bytes) -> None:
        """Refuse a store that writes whatever the condition: two drivers would destroy each other's states."""
        for over in (None, {"e_tag": '"0"', "version": "1"}):
            try:
                # The same content: if the store does write it, no harm is done.
                store.put(self._url(name), content, over)
            except FileExistsError:
                continue
            with contextlib.suppress(OSError):
                self.delete(name)
            msg = (
                f"the object store of {self.address} ignores conditions (If-None-Match, If-Match), so that two "
                "drivers could write over each other's checkpoints. Use a store that keeps them, as those of "
                "Amazon, Google and Azure do, or a folder"
            )
            raise CheckpointError(msg)
        self._keeps_conditions = True

    def delete(self, name: str) -> None:
        store.delete(self._url(name))

    def sweep(self) -> None:
        """Nothing: an object is there as a whole, or not at all."""

    def check_writable(self) -> None:
        name = f".dgmm-{uuid.uuid4().hex}"
        self.write(name, b"")
        with contextlib.suppress(OSError):  # who may write need not be allowed to delete
            self.delete(name)

    def _url(self, name: str) -> str:
        return f"{self.address}/{name}"
