"""`dgmm compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import in_process
from sklearn.mixture import GaussianMixture as SklearnMixture

from dgmm import GaussianMixture

ROWS = np.random.default_rng(0).normal(size=(900, 2)) + np.repeat([0, 7, 14], 300)[:, None]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for k in (2, 3, 4):
        GaussianMixture(k, random_state=0).fit(ROWS).save(tmp_path / f"{k}.dgmm")
    GaussianMixture(2, random_state=0).fit(ROWS[:500]).save(tmp_path / "other.dgmm")
    mixture = SklearnMixture(2, random_state=0).fit(ROWS)
    GaussianMixture.from_sklearn(mixture).save(tmp_path / "made.dgmm")
    return tmp_path


def test_the_best_is_copied(models, monkeypatch, capsys):
    paths = [models / f"{k}.dgmm" for k in (2, 3, 4)]
    assert in_process(monkeypatch, "compare", *paths, "--best", models / "best.dgmm") == 0
    assert f"lowest BIC: {models / '3.dgmm'}; copied to {models / 'best.dgmm'}" in capsys.readouterr().out
    assert (models / "best.dgmm").read_bytes() == (models / "3.dgmm").read_bytes()
    assert in_process(monkeypatch, "compare", *paths, "--criterion", "aic", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    ranked = shown["models"]
    assert shown["best"] == ranked[0]["path"]
    assert sorted(model["aic"] for model in ranked) == [model["aic"] for model in ranked]
    (three,) = (model for model in ranked if model["n_components"] == 3)
    assert three["aic"] == pytest.approx(GaussianMixture(3, random_state=0).fit(ROWS).aic(ROWS), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("3.dgmm other.dgmm", 2, "criteria compare only models of the same rows"),
        ("3.dgmm made.dgmm", 2, "made.dgmm has no log-likelihood"),
        ("none.dgmm", 2, "There is no model file at none.dgmm"),
        ("3.dgmm --best nowhere/b", 2, "does not exist"),
        ("", 2, "Missing argument"),
    ],
)
def test_refused(arguments, code, message, models, monkeypatch, capsys):
    monkeypatch.chdir(models)
    assert in_process(monkeypatch, "compare", *arguments.split()) == code
    assert message in capsys.readouterr().err
