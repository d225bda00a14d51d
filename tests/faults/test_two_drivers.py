"""Two drivers, real processes, in one folder: the second is refused, or takes over, and then the first one stops.

A dead one is taken over in test_kills.py; who wins a race for the folder is in tests/engine/test_ownership.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment
from facts import tell


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_driver_that_was_frozen_and_superseded_stops_and_changes_nothing(tmp_path, every):
    found = subprocess.run(
        [sys.executable, Path(__file__).parent / "freezing.py", tmp_path, str(every)],
        env=environment(OPENBLAS_NUM_THREADS="1"), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    facts = json.loads(found.stdout)
    assert facts["wrong"] == []
    assert len(facts["met"]) > 60 // every
    if every == 1:
        assert {"open step", "write step", "replace step", "replace record", "replace owner"} <= set(facts["met"])
    freezes = len(facts["met"])
    tell("a driver frozen (SIGSTOP), superseded and woken", freezes, freezes, None, "all states of its successor")
