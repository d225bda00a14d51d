"""`dgmm report` end to end: a page from a model alone, with data on real workers, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import dgmm, in_process
from webpages import Page

import dgmm as package


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, weights, a model and its checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 2)) + 9.0 * rng.integers(2, size=(4000, 1))
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(500, 2))
    zarr.create_array(folder / "three.zarr", data=rng.normal(size=(50, 3)), chunks=(50, 3))
    zarr.create_array(folder / "w.zarr", data=np.full(4000, 2.0), chunks=(500,))
    mixture = package.GaussianMixture(2, random_state=0, sample_size=1000)
    mixture.fit(str(folder / "x.zarr"), checkpoint=folder / "ck").save(folder / "m")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_with_data_on_workers(here: Path) -> None:
    finished = dgmm("report", "m", "x.zarr", "-o", "r.html", "--workers", 2, "--json", cwd=here)
    assert finished.code == 0, finished.err
    facts = json.loads(finished.out)
    assert facts["report"] == "r.html"
    assert facts["cautions"] == []
    assert "2 worker(s)" in finished.err
    page = Page((here / "r.html").read_text())
    assert page.tables[0][0] == ["component", "weight", "rows", "x0", "x1"]
    assert "On these data" in page.text
    assert not page.references


def test_of_a_model_alone_with_its_seconds(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, "report", "m", "--checkpoint", "ck") == 0
    assert capsys.readouterr().out == "report written to report.html\n"
    page = Page((here / "report.html").read_text())
    assert "for these iterations" in page.text
    assert "On these data" not in page.text


def test_cautions_are_told_on_the_way(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zarr.open_array(here / "x.zarr", mode="r+")[:500] = 1000.0
    assert in_process(monkeypatch, "report", "m", "x.zarr", "--weights", "w.zarr", local=True) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "report written to report.html"
    assert "- x.zarr is not what the model was fitted to" in told[0]
    assert re.search(r"12\.\d% of the rows lie outside", told[1])


def test_without_matplotlib_the_extra_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = here / "blocked"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else f(name, *a)\n"
    )
    finished = dgmm("report", "m", cwd=here, PYTHONPATH=f"{blocker}:{Path(package.__file__).parents[1]}")
    assert finished.code == 2
    assert "pip install 'dgmm[plot]'" in finished.err
