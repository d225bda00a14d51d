"""What a power loss may leave of a folder: a model of the worst file system that POSIX allows.

Its rules:

1. Syncing a file makes its content durable, but not its name.
2. Syncing a folder makes its names durable, but not the content of its files, nor the folder's own name.
3. Of what was written to a file since it was synced anything may be there: nothing, all, a part from the front,
   and zeros in place of any part.
4. Of the names in a folder that were created, linked, renamed and removed since it was synced, any may have become
   durable, whatever the order. A rename is one change: the old name goes as the new one comes.
5. What is durable stays.

File systems promise more (most keep the order of names), and differ in what. Whoever counts on nothing else is
safe on all of them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from file_calls import Call, Perform

Image = dict[str, bytes | None]
"""Content by path; None for a folder."""

_ROOT = 0
_MOST_FOR_ALL_SUBSETS = 6


@dataclass(frozen=True)
class Named:
    """Names of a folder change: each to be another file, or none."""

    folder: int
    names: dict[str, int | None]


@dataclass(frozen=True)
class Written:
    """Data at the end of a file; of a truncation the file is empty before."""

    file: int
    data: bytes
    truncated: bool = False


@dataclass(frozen=True)
class Synced:
    """A file or a folder."""

    file: int


@dataclass(frozen=True)
class Told:
    """Somebody was told that this is durable."""

    kind: str
    number: int


Operation = Named | Written | Synced | Told


class Recording:
    """The operations of a process below `root`, which is empty and durable before them."""

    def __init__(self, root: str | Path) -> None:
        self.operations: list[Operation] = []
        self._numbers: dict[str, int] = {str(root): _ROOT}
        self._made = 0

    def on_call(self, call: Call, perform: Perform) -> object:
        """Make a call and note what it did."""
        result = perform()
        path = call.paths[-1]
        match call.name:
            case "open" if call.flags & os.O_CREAT:
                file = self._numbers.get(path) or self._new()
                self.operations.append(Written(file, b"", truncated=True))
                if path not in self._numbers:
                    self._name({path: file})
            case "mkdir":
                self._name({path: self._new()})
            case "write":
                self.operations.append(Written(self._numbers[path], call.data[:result]))
            case "fsync":
                self.operations.append(Synced(self._numbers[path]))
            case "link":
                self._name({path: self._numbers[call.paths[0]]})
            case "rename" | "replace":
                self._name({call.paths[0]: None, path: self._numbers[call.paths[0]]})
            case "unlink" | "rmdir":
                self._name({path: None})
        return result

    def tell(self, kind: str, number: int) -> None:
        """Note what is acknowledged."""
        self.operations.append(Told(kind, number))

    def _new(self) -> int:
        self._made += 1
        return self._made

    def _name(self, numbers: dict[str, int | None]) -> None:
        (folder,) = {os.path.dirname(path) for path in numbers}  # noqa: PTH120 (once a call)
        names = {os.path.basename(path): number for path, number in numbers.items()}  # noqa: PTH119
        self.operations.append(Named(self._numbers[folder], names))
        for path, number in numbers.items():
            self._numbers.pop(path, None)
            if number is not None:
                self._numbers[path] = number


class Disk:
    """What of the operations so far is durable, and what may be."""

    def __init__(self) -> None:
        self._names: dict[int, dict[str, int]] = defaultdict(dict)
        self._content: dict[int, bytes] = {}
        self._new_names: dict[int, list[Named]] = defaultdict(list)
        self._new_content: dict[int, bytes] = {}

    def do(self, operation: Operation) -> None:
        match operation:
            case Named(folder):
                self._new_names[folder].append(operation)
            case Written(file, data, truncated):
                before = b"" if truncated else self._new_content.get(file, self._content.get(file, b""))
                self._new_content[file] = before + data
            case Synced(file):
                self._names[file] = _renamed(self._names[file], self._new_names.pop(file, []))
                if file in self._new_content:
                    self._content[file] = self._new_content.pop(file)

    def images(self) -> Iterator[Image]:
        """Everything that a power loss may leave now; the last is that nothing is lost."""
        folders = [folder for folder, changes in self._new_names.items() if changes]
        for some in product(*(_some(self._new_names[folder]) for folder in folders)):
            chosen = dict(zip(folders, some, strict=True))
            paths = dict(self._paths(_ROOT, "", chosen))
            for content in self._contents(set(paths.values())):
                yield {path: content.get(file) for path, file in paths.items()}

    def _paths(self, folder: int, above: str, chosen: dict[int, list[Named]]) -> Iterator[tuple[str, int]]:
        for name, file in _renamed(self._names[folder], chosen.get(folder, [])).items():
            yield above + name, file
            yield from self._paths(file, f"{above}{name}/", chosen)

    def _contents(self, files: set[int]) -> Iterator[dict[int, bytes]]:
        """Each file that is not synced in each state, the others lost, or whole."""
        unsynced = {file: content for file, content in self._new_content.items() if file in files}
        durable = {file: self._content.get(file, b"") for file in files & (self._content.keys() | unsynced.keys())}
        for file, content in unsynced.items():
            for state in _states(durable[file], content):
                yield {**durable, file: state}
                yield {**durable, **unsynced, file: state}
        yield {**durable, **unsynced}


def power_losses(operations: list[Operation]) -> Iterator[tuple[dict[str, int], Image]]:
    """Each image, at each cut, with the last of each kind that had been told of; no pair twice."""
    disk, told, seen = Disk(), dict[str, int](), set[int]()
    for operation in (None, *operations):
        if isinstance(operation, Told):
            told[operation.kind] = operation.number
        elif operation:
            disk.do(operation)
        for image in disk.images():
            key = hash((frozenset(told.items()), frozenset(image.items())))
            if key not in seen:
                seen.add(key)
                yield dict(told), image


def restore(image: Image, root: Path) -> None:
    """Make a folder what an image says."""
    root.mkdir()
    for path, content in image.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def _renamed(names: dict[str, int], changes: list[Named]) -> dict[str, int]:
    result: dict[str, int | None] = dict(names)
    for change in changes:
        result |= change.names
    return {name: file for name, file in result.items() if file is not None}


def _some(changes: list[Named]) -> Iterator[list[Named]]:
    """All subsets; of many changes those that lack one, have one, or end early."""
    count = len(changes)
    if count <= _MOST_FOR_ALL_SUBSETS:
        for size in range(count + 1):
            yield from map(list, combinations(changes, size))
        return
    for at in range(count):
        yield changes[:at] + changes[at + 1 :]
        yield changes[at : at + 1]
        yield changes[:at]
    yield changes


def _states(old: bytes, new: bytes) -> Iterator[bytes]:
    """What a file may hold that held `old` and was to hold `new`."""
    size, half = len(new), len(new) // 2
    yield from (old, bytes(size), new[:1], new[:half], new[: size - 1])
    yield from (new[:half] + bytes(size - half), bytes(half) + new[half:], new[: size - 1] + b"\0")
