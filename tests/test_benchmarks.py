"""Every benchmark runs, at tiny size: what they print is for people, on machines where nothing else runs."""

from __future__ import annotations

import re
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
    parts = {"mixtures", "sklearn_algorithm", "starts", "watched", "__main__"}
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
