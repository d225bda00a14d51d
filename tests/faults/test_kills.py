"""Whenever a saver is killed, its folder loads, has all that was acknowledged, and no mixture of two states."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, environment
from facts import new_seed, tell
from file_calls import Call, Perform, intercepted
from killing import stage
from saver import KINDS, checkpoint_at, last, lost

from dgmm.engine import archive
from dgmm.engine.checkpoint import KEPT_STEPS

HERE = Path(__file__).parent
SIZES = [20, pytest.param(1_000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]


@pytest.mark.parametrize("kills", SIZES)
def test_a_killed_saver_has_lost_nothing(tmp_path, kills):
    found = subprocess.run(
        [sys.executable, HERE / "killing.py", tmp_path, str(kills), str(new_seed())],
        env=environment(OPENBLAS_NUM_THREADS="1"), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    facts = json.loads(found.stdout)
    print(f"killed in: {facts['fell_in']}")
    assert facts["losses"] == []
    assert facts["kills"] == sum(facts["fell_in"].values()) == kills
    assert facts["acknowledged"].keys() == set(KINDS)
    files = [re.sub(r"\d+", "N", name) for name in facts["left"]]
    assert files.count("iteration-N.npz") <= KEPT_STEPS + 1
    assert set(files) == {"iteration-N.npz", "judged.npz", "owner-N.json"}  # and no temporary file
    assert facts["beside"] == ["checkpoint", "model.dgmm"]
    if kills >= 1_000:  # they met the stages of a write; chance passes over one or two of the short ones
        assert len(set(facts["stages"]) - set(facts["fell_in"])) <= (2 if kills < 10_000 else 0)
    tell("SIGKILL of a saving process", kills, kills, facts["longest_s"], "all states")


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_no_acknowledged_object(s3, kills):
    generator, acknowledged, longest = random.Random(new_seed()), {}, 0.0
    for _ in range(kills):
        saver = subprocess.Popen(
            [sys.executable, HERE / "saver.py", s3], env=environment(), stdout=subprocess.PIPE, text=True
        )
        try:
            begun = saver.stdout.readline()
            began = time.monotonic()
            assert int(begun.removeprefix("from ")) > acknowledged.get("step", -1)
            for count in range(generator.randrange(1, 15)):
                hear(saver.stdout.readline(), acknowledged)
                longest = longest if count else max(longest, time.monotonic() - began)
            time.sleep(generator.random() * 0.004)
        finally:
            saver.send_signal(signal.SIGKILL)
            rest = saver.communicate()[0]
        assert saver.returncode == -signal.SIGKILL
        for line in rest.splitlines(keepends=True):
            hear(line, acknowledged)
        assert lost(s3, acknowledged) == ""
        with checkpoint_at(s3) as checkpoint:
            assert last(checkpoint) >= acknowledged["step"]
            assert len(checkpoint.names("iteration")) <= KEPT_STEPS + 1
    tell("SIGKILL of a process that saves to S3", kills, kills, longest, "all states")


def hear(line: str, acknowledged: dict[str, int]) -> None:
    """Note what a whole line acknowledges."""
    if line.endswith("\n"):
        kind, number = line.split()
        acknowledged[kind] = int(number)


ELSEWHERE = """
import pathlib, sys
import saver
path, dead = map(pathlib.Path, sys.argv[1:])
dead.touch()
saver.archive.write(path, b"theirs")
assert not dead.exists()
"""


@pytest.mark.parametrize("after", [False, True], ids=["before each call", "after each call"])
def test_whoever_saves_a_model_leaves_alone_what_another_one_is_writing(tmp_path, after):
    path, dead = tmp_path / "model.dgmm", tmp_path / f".model.dgmm.{'0' * 32}.tmp"
    neighbours = [tmp_path / f".other.dgmm.{'0' * 32}.tmp", tmp_path / ".model.dgmm.mine.tmp"]
    calls = set()

    def save_from_elsewhere(call: Call, perform: Perform) -> object:
        done = perform() if after else None
        if stage(call) in calls:
            return done if after else perform()
        calls.add(stage(call))
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, path, dead],
            env=environment(PYTHONPATH=f"{ROOT}:{HERE}"), check=True,
        )  # fmt: skip
        return done if after else perform()

    for neighbour in neighbours:
        neighbour.touch()
    with intercepted(tmp_path, save_from_elsewhere):
        archive.write(path, b"ours")
    assert {"open model", "write model", "fsync model", "close model", "replace model"} <= calls
    assert path.read_bytes() == b"theirs"  # who came last; ours was put in place, else it had been an error
    assert sorted(tmp_path.iterdir()) == sorted([path, *neighbours])
