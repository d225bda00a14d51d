"""The calls by which a process touches files, one by one: to be recorded, to fail, or to be where it is killed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

PATH_CALLS = ("mkdir", "link", "replace", "rename", "unlink", "rmdir", "stat")


@dataclass(frozen=True)
class Call:
    """A call of the operating system.

    Attributes
    ----------
    name : str
        As in `os`; a read and a write through Python's own file objects are calls, too.
    paths : tuple of str
        What it is about; two for a rename and for a link.
    data : bytes
        Of a write.
    flags : int
        Of an open.
    """

    name: str
    paths: tuple[str, ...]
    data: bytes = b""
    flags: int = 0

    def __str__(self) -> str:
        """How reports name its kind: unlike the name, it tells a folder from a file."""
        about = "folder" if self.name in {"open", "fsync", "close"} and Path(self.paths[0]).is_dir() else "file"
        return f"{self.name} {about}"


Perform = Callable[..., Any]
OnCall = Callable[[Call, Perform], Any]
"""Is given a call and what makes it; of a write, that may be told to write only so many bytes."""


@contextmanager
def intercepted(root: str | Path, on_call: OnCall) -> Iterator[None]:
    """Let every call that is about `root`, or something below it, be made by `on_call`."""
    top, real, opened = str(root), dict(vars(os)), dict[int, str]()
    real_open = io.open

    def is_below(path: object) -> bool:
        return isinstance(path, str | os.PathLike) and (
            os.fspath(path) == top or os.fspath(path).startswith(top + "/")
        )

    def on_paths(name: str, *arguments: Any, **options: Any) -> Any:
        paths = tuple(os.fspath(a) for a in arguments if is_below(a))
        perform = partial(real[name], *arguments, **options)
        return on_call(Call(name, paths), perform) if paths else perform()

    def on_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        def perform() -> int:
            descriptor = real["open"](path, flags, mode, **options)
            opened[descriptor] = os.fspath(path)
            return descriptor

        return (
            on_call(Call("open", (os.fspath(path),), flags=flags), perform)
            if is_below(path)
            else real["open"](path, flags, mode, **options)
        )

    def on_write(descriptor: int, data: Any) -> int:
        if descriptor not in opened:
            return real["write"](descriptor, data)

        def perform(size: int | None = None) -> int:
            return real["write"](descriptor, data if size is None else data[:size])

        return on_call(Call("write", (opened[descriptor],), bytes(data)), perform)

    def on_descriptor(name: str, descriptor: int) -> None:
        if descriptor not in opened:
            return real[name](descriptor)

        def perform() -> None:
            if name == "close":
                del opened[descriptor]
            real[name](descriptor)

        return on_call(Call(name, (opened[descriptor],)), perform)

    @contextmanager
    def listed(found: Any) -> Iterator[Iterator[Any]]:
        with found:
            yield (_Entry(entry, on_call) for entry in found)

    def on_scandir(path: Any = ".") -> Any:
        if not is_below(path):
            return real["scandir"](path)
        return listed(on_call(Call("scandir", (os.fspath(path),)), partial(real["scandir"], path)))

    def on_file(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not is_below(path):
            return real_open(path, mode, *arguments, **options)
        assert mode == "rb", "a file of dgmm is written by os.write alone"
        return on_call(
            Call("open", (os.fspath(path),)), lambda: io.BufferedReader(_Read(os.fspath(path), on_call))
        )

    with mock.patch.multiple(
        os, open=on_open, write=on_write, scandir=on_scandir,
        fsync=partial(on_descriptor, "fsync"), close=partial(on_descriptor, "close"),
        **{name: partial(on_paths, name) for name in PATH_CALLS},
    ), mock.patch.object(io, "open", on_file):  # fmt: skip
        yield


class _Entry:
    def __init__(self, entry: os.DirEntry[str], on_call: OnCall) -> None:
        self.name = entry.name
        self.stat = partial(on_call, Call("stat", (entry.path,)), entry.stat)


class _Read(io.FileIO):
    def __init__(self, path: str, on_call: OnCall) -> None:
        super().__init__(path, "rb")
        self._on_read = partial(on_call, Call("read", (path,)))

    def readall(self) -> bytes:
        return self._on_read(super().readall)
