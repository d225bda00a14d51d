"""The blocks of docs/object-stores.md work as they stand, in a bucket of this server's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import dgmm, environment

PAGE = (Path(__file__).parents[1] / "docs" / "object-stores.md").read_text()


def run_python(s3: str, tmp_path: Path) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = block.replace("s3://my-bucket", s3)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_block(s3, tmp_path):
    assert run_python(s3, tmp_path).startswith("[[")


@pytest.mark.slow
def test_the_commands(s3, tmp_path):
    run_python(s3, tmp_path)  # writes the rows
    (block,) = re.findall(r"```\n(pip install.*?)```", PAGE, re.DOTALL)
    commands = [
        shlex.split(line.replace("s3://my-bucket", s3)) for line in block.splitlines() if line.startswith("dgmm")
    ]
    assert [command[1] for command in commands] == ["fit", "info", "predict"]
    for command in commands:
        done = dgmm(*command[1:], cwd=tmp_path)
        assert done.code == 0, done.err
