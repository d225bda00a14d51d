"""docs/outputs.md works as it stands, block after block."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import zarr
from commands import ROOT, environment

PAGE = (ROOT / "docs" / "outputs.md").read_text()


@pytest.mark.slow
def test_every_block_works_when_pasted(tmp_path: Path) -> None:
    shown = [run(language, block, tmp_path) for language, block in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S)]
    assert len(shown) == 6
    assert shown[2].strip() == "300", "a thousandth of 300,000 rows"
    assert zarr.open_array(tmp_path / "drawn.zarr/rows", mode="r").shape == (500_000, 3)
    assert list(pd.read_parquet(tmp_path / "drawn.parquet")) == ["x0", "x1", "x2", "label"]
    described = zarr.open_group(tmp_path / "described.zarr", mode="r")
    assert described.attrs["anomalies"]["rank_error"] == 0.0
    assert described["labels"].chunks == (20_000,), "80 kB"


def run(language: str, block: str, folder: Path) -> str:
    command = ["bash", "-ec", f'dgmm() {{ "{sys.executable}" -m dgmm "$@"; }}\n{block}']
    if language == "python":
        command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return done.stdout


def test_its_options_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "dgmm", "predict", "--help"], env=environment(), capture_output=True, text=True
    ).stdout
    options = re.findall(r"^\| `(--[a-z-]+)", PAGE, re.M)
    assert len(options) == 5
    assert all(option in help_text for option in options)
