"""Every command end to end: fit, info, score, sample, predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import Finished, dgmm, in_process

import dgmm as package

N_ROWS, N_FEATURES, N_COMPONENTS = 600_000, 8, 3  # of the fixture `data`

HERE = ("--workers", 2)


def parsed(finished: Finished) -> dict:
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    model = tmp_path_factory.mktemp("model") / "m.dgmm"
    arguments = ("-k", N_COMPONENTS, "--seed", 1, "--model", model, "--max-iter", 3, "--tol", 0, *HERE, "--json")
    return model, dgmm("fit", data, *arguments, cwd=model.parent)


def test_fit_writes_a_model_and_one_json_object(fitted: tuple[Path, Finished]) -> None:
    model, finished = fitted
    facts = parsed(finished)
    mixture = package.load(model)
    assert facts["means"] == mixture._model.in_data_units().means.tolist()
    assert facts["rows"] == N_ROWS
    assert facts["log_likelihood"] == mixture.lower_bound_
    assert "iteration 3: log-likelihood" in finished.err


def test_a_fit_that_does_not_converge_succeeds_with_a_warning_of_one_line(fitted: tuple[Path, Finished]) -> None:
    _, finished = fitted
    assert parsed(finished)["converged"] is False
    (line,) = [line for line in finished.err.splitlines() if "Warning" in line]
    assert line.startswith("Warning: EM did not converge in 3 iterations")
    assert "warnings.warn" not in finished.err


def test_info_of_a_model(fitted: tuple[Path, Finished], tmp_path: Path) -> None:
    model, _ = fitted
    facts = parsed(dgmm("info", model, "--json", cwd=tmp_path))
    mixture = package.load(model)
    assert facts["kind"] == "model"
    assert facts["n_iter"] == mixture.n_iter_
    assert facts["settings"]["seed"] == 1
    assert facts["versions"]["numpy"] == np.__version__
    expected = np.sqrt(np.diagonal(mixture.covariances_, axis1=1, axis2=2))
    np.testing.assert_allclose(facts["standard_deviations"], expected, rtol=1e-6)


def test_score_with_weights(
    data: Path,
    fitted: tuple[Path, Finished],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, _ = fitted
    weights = data.parent / "w.zarr"
    assert (
        in_process(monkeypatch, "score", data, "--model", model, "--weights", weights, "--json", local=True) == 0
    )
    facts = json.loads(capsys.readouterr().out)
    mixture, rows = package.load(model), zarr.open_array(data, mode="r")[:]
    w = zarr.open_array(weights, mode="r")[:]
    assert facts["n"] == N_ROWS
    assert facts["weight"] == pytest.approx(w.sum())
    assert facts["mean_log_likelihood"] == pytest.approx(mixture.score(rows, sample_weight=w), rel=1e-12)
    expected = -2 * facts["log_likelihood"] + facts["n_parameters"] * np.log(w.sum())
    assert facts["bic"] == pytest.approx(expected)


def test_sample_is_the_same_for_the_same_seed_and_never_overwrites(
    fitted: tuple[Path, Finished],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, _ = fitted
    n = 150_000  # more than two units
    call = ("sample", "-n", n, "--model", model, "--json", "--out")
    assert parsed(dgmm(*call, "a.zarr", "--seed", 7, cwd=tmp_path))["rows_written"] == n
    drawn = zarr.open_group(tmp_path / "a.zarr", mode="r")
    rows, labels = drawn["rows"][:], drawn["labels"][:]
    assert rows.shape == (n, N_FEATURES)
    assert np.all(np.diff(labels) >= 0)
    mixture = package.load(model)
    for k in range(N_COMPONENTS):
        own = rows[labels == k]
        assert len(own) / n == pytest.approx(mixture.weights_[k], abs=0.01)
        np.testing.assert_allclose(own.mean(axis=0), mixture.means_[k], atol=0.1)
        np.testing.assert_allclose(np.cov(own.T), mixture.covariances_[k], atol=0.25)
    assert len(np.unique(rows[:, 0])) == n, "no unit repeats another's noise"

    assert in_process(monkeypatch, *call, tmp_path / "a.zarr", "--seed", 7) == 0
    assert json.loads(capsys.readouterr().out)["rows_written"] == 0
    assert in_process(monkeypatch, *call, tmp_path / "a.zarr", "--seed", 8) == 1
    assert "results of another seed" in capsys.readouterr().err
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "a.zarr", mode="r")["rows"][:], rows)


def test_predict(data: Path, fitted: tuple[Path, Finished], tmp_path: Path) -> None:
    model, _ = fitted
    out = tmp_path / "p.zarr"
    wanted = ("--labels", "--responsibilities", "--log-density", "--dtype", "float32")
    call = ("predict", data, "--model", model, "--out", out, *wanted, *HERE, "--json")
    assert parsed(dgmm(*call, cwd=tmp_path))["rows_written"] == N_ROWS
    mixture, rows = package.load(model), zarr.open_array(data, mode="r")[:]
    group = zarr.open_group(out, mode="r")
    assert group.attrs["complete"] is True
    np.testing.assert_array_equal(group["labels"][:], mixture.predict(rows))
    np.testing.assert_array_equal(group["responsibilities"][:], mixture.predict_proba(rows).astype(np.float32))
    np.testing.assert_array_equal(group["log_density"][:], mixture.score_samples(rows))

    again = dgmm(*call, cwd=tmp_path)
    assert parsed(again)["rows_written"] == 0
    assert "complete already" in again.err
    assert "cluster" not in again.err
