"""The memory plan holds on real workers; what does not fit is refused before any task, and the advice works."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import ROOT, TIMEOUT, dgmm, environment
from dask.utils import parse_bytes
from distributed import Client, LocalCluster

from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.memory import Held, check_plan, fit_plan, thread_bytes
from dgmm.errors import NotEnoughMemory
from dgmm.mixture.covariance import covariance_type

FULL = covariance_type("full")
LIMIT = "600MiB"


def stored(path: Path, rows: int, d: int, chunk: int) -> str:
    rng = np.random.default_rng(0)
    array = zarr.create_array(path, shape=(rows, d), chunks=(chunk, d), dtype="f4")
    array[:] = rng.standard_normal((rows, d), dtype="f4") + 6 * rng.integers(2, size=(rows, 1))
    return str(path)


@pytest.fixture(scope="module")
def large_chunks(tmp_path_factory):
    """Two chunks of 64 MiB: three of them are more than a worker of 600 MiB has left."""
    return stored(tmp_path_factory.mktemp("large") / "large.zarr", 6_000_000, 4, 4_194_304)


def test_the_command_line_refuses_before_any_task_and_its_advice_works(large_chunks, tmp_path):
    def fit(data: object) -> tuple[int, str]:
        words = ("-k", 2, "--workers", 1, "--memory-limit", LIMIT, "--seed", 0, "--max-iter", 3)
        done = dgmm("fit", data, *words, "--model", tmp_path / "model", cwd=tmp_path)
        return done.code, done.err

    code, said = fit(large_chunks)
    assert code == 2, said
    assert "scan:" not in said
    advice = re.search(r"\(dgmm convert (\S+) OUT\): chunks of ([\d,]+) rows, .* need ([\d.]+ MiB)", said)
    assert advice, said
    assert parse_bytes(advice[3]) < parse_bytes(LIMIT)
    converted = dgmm("convert", advice[1], tmp_path / "small.zarr", cwd=tmp_path)
    assert converted.code == 0, converted.err
    small = open_source(str(tmp_path / "small.zarr"))
    assert small.chunk_rows == int(advice[2].replace(",", ""))
    code, said = fit(tmp_path / "small.zarr")
    assert code == 0, said
    planned = re.search(r"memory planned for a worker thread: ([\d.]+ MiB)", said)
    assert parse_bytes(planned[1]) <= parse_bytes(advice[3])  # which does not know how well it compresses


def test_a_client_is_asked_for_nothing_before_the_refusal(large_chunks):
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with LocalCluster(n_workers=1, memory_limit=LIMIT, **local) as cluster, Client(cluster) as client:

        def transitions() -> int:
            return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)

        with pytest.raises(NotEnoughMemory, match=r"needs .* a worker thread, but .* has 600\.00 MiB") as refused:
            GaussianMixture(2, random_state=0).fit(large_chunks)
        assert transitions() == 0
        # As much memory as the message asks for is enough.
        enough = re.search(r"Give workers ([\d.]+ MiB) for each thread", str(refused.value))
    with (
        LocalCluster(n_workers=1, memory_limit=f"{float(enough[1][:-4]) + 0.01}MiB", **local) as cluster,
        Client(cluster),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # it does not converge
        fitted = GaussianMixture(2, random_state=0, max_iter=2).fit(large_chunks)
    assert fitted.n_iter_ == 2


def test_components_too_large_for_any_chunks(tmp_path):
    data = open_source(stored(tmp_path / "x.zarr", 40_000, 256, 20_000))
    plan = fit_plan(data, None, [(256, FULL)], 40_000)
    needed = check_plan(None, plan, data)
    with pytest.raises(NotEnoughMemory, match=r"smaller chunks alone do not help") as refused:
        check_plan(1 << 30, plan, data)
    assert f"Give workers {needed / 2**30:.2f} GiB for each thread" in str(refused.value)
    assert "with the memory of 2;" in str(refused.value)
    small = open_source(stored(tmp_path / "small.zarr", 4_000, 256, 1_000))
    with pytest.raises(NotEnoughMemory, match=r"smaller chunks of rows would not help"):
        check_plan(1 << 28, fit_plan(small, None, [(256, FULL)], 4_000), small)


def test_what_conversion_would_give_is_what_it_gives(large_chunks, tmp_path):
    foreseen = Held.converted(open_source(large_chunks))
    assert dgmm("convert", large_chunks, tmp_path / "out.zarr", cwd=tmp_path).code == 0
    found = Held.of(open_source(str(tmp_path / "out.zarr")))
    assert (found.block_rows, found.n_blocks) == (foreseen.block_rows, foreseen.n_blocks)
    of = [thread_bytes(held, None, [(2, FULL)], 50_000) for held in (found, foreseen)]
    assert 0.8 * of[1] <= of[0] <= of[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "cells",
    [
        "--features 2 16 --components 2 64 --chunks 16 --types full diag",
        "--features 256 --components 64 --chunks 1 --types full spherical",
        "--features 16 --components 2 --chunks 256 --types tied",
    ],
)
def test_the_plan_is_what_workers_take_or_up_to_half_as_much_again(cells, tmp_path):
    call = [sys.executable, ROOT / "benchmarks" / "memory.py", tmp_path, *cells.split()]
    done = subprocess.run(
        call, check=True, capture_output=True, text=True, timeout=4 * TIMEOUT, env=environment(), cwd=tmp_path
    )
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    assert rows
    for row in rows:
        planned, measured = float(row[4]), float(row[5])
        assert measured <= planned <= 1.5 * measured, done.stdout
