"""A fit that is told to stop: exit 75, and the same command ends with the bits of an unbroken run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import Running, assert_listens_here_only, dgmm, in_process, running

ONE_BLOCK = {"DASK_DGMM__BLOCKS_PER_LEAF": "1"}


def fit(data: Path, model: Path, *more: object) -> tuple[object, ...]:
    return "fit", data, "-k", 3, "--seed", 3, "--tol", 0, "--max-iter", 12, "--model", model, "--workers", 2, *more


# As a terminal sends it, workers get it too; a batch system may tell the driver alone.
STOPS: list[tuple[signal.Signals, str, Callable[[Running, signal.Signals], None]]] = [
    (signal.SIGINT, "iteration 2:", Running.signal_group),
    (signal.SIGUSR1, "iteration 5:", Running.signal_group),
    (signal.SIGTERM, "iteration 8:", lambda command, number: command.process.send_signal(number)),
]


@pytest.mark.slow
def test_stopped_by_each_signal_in_turn_equals_unbroken(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(*fit(data, tmp_path / "unbroken"), cwd=tmp_path) as unbroken:
        stop_in_turn(data, tmp_path)
        assert in_process(monkeypatch, "info", tmp_path / "ck") == 0
        assert "iterations on all rows:" in capsys.readouterr().out
        assert unbroken.finish().code == 0
    finished = dgmm(*fit(data, tmp_path / "m", "--checkpoint", tmp_path / "ck"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "start 1" not in finished.err, "what was durable is not done again"
    assert (tmp_path / "m").read_bytes() == (tmp_path / "unbroken").read_bytes()


def stop_in_turn(data: Path, tmp_path: Path) -> None:
    call = fit(data, tmp_path / "m", "--checkpoint", tmp_path / "ck")
    for number, line, send in STOPS:
        with running(*call, cwd=tmp_path, **ONE_BLOCK) as command:
            command.wait_for(line)
            tree = psutil.Process(command.process.pid).children(recursive=True)
            assert_listens_here_only(command.process.pid)
            send(command, number)
            finished = command.finish()
        assert finished.code == 75, finished.err
        assert f"Interrupted: stopped by {number.name}" in finished.err
        assert "Run the same command again" in finished.err
        assert "Traceback" not in finished.err
        assert "distributed" not in finished.err
        assert not (tmp_path / "m").exists()
        assert not psutil.wait_procs(tree, timeout=20)[1], "no process is left behind"


@pytest.mark.slow
def test_without_a_checkpoint_a_stop_keeps_nothing_and_says_so(data: Path, tmp_path: Path) -> None:
    with running(*fit(data, tmp_path / "m"), cwd=tmp_path) as command:
        command.wait_for("iteration 1:")
        command.signal_group(signal.SIGTERM)  # as `timeout` sends it
        finished = command.finish()
    assert finished.code == 1
    assert "Stopped by SIGTERM: nothing was kept. With --checkpoint DIR" in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.slow
def test_stopped_at_any_moment_of_its_start(data: Path, tmp_path: Path) -> None:
    call = fit(data, tmp_path / "m", "--checkpoint", tmp_path / "ck")
    for line in ("cluster:", "memory planned", "scan:", "sample, start 1:"):
        with running(*call, cwd=tmp_path) as command:
            command.wait_for(line)
            command.signal_group(signal.SIGINT)
            finished = command.finish()
        assert finished.code == 75, finished.err
        assert "Traceback" not in finished.err
