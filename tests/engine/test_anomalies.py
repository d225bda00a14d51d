"""The threshold of anomalies: within its stated error, exactly counted, and the same however it is found."""

from __future__ import annotations

from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm import GaussianMixture, open_source
from dgmm.engine.anomalies import BUCKETS_PER_OCTAVE, DensityWork, Histogram
from dgmm.engine.predict import open_output, predict, recorded_threshold
from dgmm.engine.quantities import Anomalies, Labels, LogDensity
from dgmm.errors import CheckpointMismatch, InvalidData, InvalidParameter, NonFiniteData

QUANTILES = (1e-4, 0.001, 0.01, 0.25, 0.5, 0.999)


def assert_within_its_error(values, quantile, found):
    """Never above the exact quantile, below it by less than a bucket, and counted exactly."""
    exact = np.sort(values)[int(quantile * len(values))]
    assert found.threshold <= exact
    assert exact - found.threshold <= abs(exact) / BUCKETS_PER_OCTAVE
    assert found.rows_below == np.count_nonzero(values < found.threshold)
    assert found.rows_below <= quantile * len(values)
    assert found.rows == len(values)
    facts = found.facts()
    assert facts["share"] == found.rows_below / len(values)
    assert facts["rank_error"] == quantile - facts["share"] >= 0


def histogram(values, cuts=(), order=None):
    bounds = sorted({0, *cuts, len(values)})
    parts = [Histogram.of(values[a:b]) for a, b in pairwise(bounds)]
    first, *rest = [parts[i] for i in (range(len(parts)) if order is None else order)]
    for part in rest:
        first = first + part
    return first


@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: -10 - 0.5 * rng.chisquare(8, n),
        lambda rng, n: -90 - 0.5 * rng.chisquare(64, n),
        lambda rng, n: 4 - 0.5 * rng.chisquare(2, n),  # of both signs
        lambda rng, n: -8 - np.abs(rng.standard_cauchy(n)) ** 2,
        lambda rng, n: -np.round(rng.exponential(5, n)),  # ties, with zeros of both signs
        lambda rng, n: np.full(n, -3.25),
        lambda rng, n: np.zeros(n),
        lambda rng, n: rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-300, 300, n),
    ],
    ids=["chi2", "wide", "signs", "heavy", "ties", "constant", "zero", "all doubles"],
)
def test_the_error_is_as_stated(make, quantile):
    values = make(np.random.default_rng(0), 20_000)
    assert_within_its_error(values, quantile, histogram(values).threshold(quantile))


def test_of_smooth_distributions_the_share_is_nearly_the_quantile():
    rng = np.random.default_rng(1)
    for values in (-10 - 0.5 * rng.chisquare(8, 10**6), -90 - 0.5 * rng.chisquare(64, 10**6)):
        found = histogram(values)
        assert found.threshold(0.001).facts()["rank_error"] < 1e-5
        assert found.threshold(0.5).facts()["rank_error"] < 5e-4
        assert found.buckets.nbytes + found.counts.nbytes < 10**6


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    quantile=st.floats(0.001, 0.999),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_blocks_merged_in_any_order_are_the_same(values, cuts, quantile, shuffle):
    values = np.array(values)
    whole = histogram(values)
    cuts = [min(cut, len(values)) for cut in cuts]
    order = list(range(len({0, *cuts, len(values)}) - 1))
    shuffle.shuffle(order)
    parts = histogram(values, cuts, order)
    np.testing.assert_array_equal(parts.buckets, whole.buckets)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    found = whole.threshold(quantile)
    assert found.rows_below == np.count_nonzero(values < found.threshold)
    empty = Histogram.of(np.empty(0))
    assert (whole + empty).threshold(quantile) == (empty + whole).threshold(quantile) == found


# --- of a mixture --------------------------------------------------------------------------------------------

N, D = 6000, 3


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) + 5 * rng.integers(2, size=(N, 1))


@pytest.fixture(scope="module")
def mixture(rows) -> GaussianMixture:
    return GaussianMixture(2, random_state=0, tol=1e-2).fit(rows)


@pytest.mark.parametrize("quantile", [0.001, 0.3])
def test_the_same_in_any_blocks_and_on_any_scheduler(mixture, rows, tmp_path, quantile):
    expected = mixture.anomaly_threshold(rows, quantile)
    density = mixture.score_samples(rows)
    exact = np.sort(density)[int(quantile * N)]
    assert 0 <= exact - expected <= abs(exact) / BUCKETS_PER_OCTAVE
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(250, D))
    for data in (tmp_path / "x.zarr", da.from_array(rows, chunks=((1, 999, 5000), D))):
        for scheduler in ("synchronous", "threads"):
            with dask.config.set({"scheduler": scheduler, "dgmm.blocks-per-leaf": 1}):
                assert mixture.anomaly_threshold(data, quantile) == expected


