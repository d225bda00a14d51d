"""The README's example works as it stands, and its measured figures name commands that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_works_when_pasted(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rows.dgmm").exists()
    assert "dask.array" in done.stdout


@pytest.mark.slow
def test_the_examples_of_pictures_and_reports_work_when_pasted(tmp_path):
    page = (ROOT / "docs/report.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_the_commands_exist():
    for script in re.findall(r"python (benchmarks/\S+\.py)", README):
        assert (ROOT / script).exists(), script
    options = set(re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"dgmm fit [^`]*", README))))
    shown = subprocess.run([sys.executable, "-m", "dgmm", "fit", "--help"], capture_output=True, text=True).stdout
    assert options
    assert not {option for option in options if option not in shown}
