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
from commands import environment
from facts import new_seed, tell
from saver import KINDS, checkpoint_at, last, lost

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
