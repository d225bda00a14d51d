"""Kills savers by the thousand and looks, after each kill, at what they have left.

    python tests/faults/killing.py FOLDER KILLS SEED

Savers are forked from this process, which has loaded what they need. They die by SIGKILL, in turn at a random
moment of the clock and before a random call. Prints one line of JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from file_calls import Call, OnCall, Perform, intercepted
from saver import checkpoint_at, last, lost, save_rounds

_CALLS = 150  # of two or three rounds, and of taking over before them
_TOLD = 6  # in two rounds
_BETWEEN_TWO_S = 0.01  # about as long as it takes from one to the next
_MOST_VALUES = 50_000


class Board:
    """Where a saver writes which call it is in, for whoever has killed it."""

    _SIZE = 64

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._SIZE)

    def write(self, text: str) -> None:
        self._memory[:] = text.encode().ljust(self._SIZE)

    def read(self) -> str:
        return self._memory[:].decode().strip()


class Saver:
    """A forked one, which kills itself before call number `fatal`."""

    def __init__(self, root: str, seed: int, board: Board, fatal: int) -> None:
        hear, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be_killed(root, random.Random(seed), board, fatal, told)
        os.close(told)
        self._hear, self._rest = hear, b""

    def hear(self) -> list[tuple[str, int]]:
        """What it has acknowledged since; nothing once it is dead."""
        heard = os.read(self._hear, 4096)
        *lines, self._rest = (self._rest + heard).split(b"\n")
        said = [(kind.decode(), int(number)) for kind, number in (line.split() for line in lines)]
        return said or (self.hear() if heard else [])

    def end(self) -> None:
        """Kill it, if it has not done so itself."""
        os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        os.close(self._hear)
        status = os.waitpid(self.pid, 0)[1]
        assert os.WIFSIGNALED(status), "a saver ended by an error, above"


def stage(call: Call) -> str:
    """A call and the kind of file it is about."""
    name = Path(call.paths[0]).name.removeprefix(".")
    kinds = {"owner": "owner", "iteration": "step", "judged": "record", "model": "model"}
    return f"{call.name} {next((kind for start, kind in kinds.items() if name.startswith(start)), 'folder')}"


def stages(root: str) -> set[str]:
    """All that happen in the life of a saver, but for the first in a folder."""
    found: set[str] = set()

    def on_call(call: Call, perform: Perform) -> object:
        found.add(stage(call))
        return perform()

    for _ in range(2):
        found.clear()
        _live(root, random.Random(0), on_call, lambda *_: None, rounds=5)
    return found


def kill_many(root: str, kills: int, seed: int) -> dict[str, object]:
    """Kill savers one after another; see the module."""
    generator, board = random.Random(seed), Board()
    acknowledged: dict[str, int] = {}
    losses: list[str] = []
    fell_in: Counter[str] = Counter()
    longest = 0.0
    for number in range(kills):
        by_clock, began = number % 2 == 0, time.monotonic()
        saver = Saver(root, generator.randrange(2**32), board, 0 if by_clock else generator.randrange(1, _CALLS))
        count, wanted = 0, generator.randrange(_TOLD) if by_clock else sys.maxsize
        while count < wanted and (said := saver.hear()):
            longest = longest if count else max(longest, time.monotonic() - began)
            count += len(said)
            acknowledged |= dict(said)
        if by_clock:
            time.sleep(generator.random() * _BETWEEN_TWO_S)
        saver.end()
        while said := saver.hear():
            acknowledged |= dict(said)
        saver.bury()
        fell_in[board.read()] += 1
        if loss := lost(root, acknowledged):
            losses.append(f"kill {number}, {board.read()}: {loss}")
    with checkpoint_at(root) as checkpoint:
        left = sorted(file.name for file in checkpoint.folder.list())
        epoch = checkpoint.epoch
        number = last(checkpoint) + 1
        save_rounds(checkpoint, root, range(number, number + 1), 3, lambda *_: None)
    beside = sorted(path.name for path in Path(root).iterdir())
    return {
        "kills": kills, "losses": losses, "longest_s": longest, "fell_in": dict(fell_in.most_common()),
        "acknowledged": acknowledged, "left": left, "beside": beside, "epoch": epoch,
    }  # fmt: skip


def _live(
    root: str, generator: random.Random, on_call: OnCall, tell: Callable[[str, int], object], rounds: int
) -> None:
    """Take the folder over and save, going on from what is there."""
    with intercepted(root, on_call), checkpoint_at(root) as checkpoint:
        first = last(checkpoint) + 1
        for number in range(first, first + rounds):
            save_rounds(checkpoint, root, range(number, number + 1), generator.randrange(_MOST_VALUES), tell)
            checkpoint._ownership._renew()  # as a thread does every five seconds


def _be_killed(root: str, generator: random.Random, board: Board, fatal: int, told: int) -> None:
    """What a fork does; it does not return."""
    calls = 0

    def on_call(call: Call, perform: Perform) -> object:
        nonlocal calls
        calls += 1
        board.write(stage(call))
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return perform()
        finally:
            board.write("between calls")

    try:
        _live(
            root, generator, on_call, lambda *said: os.write(told, b"%b %d\n" % (said[0].encode(), said[1])), 2**31
        )
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    folder, many, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for name in ("trial", "killed"):
        Path(folder, name).mkdir()
    expected = sorted(stages(f"{folder}/trial"))
    print(json.dumps({**kill_many(f"{folder}/killed", many, seed), "stages": expected}))
