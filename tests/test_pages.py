"""Every block of code of the documentation runs: those of a page in their order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
# What their own tests run, with the servers or data that they need.
ELSEWHERE = {
    "clusters": "clusters/test_docs.py",
    "object-stores": "test_object_store_docs.py",
    "outputs": "test_docs_outputs.py",
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def scripts(page: str) -> list[tuple[str, str]]:
    """Languages and texts to run; blocks of Python are one session, begun anew where others came between."""
    found: list[tuple[str, str]] = []
    session, told = "", True
    for language, text in [*BLOCK.findall((DOCS / f"{page}.md").read_text()), ("sh", "true")]:
        if language == "python":
            session, told = f"{session}\n{text}", False
        elif language == "sh":
            found += [("sh", text)] if told else [("python", session), ("sh", text)]
            told = True
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_the_blocks_of_a_page_run(page, tmp_path):
    environment = {
        **os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(DOCS.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    for language, text in scripts(page):
        start = {"python": [sys.executable, "-W", "error", "-c"], "sh": ["bash", "-euo", "pipefail", "-c"]}[
            language
        ]
        done = subprocess.run([*start, text], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_pages_lead_to_each_other():
    """No link goes nowhere, and the first page leads to all."""
    start = (DOCS / "start.md").read_text()
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (DOCS / target).exists(), f"{page}: {target}"
        assert page == "start" or f"({page}.md)" in start, page
    for page in ELSEWHERE.values():
        assert (DOCS.parent / "tests" / page).exists()
