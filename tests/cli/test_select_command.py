"""``dgmm select``, and what ``dgmm info`` says of its checkpoints."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import dgmm, in_process, running

import dgmm as package

CALL = ("select", "x.zarr", "--model", "m", "--seed", 1, "--tol", 1e-3, "--sample-size", 500)
SMALL = ("--components", "2..3", "--covariance-types", "diag,spherical")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three groups, in the folder that is the current one."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 2)) + 8 * rng.integers(3, size=(3000, 1))
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(500, 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dgmm.engine.search._ROUNDS_PER_COMPONENT", 0)
    return tmp_path


def strict(text: str) -> dict:
    """JSON as other programs read it: without NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_a_table_and_the_best_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        in_process(monkeypatch, *CALL, "--components", "1..3,5", "--covariance-types", "spherical", local=True)
        == 0
    )
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "3", "5"]
    assert [line.split()[0] for line in lines if line.endswith("best bic")] == ["3"]
    assert lines[-1].startswith("3 components, spherical, after")
    assert lines[-1].endswith("passes over the data; model written to m")
    assert "sample, 5 components, spherical:" in shown.err
    assert "criteria of" in shown.err
    model, rows = package.load("m"), zarr.open_array("x.zarr", mode="r")[:]
    assert model.n_components == 3
    assert sorted(model.means_[:, 0]) == pytest.approx([0, 8, 16], abs=0.2)
    assert len(set(model.predict(rows))) == 3


@pytest.mark.parametrize("criterion", ["bic", "holdout"])
def test_one_json_object_without_nan(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], criterion: str
) -> None:
    assert in_process(monkeypatch, *CALL, *SMALL, "--criterion", criterion, "--json", local=True) == 0
    facts = strict(capsys.readouterr().out)
    assert facts["criterion"] == criterion
    assert facts["rows"] == 3000
    assert facts["n_components"] == 3
    assert facts["n_passes"] == package.load("m").n_passes_
    assert facts["means"] == package.load("m")._model.in_data_units().means.tolist()
    candidates = [(line["covariance_type"], line["n_components"]) for line in facts["candidates"]]
    assert candidates == [("diag", 2), ("diag", 3), ("spherical", 2), ("spherical", 3)]
    held_out = [line["held_out"] for line in facts["candidates"]]
    assert all((value is None) == (criterion == "bic") for value in held_out)


@pytest.mark.parametrize(
    "sizes", ["3..1", "0..2", "0", "1..", "..3", "1-3", "1,,2", "1...3", "two", "-1", "1.5", ""]
)
def test_bad_sizes(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sizes: str
) -> None:
    assert in_process(monkeypatch, *CALL, f"--components={sizes}") == 2
    message = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "'--components'" in message
    assert f"{sizes!r} is not a list of sizes; expected something like 1..20 or 2,4,8..12" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--covariance-types full,round",
            "'round' is no covariance type; expected some of full,tied,diag,spherical",
        ),
        ("--criterion mdl", "'bic', 'aic', 'icl', 'holdout'"),
        ("--holdout 1", "0<=x<1"),
        ("--n-finalists 2", "No such option"),
        ("--model nowhere/m", "does not exist"),
        ("--components 3001 --sample-size 4000", "n_samples >= n_components"),
        ("--weights x.zarr", "sample weights"),
        ("--criterion holdout --holdout 0", "above 0 for criterion 'holdout'"),
    ],
)
def test_bad_usage(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert in_process(monkeypatch, *CALL, *arguments.split()) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_help_names_the_defaults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process(monkeypatch, "select", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for default in ("1..20", "full,tied,diag,spherical", "bic", "0.1 for --criterion holdout, else 0", "50,000"):
        assert f"[default: {default}" in text
    defaults = package.GaussianMixture().get_params()
    assert f"[default: {defaults['tol']}" in text
    assert f"[default: {defaults['max_iter']}" in text


# --- checkpoints ---------------------------------------------------------------------------------------------


def info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    """What `dgmm info` says of the checkpoints, as JSON and as text."""
    capsys.readouterr()
    assert in_process(monkeypatch, "info", "ck", "--json") == 0
    facts = strict(capsys.readouterr().out)
    assert in_process(monkeypatch, "info", "ck") == 0
    return facts, capsys.readouterr().out


@pytest.mark.parametrize("sample_size", [500, 3000], ids=["sampled", "complete"])
def test_info_of_a_finished_selection(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sample_size: int
) -> None:
    call = (*CALL, *SMALL, "--checkpoint", "ck", "--holdout", 0.2, "--sample-size", sample_size, "--json")
    assert in_process(monkeypatch, *call, local=True) == 0
    selected = strict(capsys.readouterr().out)
    facts, text = info(monkeypatch, capsys)
    names = ["diag-0002", "diag-0003", "spherical-0002", "spherical-0003"]
    assert facts["candidates"] == names
    assert sorted(facts["runs"]) == names
    assert facts["n_passes"] == selected["n_passes"]
    kept = [line for line in selected["candidates"] if not line["dropped"]]
    expected = {
        f"{line['covariance_type']}-{line['n_components']:04d}": {
            kind: line[kind] for kind in ("bic", "aic", "icl", "held_out")
        }
        for line in kept
    }
    assert facts["criteria"] == expected
    assert "checkpoints of a selection by bic of 4 candidates, 0.2 of the rows held out" in text
    assert "candidates searched for on the sample: 4 of 4" in text
    assert "3 components, spherical: bic" in text
    assert f"passes over the data: {selected['n_passes']}" in text


def test_another_selection_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, *CALL, *SMALL, "--checkpoint", "ck", local=True) == 0
    assert in_process(monkeypatch, *CALL, *SMALL, "--checkpoint", "ck", "--criterion", "aic", local=True) == 1
    assert "criterion was 'bic', now 'aic'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:EM of the best candidate did not converge")
def test_stopped_by_a_signal_the_same_command_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ("select", data, *SMALL, "--seed", 3, "--tol", 0, "--max-iter", 3, "--sample-size", 1000)
    call = (*call, "--checkpoint", "ck", "--workers", 1, "--model")
    with running(*call, "m", cwd=tmp_path, DASK_DGMM__BLOCKS_PER_LEAF="1") as command:
        command.wait_for("iteration 1:")
        command.signal_group(signal.SIGTERM)
        finished = command.finish()
    assert finished.code == 75, finished.err
    assert "Interrupted: stopped by SIGTERM" in finished.err
    assert "Run the same command again" in finished.err
    assert not (tmp_path / "m").exists()
    facts, text = info(monkeypatch, capsys)
    assert len(facts["runs"]) == 4
    assert facts["criteria"] == {}
    assert facts["n_passes"] >= 2
    assert "criteria: none yet" in text

    rest = dgmm(*call, "m", cwd=tmp_path)
    assert rest.code == 0, rest.err
    assert "sample," not in rest.err, "what was durable is not done again"
    assert "iteration 1:" not in rest.err
    unbroken = ["unbroken" if argument == "ck" else argument for argument in call]
    assert in_process(monkeypatch, *unbroken, "u", local=True) == 0
    assert Path("m").read_bytes() == Path("u").read_bytes()
