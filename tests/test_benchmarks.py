"""Every benchmark runs, at tiny size: what they print is for people, on machines where nothing else runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, TIMEOUT, environment

BENCHMARKS = ROOT / "benchmarks"


def names() -> list[str]:
    listed = re.findall(r'^    "(\w+)": \("', (BENCHMARKS / "__main__.py").read_text(), re.MULTILINE)
    assert listed
    return listed


def test_every_benchmark_is_in_the_one_command() -> None:
    parts = {"mixtures", "sklearn_algorithm", "sleeping", "starts", "watched", "__main__"}
    assert {path.stem for path in BENCHMARKS.glob("*.py")} - parts == set(names())


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_it_runs(name: str, tmp_path: Path) -> None:
    call = [sys.executable, BENCHMARKS, tmp_path / "data", "--tiny", "--only", name]
    run = subprocess.run(
        call, capture_output=True, text=True, timeout=4 * TIMEOUT, env=environment(), cwd=tmp_path
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(run.stdout.splitlines()) > 3, run.stdout


@pytest.mark.slow
def test_the_table_of_workers() -> None:
    options = "--workers 1 2 --leaves 2 --shapes 2x3 --seconds 0.2 --passes 1 --rows-per-second 1e6"
    call = [sys.executable, BENCHMARKS / "workers.py", *shlex.split(options)]
    run = subprocess.run(call, check=True, capture_output=True, text=True, timeout=4 * TIMEOUT, env=environment())
    measured, models, foreseen = (part.splitlines() for part in run.stdout.split("\n\n"))
    rows = [line.split() for line in measured[1:]]
    assert [row[:4] for row in rows] == [[n, leaves, "2", "3"] for n in "12" for leaves in ("equal", "own")]
    for row in rows:
        assert int(row[4]) > 2 * int(row[0])  # leaves, and a merge
        assert float(row[7]) > 0
        assert float(row[8]) > 0
    assert [line.split()[0] for line in models[1:]] == ["driver", "scheduler", "workers", "memory"]
    assert all(float(value) >= 0 for line in models[1:] for value in line.split()[1:])
    assert foreseen[-1].startswith("load: ")
    assert foreseen[1].split()[:3] == ["1e+09", "2", "500"]
