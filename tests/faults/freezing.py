"""Freezes drivers before each of their calls, lets another take over, and looks at what they do when they wake.

    python tests/faults/freezing.py FOLDER EVERY

Drivers are forked from this process, as in killing.py, which then is the other driver: on another host, as far as
it can tell, and later than any lease lasts. Freezes before each EVERY-th call of a round. Prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from itertools import count
from pathlib import Path
from unittest import mock

from file_calls import Call, Perform, intercepted
from killing import stage
from saver import checkpoint_at, last, lost, save_rounds

from dgmm.errors import CheckpointInUse, Superseded, WriteFailed

JOB = "4711"
_ROUNDS = 4
_OTHER_HOST = "node7"


def drive(root: str, at: int, told: int) -> None:
    """Save, and stop this process before call number `at` of the round after the first few; tell what ends it."""
    os.environ["SLURM_JOB_ID"] = JOB
    calls = 0

    def on_call(call: Call, perform: Perform) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            os.write(told, f"{stage(call)}\n".encode())
            os.kill(os.getpid(), signal.SIGSTOP)
        return perform()

    with checkpoint_at(root) as checkpoint:
        save_rounds(checkpoint, root, range(_ROUNDS), 3, lambda *_: None)
        with intercepted(root, on_call):
            for number in count(_ROUNDS):
                save_rounds(checkpoint, root, range(number, number + 1), 3, lambda *_: None)
                with contextlib.suppress(WriteFailed):  # as the thread that renews does
                    checkpoint._ownership._renew()
                if calls < at:
                    return


def frozen(root: str, at: int) -> tuple[int, int]:
    """Start a driver and wait until it is frozen: its process number, and what it is heard by."""
    hear, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            drive(root, at, told)
        except Superseded as error:
            os.write(told, f"{error}\n".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(pid, os.WUNTRACED)
    return pid, hear


def freeze(root: str, at: int) -> tuple[str, str]:
    """Freeze one, take over, wake it: where it was, and what was wrong ('' for nothing)."""
    Path(root).mkdir()
    pid, hear = frozen(root, at)
    with os.fdopen(hear) as heard:
        where = heard.readline().strip()
        if not where:
            return "", ""  # it has fewer calls
        acknowledged: dict[str, int] = {}
        refusal = _refused(root)
        with mock.patch.object(socket, "gethostname", return_value=_OTHER_HOST):
            successor = checkpoint_at(root)
            successor._ownership._clock = lambda: time.time() + 3600
            with successor as checkpoint:
                first = last(checkpoint) + 1
                save_rounds(checkpoint, root, range(first, first + 3), 3, acknowledged.__setitem__)
                del acknowledged["model"]  # which belongs to nobody
                before = _states(root)
                os.kill(pid, signal.SIGCONT)
                said = heard.readline()
                os.waitpid(pid, 0)
                after = _states(root)
    me = rf"process {os.getpid()} on {_OTHER_HOST} \(epoch 2, ours was 1\)"
    expected = rf"in use by process {pid} on {re.escape(socket.gethostname())}, job {JOB}, last seen \d+ s ago"
    wrong = {
        f"refused by {refusal!r}": not re.search(expected, refusal),
        f"it ended by {said!r}": not re.search(f"was taken over by {me}; it goes on, this driver stops", said),
        "it changed what its successor had written": before != after,
        lost(root, acknowledged): True,
    }
    return where, "; ".join(text for text, is_so in wrong.items() if is_so and text)


def _refused(root: str) -> str:
    try:
        with checkpoint_at(root):
            return ""
    except CheckpointInUse as error:
        return str(error)


def _states(root: str) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in Path(root, "checkpoint").iterdir() if "owner" not in path.name
    }


if __name__ == "__main__":
    os.fsync = lambda _: None  # takes time, and is the subject of test_power_loss.py
    wrong, met, at = [], [], 1
    while (found := freeze(f"{sys.argv[1]}/{at}", at))[0]:
        met.append(found[0])
        wrong += [f"before {found[0]} (call {at}): {found[1]}"] if found[1] else []
        at += int(sys.argv[2])
    print(json.dumps({"met": met, "wrong": wrong}))
