"""Bad usage and bad input: exit 2 with one message, and before a cluster is started."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import dgmm, in_process

import dgmm as package


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 2))
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(100, 2))
    zarr.create_group(tmp_path / "group").create_array("inner", data=rows, chunks=(100, 2))
    zarr.create_array(tmp_path / "three.zarr", data=rng.normal(size=(50, 3)), chunks=(50, 3))
    zarr.create_array(tmp_path / "holes.zarr", shape=(500, 2), chunks=(100, 2), dtype=float)[:100] = rows[:100]
    package.GaussianMixture(2, random_state=0).fit(rows).save(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit x.zarr", "Missing option '--model'"),
        ("fit x.zarr --model o --nonsense 1", "No such option"),
        ("fit x.zarr --model o --scheduler a:1 --workers 2", "--scheduler names a cluster that runs already"),
        ("fit x.zarr --model o --scheduler a:1 --memory-limit 1GB", "--scheduler names a cluster"),
        ("score x.zarr --model m --scheduler nothing", "not a file and not an address"),
        ("fit x.zarr --model o --memory-limit much", "expected bytes such as 4GiB"),
        ("fit x.zarr --model o --workers 0", "'--workers'"),
        ("fit x.zarr --model o -k 0", "'-k'"),
        ("fit x.zarr --model o --tol -1", "'--tol'"),
        ("fit x.zarr --model o --covariance-type round", "'full', 'tied', 'diag', 'spherical'"),
        ("fit x.zarr --model o --init-params magic", "'k-means++'"),
        ("fit x.zarr --model nowhere/o", "does not exist"),
        ("fit x.zarr --model x.zarr", "is a directory"),
        ("fit x.zarr --model o -k 501", "n_samples >= n_components"),
        ("fit missing.zarr --model o", "There is nothing at missing.zarr"),
        ("fit group --model o", "Name one, e.g. group/inner"),
        ("fit holes.zarr --model o", "4 of 5 chunks of holes.zarr are not stored"),
        ("fit x.zarr --model o --weights three.zarr", "sample weights"),
        ("predict three.zarr --model m --out p.zarr", "three.zarr has 3 features"),
        ("predict x.zarr --model none --out p.zarr", "There is no model file at none"),
        ("predict x.zarr --model m --out nowhere/p.zarr", "does not exist"),
        ("score three.zarr --model m", "three.zarr has 3 features"),
        ("sample --model m -n 0 --out s.zarr", "'-n'"),
        ("info nothing", "There is no model file at nothing"),
        ("demo --out nowhere/d", "does not exist"),
        ("report", "Missing argument 'MODEL'"),
        ("report none", "There is no model file at none"),
        ("report m three.zarr", "three.zarr has 3 features"),
        ("report m missing.zarr", "There is nothing at missing.zarr"),
        ("report m -o nowhere/r.html", "does not exist"),
        ("report m --weights x.zarr", "give DATA too"),
        ("report m --checkpoint nothing", "without checkpoints"),
        ("report m x.zarr --weights three.zarr", "sample weights"),
    ],
)
def test_exit_2(
    arguments: str, message: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(here.iterdir())
    assert in_process(monkeypatch, *arguments.split()) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out
    assert sorted(here.iterdir()) == there
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("info foreign", "was not written by dgmm"),
        ("predict x.zarr --model m --out three.zarr", "not a Zarr group that dgmm wrote"),
        ("sample --model m -n 5 --out group", "that dgmm did not write"),
    ],
)
def test_exit_1(
    arguments: str, message: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "foreign").write_text("something else entirely")
    assert in_process(monkeypatch, *arguments.split()) == 1
    assert message in capsys.readouterr().err


def test_the_same_as_a_process(here: Path) -> None:
    finished = dgmm("fit", "missing.zarr", "--model", "o", cwd=here)
    assert finished.code == 2
    assert finished.err.startswith("Error: There is nothing at missing.zarr")
    assert finished.err.count("\n") == 1
    assert not finished.out


def test_a_model_that_cannot_be_written_is_a_failure(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, "fit", "x.zarr", "--model", "/proc/o", "-k", 2, local=True) == 1
    shown = capsys.readouterr()
    assert "Error: cannot write /proc/o" in shown.err
    assert not shown.out


def test_nan_is_named_and_no_log_of_dask_is_shown(here: Path) -> None:
    zarr.open_array(here / "x.zarr", mode="r+")[321, 1] = np.nan
    finished = dgmm("fit", "x.zarr", "--model", "o", "--workers", 1, cwd=here)
    assert finished.code == 2
    assert "chunk c/3/0 of x.zarr, row 321, feature 1" in finished.err
    assert "distributed" not in finished.err


def test_a_scheduler_that_runs_already(here: Path) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.write_scheduler_file(here / "scheduler.json")
        for where in (cluster.scheduler_address, "scheduler.json"):
            finished = dgmm("score", "x.zarr", "--model", "m", "--scheduler", where, "--json", cwd=here)
            assert finished.code == 0, finished.err
            assert re.search(rf"1 worker\(s\) of .* at {cluster.scheduler_address}", finished.err)


def test_nobody_at_the_address(here: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fast = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
        finished = dgmm("score", "x.zarr", "--model", "m", "--scheduler", address, cwd=here, **fast)
    assert finished.code == 1
    assert f"no scheduler answers at {address}" in finished.err


def test_version_and_defaults_of_the_class(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, "--version") == 0
    assert package.__version__ in capsys.readouterr().out
    from dgmm.cli.fit import fit

    defaults = {option.name: option.to_info_dict()["default"] for option in fit.params}
    for name, value in package.GaussianMixture().get_params().items():
        if name in defaults:
            assert defaults[name] == value
