"""A driver that saves and saves, with the checkpoint code and NumPy alone, and what its folder must hold.

The whole package takes seconds to load. What is tested here needs none of it, and a fork of a process that has
loaded this much is there in milliseconds.
"""

from __future__ import annotations

import contextlib
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

if "dgmm" not in sys.modules:
    sys.modules["dgmm"] = package = types.ModuleType("dgmm")
    package.__path__ = [str(Path(__file__).parents[2] / "dgmm")]

import numpy as np

from dgmm.engine import archive
from dgmm.engine.checkpoint import Checkpoint
from dgmm.errors import DgmmError, DgmmWarning

IDENTITY = {"data": "abc", "seed": 1}
KINDS = ("step", "record", "model")
"""What it saves in each round: a step under a new name; a record and a model over the ones before."""

_NOTHING = -1


def checkpoint_at(root: str) -> Checkpoint:
    return Checkpoint(f"{root}/checkpoint", IDENTITY, {})


def save_rounds(
    checkpoint: Checkpoint, root: str, rounds: range, values: int, acknowledge: Callable[[str, int], None]
) -> None:
    """Save what each of `rounds` has reached, and say so each time."""
    for number in rounds:
        header, arrays = {"number": number}, {"values": np.full(values, float(number))}
        checkpoint.save_step("iteration", number, header, arrays)
        acknowledge("step", number)
        checkpoint.save("judged", header, arrays)
        acknowledge("record", number)
        archive.write(f"{root}/model.dgmm", archive.pack("model", header, arrays))
        acknowledge("model", number)


def last(checkpoint: Checkpoint) -> int:
    """The number of the newest step."""
    latest = checkpoint.load_latest("iteration")
    return _NOTHING if latest is None else latest[0]


def lost(root: str, acknowledged: dict[str, int]) -> str:
    """What of the acknowledged a folder does not have, or has only in parts; '' if it has it all."""
    try:
        with warnings.catch_warnings():
            # A file that a kill or a power loss damages must be one that nobody was told of.
            warnings.simplefilter("error", DgmmWarning)
            found = _found(root)
    except (DgmmError, DgmmWarning) as error:
        return f"{type(error).__name__}: {error}"
    for kind in KINDS:
        number, header, values = found.get(kind, (_NOTHING, None, None))
        if number < acknowledged.get(kind, _NOTHING):
            return f"{kind} {number} was found, {acknowledged[kind]} was acknowledged"
        if header is not None and (header["number"] != number or not np.all(values == number)):
            return f"{kind} {number} is mixed"
    return ""


def _found(root: str) -> dict[str, tuple[int, dict[str, int], np.ndarray]]:
    checkpoint, found = checkpoint_at(root), {}
    latest, record = checkpoint.load_latest("iteration"), checkpoint.load("judged")
    if latest is not None:
        found["step"] = (latest[0], latest[1], latest[2]["values"])
    if record is not None:
        found["record"] = (record[0]["number"], record[0], record[1]["values"])
    with contextlib.suppress(FileNotFoundError):
        header, arrays = archive.read(f"{root}/model.dgmm", "model")
        found["model"] = (header["number"], header, arrays["values"])
    return found


if __name__ == "__main__":
    with checkpoint_at(sys.argv[1]) as checkpoint:
        begin = last(checkpoint) + 1
        print("from", begin, flush=True)
        save_rounds(
            checkpoint, sys.argv[1], range(begin, sys.maxsize), 50_000, lambda *told: print(*told, flush=True)
        )
