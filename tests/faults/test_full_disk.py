"""A disk that is full: an error that names path and cause, what was written is whole, and the rest follows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from commands import dgmm as command
from commands import in_process
from disks import Disk, missing, small_disk
from facts import tell
from fittings import need

import dgmm
import dgmm.data.zarr_array
import dgmm.engine.settings
from dgmm.engine import record
from dgmm.engine.events import Iterated
from dgmm.engine.run import Silence
from dgmm.errors import WriteFailed

N, D, K = 300_000, 4, 3
CALLS = {
    "predict": ("predict", "x.zarr", "--model", "m", "--labels", "--responsibilities"),
    "convert": ("convert", "x.zarr"),
    "sample": ("sample", "--model", "m", "-n", N, "--seed", 3),
}


@pytest.fixture(autouse=True, scope="module")
def mounts() -> None:
    need(missing())


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in chunks, and a model."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, D)) + 3 * rng.integers(K, size=(N, 1))
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(10_000, D))
    dgmm.GaussianMixture(K, random_state=0, tol=1e-2).fit(rows[:5_000]).save(folder / "m")
    return folder


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def call(what: str, out: Path) -> tuple[object, ...]:
    return (*CALLS[what], *([out] if what == "convert" else ["--out", out]))


@pytest.mark.parametrize("kind", [".zarr", ".parquet"])
@pytest.mark.parametrize("what", CALLS)
def test_a_full_disk_under_an_output(
    what: str,
    kind: str,
    case: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(case)
    monkeypatch.setattr("dgmm.data.parquet_output.PART_ROWS", 20_000)
    assert in_process(monkeypatch, *call(what, tmp_path / f"unbroken{kind}"), local=True) == 0
    expected = content(tmp_path / f"unbroken{kind}")
    size = sum(map(len, expected.values()))
    with small_disk(tmp_path / "disk", size // 2) as disk:
        out = disk.path / f"out{kind}"
        capsys.readouterr()
        assert in_process(monkeypatch, *call(what, out), local=True) == 1
        said = capsys.readouterr().err
        assert f"Error: {out} cannot be written: " in said
        assert "No space left on device" in said
        assert "Make room or choose another path, and run again" in said
        assert_whole(content(out), expected)
        began = time.monotonic()
        disk.resize(3 * size)
        assert in_process(monkeypatch, *call(what, out), local=True) == 0
        assert content(out) == expected
        tell(f"disk full during {what}, to {kind}", 1, 1, time.monotonic() - began, "all files")


def assert_whole(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """What is there are units of the unbroken output, and what describes it, unfinished yet."""
    assert found
    assert len(found) < len(expected)
    for name, there in found.items():
        assert there == expected[name] or name in ("zarr.json", "_dgmm.json"), name


@pytest.mark.slow
@pytest.mark.parametrize("what", ["predict", "convert"])
def test_a_full_disk_under_workers(what: str, case: Path, tmp_path: Path) -> None:
    assert command(*call(what, tmp_path / "unbroken"), "--workers", 2, cwd=case).code == 0
    expected = content(tmp_path / "unbroken")
    size = sum(map(len, expected.values()))
    with small_disk(tmp_path / "disk", size // 2) as disk:
        out = disk.path / "out"
        finished = command(*call(what, out), "--workers", 2, cwd=case)
        assert finished.code == 1
        assert f"Error: {out} cannot be written: " in finished.err
        assert "No space left on device" in finished.err
        assert "Traceback" not in finished.err
        assert_whole(content(out), expected)
        disk.resize(3 * size)
        assert command(*call(what, out), "--workers", 2, cwd=case).code == 0
        assert content(out) == expected


class FillAt(Silence):
    """Leaves less room than a state needs, from an iteration on."""

    def __init__(self, iteration: int, disk: Disk) -> None:
        self._iteration, self._disk = iteration, disk

    def on_event(self, event: object) -> None:
        if isinstance(event, Iterated) and event.n_iter == self._iteration:
            (self._disk.path / "ballast").write_bytes(bytes(self._disk.free))


@contextmanager
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch, dask.config.set(scheduler="threads"):
        monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="EM did not converge")
            yield


def test_a_full_disk_under_a_checkpoint(case: Path, tmp_path: Path) -> None:
    def fitted(**more: object) -> bytes:
        mixture = dgmm.GaussianMixture(K, random_state=0, max_iter=6, tol=0).fit(case / "x.zarr", **more)
        return mixture._model.parameters.covariances.tobytes() + np.array(mixture.lower_bounds_).tobytes()

    with small_blocks(), small_disk(tmp_path / "disk", 2**20) as disk:
        unbroken = fitted()
        directory = disk.path / "ck"
        with pytest.raises(
            WriteFailed, match=rf"cannot write {directory}/.*No space left on device; \d+ bytes were"
        ):
            fitted(checkpoint=directory, observer=FillAt(3, disk))
        assert {run.state.n_iter for run in record.read(directory)[1].finalists.values()} == {3}
        assert not list(directory.glob(".*.tmp"))
        (disk.path / "ballast").unlink()
        began = time.monotonic()
        assert fitted(checkpoint=directory) == unbroken
        tell("disk full under a checkpoint of a fit", 1, 1, time.monotonic() - began, "parameters, history")
