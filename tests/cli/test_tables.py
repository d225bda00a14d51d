"""Tables from the command line: converted, fitted by names, predicted; stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
import signal

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from commands import dgmm, in_process, running

from dgmm import load

N = 6000
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)
FRAME = pd.DataFrame(ROWS, columns=["temp", "salt", "oxygen"]).assign(station="x", w=RNG.random(N))


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*words, code=0):
        assert in_process(monkeypatch, *words, local=True) == code, capsys.readouterr().err
        return capsys.readouterr()

    return command


@pytest.fixture
def table(tmp_path):
    """A folder of Parquet files."""
    (tmp_path / "t").mkdir()
    for number, start in enumerate(range(0, N, 2500)):
        FRAME[start : start + 2500].to_parquet(tmp_path / "t" / f"{number}.parquet", row_group_size=700)
    return tmp_path / "t"


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_parquet_table_from_fit_to_prediction(run, table, tmp_path):
    model, columns = tmp_path / "m.dgmm", ("--columns", "salt,temp", "--variables", "oxygen")
    refused = run("fit", table, "-k", 2, "--model", model, code=2).err
    assert "station (" in refused
    assert "--variables" in refused
    fitted = run("fit", table, "-k", 2, "--model", model, "--seed", 0, "--weights", "w", *columns)
    assert "salt" in fitted.out
    mixture = load(model)
    assert mixture.feature_names_in_.tolist() == ["salt", "temp", "oxygen"]
    shown = json.loads(run("info", model, "--json").out)
    assert shown["feature_names"] == ["salt", "temp", "oxygen"]
    scored = json.loads(run("score", table, "--model", model, "--weights", "w", "--json", *columns).out)
    named = FRAME[["salt", "temp", "oxygen"]]
    assert scored["mean_log_likelihood"] == pytest.approx(
        mixture.score(named, sample_weight=FRAME["w"]), rel=1e-12
    )
    assert scored["weight"] == pytest.approx(FRAME["w"].sum())
    run("predict", table, "--model", model, "--out", tmp_path / "labels.zarr", *columns)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "labels.zarr/labels")[:], mixture.predict(named))
    for wrong in (("--columns", "temp,salt,oxygen"), ("--columns", "salt,temp,w")):
        said = run("predict", table, "--model", model, "--out", tmp_path / "other.zarr", *wrong, code=2).err
        assert "Choose the same variables" in said
    said = run(
        "predict", table, "--model", model, "--out", tmp_path / "other.zarr", "--columns", "tmp", code=2
    ).err
    assert "did you mean 'temp'" in said


def test_csv_is_converted_and_fitted(run, tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    said = run("fit", tmp_path / "t.csv", "-k", 2, "--model", tmp_path / "m.dgmm", code=2).err
    assert f"dgmm convert {tmp_path}/t.csv OUT.zarr" in said
    out = tmp_path / "t.zarr"
    done = run("convert", tmp_path / "t.csv", out, "--columns", "temp,salt,w", "--dtype", "float32")
    assert "6,000 rows of 3 features (float32), 6,000 written" in done.out
    again = run("convert", tmp_path / "t.csv", out, "--columns", "temp,salt,w", "--dtype", "float32", "--json")
    assert "complete already" in again.err
    facts = json.loads(again.out)
    assert (facts["rows"], facts["rows_written"], facts["feature_names"]) == (N, 0, ["temp", "salt", "w"])
    run(
        "fit",
        out,
        "-k",
        2,
        "--model",
        tmp_path / "m.dgmm",
        "--columns",
        "temp,salt",
        "--weights",
        "w",
        "--seed",
        0,
    )
    mixture = load(tmp_path / "m.dgmm")
    assert mixture.feature_names_in_.tolist() == ["temp", "salt"]
    assert mixture.means_[:, 0] == pytest.approx([0, 6], abs=0.2) or mixture.means_[:, 0] == pytest.approx(
        [6, 0], abs=0.2
    )
    other = run("convert", tmp_path / "t.csv", out, "--columns", "temp", code=1).err
    assert "holds results of another data" in other


def test_rows_left_out_are_said(run, tmp_path):
    frame = FRAME[["temp", "salt"]].copy()
    frame.loc[3:9, "salt"] = np.nan
    frame.to_parquet(tmp_path / "t.parquet")
    done = run("convert", tmp_path / "t.parquet", tmp_path / "t.zarr", "--missing", "drop", "--json")
    assert "two passes" in done.err
    facts = json.loads(done.out)
    assert (facts["rows"], facts["rows_left_out"]) == (N - 7, 7)
    again = run("convert", tmp_path / "t.parquet", tmp_path / "t.zarr", "--missing", "drop")
    assert "two passes" not in again.err
    assert "is complete already" in again.err
    assert "7 rows with a missing value left out" in again.out
    fitted = run("fit", tmp_path / "t.parquet", "-k", 2, "--model", tmp_path / "m.dgmm", "--missing", "drop")
    assert "7 rows with a missing value left out" in fitted.err


def test_npy_and_hdf5_give_the_model_of_the_array(run, tmp_path):
    np.save(tmp_path / "t.npy", ROWS)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("group/rows", data=ROWS, chunks=(500, 3))
    zarr.create_array(tmp_path / "t.zarr", data=ROWS, chunks=(500, 3))
    found = []
    for data in ("t.zarr", "t.npy", "t.h5", "t.h5/group/rows"):
        fitted = run("fit", tmp_path / data, "-k", 2, "--model", tmp_path / "m.dgmm", "--seed", 0, "--json")
        found.append(json.loads(fitted.out)["log_likelihood"])
    assert found == pytest.approx([found[0]] * 4, rel=1e-10)


@pytest.mark.slow
def test_workers_open_the_files_themselves(table, tmp_path):
    wanted = ("-k", 2, "--columns", "temp,salt,oxygen", "--sample-size", 500, "--seed", 0, "--workers", 1)
    done = dgmm("fit", "t", "--model", "m.dgmm", *wanted, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "local cluster: 1 worker(s)" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_conversion_that_was_stopped_goes_on_to_the_same_bytes(number, tmp_path):
    rows = np.random.default_rng(0).normal(size=(800_000, 8))
    pd.DataFrame(rows).add_prefix("x").to_csv(tmp_path / "t.csv", index=False)  # 120 MB, 7 units
    whole = dgmm("convert", "t.csv", "whole.zarr", "--workers", 2, cwd=tmp_path)
    assert whole.code == 0, whole.err
    with running("convert", "t.csv", "out.zarr", "--workers", 2, cwd=tmp_path) as command:
        command.wait_for("local cluster")
        units = tmp_path / "out.zarr/rows/c"
        while not (units.exists() and len([path for path in units.rglob("*") if path.is_file()]) >= 1):
            assert command.process.poll() is None, command.finish().err
        command.signal_group(number)
        stopped = command.finish()
    assert stopped.code == (-signal.SIGKILL if number == signal.SIGKILL else 75), stopped.err
    stored = [int(path.parent.name) for path in units.rglob("0") if path.is_file()]
    written = sum(min(131_072, len(rows) - unit * 131_072) for unit in stored)
    refused = dgmm("fit", "out.zarr", "-k", 2, "--model", "m.dgmm", cwd=tmp_path)
    assert refused.code == 2
    assert "is not complete: run the command that writes it again" in refused.err
    again = dgmm("convert", "t.csv", "out.zarr", "--workers", 2, "--json", cwd=tmp_path)
    assert again.code == 0, again.err
    assert json.loads(again.out)["rows_written"] == len(rows) - written > 0
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "whole.zarr")
