"""What predict and sample write: every quantity in both formats; and draws that were killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from commands import Running, dgmm, in_process, running

import dgmm as package

N, D, K = 400_000, 32, 4
Q = 0.001
WANTED = ("--labels", "--top", 2, "--log-density", "--anomaly-quantile", Q, "--dtype", "float32")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """51 MB in 13 blocks, and a model of them."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, D), np.float32)
    rows += 1.5 * rng.integers(K, size=(N, 1), dtype=np.int8)
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(32_768, D))
    mixture = package.GaussianMixture(K, covariance_type="diag", random_state=0, tol=1e-2)
    mixture.fit(rows[:20_000]).save(folder / "m")
    return folder / "x.zarr", folder / "m"


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def table(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".parquet":
        return {name: column.to_numpy() for name, column in pd.read_parquet(path).items()}
    found: dict[str, np.ndarray] = {}
    group = zarr.open_group(path, mode="r")
    for name in group:
        values = group[name][:]
        if values.ndim == 1:
            found[{"labels": "label", "anomalies": "anomaly"}.get(name, name)] = values
        else:
            base = {"top_components": "top_component", "top_responsibilities": "top_responsibility"}[name]
            found.update({f"{base}_{rank + 1}": values[:, rank] for rank in range(values.shape[1])})
    return found


@pytest.mark.parametrize("out", ["p.zarr", "p.parquet"])
def test_every_quantity(
    case: tuple[Path, Path],
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, model = case
    call = ("predict", data, "--model", model, *WANTED, "--json", "--out")
    assert in_process(monkeypatch, *call, tmp_path / out, local=True) == 0
    shown = capsys.readouterr()
    facts = json.loads(shown.out)
    assert "two passes: the first finds the threshold" in shown.err
    assert facts["rows_written"] == N

    assert_right(table(tmp_path / out), facts["anomalies"], data, model)
    assert in_process(monkeypatch, *call, tmp_path / out) == 0
    shown = capsys.readouterr()
    assert "complete already" in shown.err
    assert json.loads(shown.out)["anomalies"] == facts["anomalies"]
    other = ("--labels", "--top", 2, "--log-density", "--anomaly-quantile", 0.002, "--dtype", "float32")
    assert in_process(monkeypatch, "predict", data, "--model", model, *other, "--out", tmp_path / out) == 1
    assert "results of another anomaly_quantile" in capsys.readouterr().err


def assert_right(found: dict[str, np.ndarray], anomalies: dict, data: Path, model: Path) -> None:
    mixture, rows = package.load(model), zarr.open_array(data, mode="r")[:]
    components, responsibilities = mixture.top_responsibilities(rows, 2)
    density = mixture.score_samples(rows)
    np.testing.assert_array_equal(found["label"], mixture.predict(rows))
    np.testing.assert_array_equal(found["log_density"], density)
    for rank in range(2):
        np.testing.assert_array_equal(found[f"top_component_{rank + 1}"], components[:, rank])
        np.testing.assert_array_equal(
            found[f"top_responsibility_{rank + 1}"], responsibilities[:, rank].astype(np.float32)
        )
    np.testing.assert_array_equal(found["anomaly"], density < anomalies["threshold"])
    assert len(found) == 7
    assert anomalies["rows"] == N
    assert anomalies["rows_below"] == found["anomaly"].sum()
    assert anomalies["share"] == found["anomaly"].mean()
    assert 0 <= anomalies["rank_error"] == Q - anomalies["share"] < 1e-4
    assert anomalies["threshold"] == mixture.anomaly_threshold(rows, Q)


def wait_for_unit(path: Path, last_array: str, command: Running) -> None:
    """Until one is written in whole."""
    folder = path / last_array / "c" if path.suffix == ".zarr" else path
    deadline = time.monotonic() + 60
    while not (folder.is_dir() and any(file.suffix in ("", ".parquet") for file in folder.iterdir())):
        assert command.process.poll() is None, command.finish().err
        assert time.monotonic() < deadline


def test_all_responsibilities_as_a_table(
    case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = case
    call = ("predict", data, "--model", model, "--responsibilities", "--out", tmp_path / "p.parquet")
    assert in_process(monkeypatch, *call, local=True) == 0
    said = capsys.readouterr().out
    assert f"responsibilities of {N:,} rows" in said
    assert "anomalies" not in said
    found = pd.read_parquet(tmp_path / "p.parquet")
    assert list(found) == [f"responsibility_{k}" for k in range(K)]
    expected = package.load(model).predict_proba(zarr.open_array(data, mode="r")[:])
    np.testing.assert_array_equal(found.to_numpy(), expected)


def test_more_asked_for_than_there_are_components(
    case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = case
    call = ("predict", data, "--model", model, "--top", 9, "--json", "--out", tmp_path / "p.zarr")
    assert in_process(monkeypatch, *call, local=True) == 0
    assert json.loads(capsys.readouterr().out)["arrays"] == {
        "top_components": {"shape": [N, K], "dtype": "int32"},
        "top_responsibilities": {"shape": [N, K], "dtype": "float64"},
    }
    group = zarr.open_group(tmp_path / "p.zarr", mode="r")
    assert group["top_components"].chunks == (32_768, K), "the chunks of the input"
    assert np.all(np.sort(group["top_components"][:], axis=1) == np.arange(K))


@pytest.mark.parametrize("out", ["s.zarr", pytest.param("s.parquet", marks=pytest.mark.slow)])
def test_a_killed_draw_ends_with_the_bytes_of_an_unbroken_one(
    case: tuple[Path, Path], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = case
    call = ("sample", "--model", model, "-n", 600_000, "--seed", 3, "--out")
    with running(*call, tmp_path / out, cwd=tmp_path) as command:
        wait_for_unit(tmp_path / out, "labels", command)
        command.signal_group(signal.SIGKILL)
        assert command.finish().code == -signal.SIGKILL
    for path in (out, f"unbroken-{out}"):
        assert in_process(monkeypatch, *call, tmp_path / path) == 0  # without a cluster: 150 MB
    assert content(tmp_path / out) == content(tmp_path / f"unbroken-{out}")


@pytest.mark.slow
def test_a_large_draw_on_workers_killed_and_shared_out_anew(case: tuple[Path, Path], tmp_path: Path) -> None:
    _, model = case
    call = ("sample", "--model", model, "-n", 3_000_000, "--seed", 3, "--json", "--out")  # 770 MB
    with running(*call, tmp_path / "s.zarr", "--workers", 2, cwd=tmp_path) as command:
        wait_for_unit(tmp_path / "s.zarr", "labels", command)
        command.signal_group(signal.SIGKILL)
        assert command.finish().code == -signal.SIGKILL
    resumed = dgmm(*call, tmp_path / "s.zarr", "--workers", 1, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert "local cluster: 1 worker(s)" in resumed.err
    assert json.loads(resumed.out)["rows_written"] < 3_000_000
    assert dgmm(*call, tmp_path / "unbroken", "--workers", 2, cwd=tmp_path).code == 0
    assert content(tmp_path / "s.zarr") == content(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--top 0", "'--top'"),
        ("--anomaly-quantile 0", "'--anomaly-quantile'"),
        ("--anomaly-quantile 1", "'--anomaly-quantile'"),
    ],
)
def test_values_that_mean_nothing(
    case: tuple[Path, Path],
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, model = case
    out = tmp_path / "p.zarr"
    assert in_process(monkeypatch, "predict", data, "--model", model, "--out", out, *arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