@pytest.mark.slow
def test_the_same_for_any_number_of_workers(mixture, rows, tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(50, D))
    expected = mixture.anomaly_threshold(rows, 0.01)
    with dask.config.set({"dgmm.blocks-per-leaf": 1}):
        for workers in (1, 2, 3):
            with (
                LocalCluster(workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
                Client(cluster),
            ):
                assert mixture.anomaly_threshold(tmp_path / "x.zarr", 0.01) == expected


@pytest.mark.parametrize("out", ["p.zarr", "p.parquet"])
@pytest.mark.parametrize("missing", [0, 500])
def test_flags_are_densities_below_the_recorded_threshold(mixture, rows, tmp_path, out, missing):
    rows = rows.copy()
    gone = np.random.default_rng(0).permutation(N)[:missing]
    rows[gone, 0] = np.nan
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(250, D))
    source = open_source(tmp_path / "x.zarr", missing="drop")
    wanted = [LogDensity(), Anomalies(0.02)]
    output = open_output(tmp_path / out, source, mixture._model, "model", wanted)
    seen = []
    assert predict(source, mixture._model, output, wanted, lambda *rows: seen.append(rows)) == N
    found = recorded_threshold(output)
    density, flags = read(tmp_path / out)
    np.testing.assert_array_equal(flags, density < found.threshold)
    assert not flags[gone].any()
    assert np.isnan(density[gone]).all()
    assert found.rows_below == flags.sum() > 0
    assert_within_its_error(np.delete(density, gone), 0.02, found)
    assert seen.count((N, N)) == 2, "two passes, each over all rows"


def read(path):
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        return group["log_density"][:], group["anomalies"][:]
    import pandas as pd

    table = pd.read_parquet(path)
    return table["log_density"].to_numpy(), table["anomaly"].to_numpy()


def test_a_run_that_goes_on_keeps_its_threshold(mixture, rows, tmp_path, monkeypatch):
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(1000, D))
    source, wanted = open_source(tmp_path / "x.zarr"), [Anomalies(0.02)]
    monkeypatch.setattr("dgmm.data.zarr_output.SENSIBLE_BYTES", (1, 2**26))
    output = open_output(tmp_path / "p.zarr", source, mixture._model, "model", wanted)
    assert predict(source, mixture._model, output, wanted) == N
    attributes = zarr.open_group(tmp_path / "p.zarr", mode="r").attrs.asdict()
    assert attributes["anomalies"] == recorded_threshold(output).facts()
    first = (tmp_path / "p.zarr/anomalies/c/2").read_bytes()
    (tmp_path / "p.zarr/anomalies/c/2").unlink()
    zarr.open_group(tmp_path / "p.zarr").attrs["complete"] = False

    def searched(self):
        message = "the threshold was looked for again"
        raise AssertionError(message)

    monkeypatch.setattr(DensityWork, "begin", searched)
    output = open_output(tmp_path / "p.zarr", source, mixture._model, "model", wanted)
    assert predict(source, mixture._model, output, wanted) == 1000
    assert (tmp_path / "p.zarr/anomalies/c/2").read_bytes() == first
    for other in ([Anomalies(0.03)], [Labels()]):
        with pytest.raises(CheckpointMismatch, match="results of another anomaly_quantile"):
            open_output(tmp_path / "p.zarr", source, mixture._model, "model", other)


def test_rows_beyond_double_precision_are_anomalous(mixture, rows):
    far = np.concatenate([rows, [[1e200, 0, 0], [1e100, 0, 0]]])
    with np.errstate(all="ignore"):
        threshold = mixture.anomaly_threshold(far, 2.5 / len(far))
        flags = mixture._per_row(far, Anomalies(0.1, threshold))[0]
    assert np.flatnonzero(flags).tolist() == [N, N + 1]


def test_what_is_refused(mixture, rows):
    for quantile in (0, 1, -0.1, 2, np.nan, "few", None):
        with pytest.raises(InvalidParameter, match="must be a number between 0 and 1"):
            mixture.anomaly_threshold(rows, quantile)
    holes = rows.copy()
    holes[17] = np.nan
    with pytest.raises(NonFiniteData, match="row 17"):
        mixture.anomaly_threshold(holes, 0.1)
    nothing = open_source(np.full((50, D), np.nan), missing="drop")
    with pytest.raises(InvalidData, match="each of the 50 rows of array has a missing value"):
        mixture.anomaly_threshold(nothing, 0.1)
