"""Rows with a missing value: refused, or left out as if they were not there."""

import json

import dask.array as da
import numpy as np
import pytest
import zarr
from commands import in_process
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm import GaussianMixture, load, open_source
from dgmm.engine.passes import Passes
from dgmm.engine.sample import uniform_hash
from dgmm.engine.scan import scan
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import InvalidData, InvalidWeights, NonFiniteData

N, D = 6000, 3
START = {"weights_init": [0.5, 0.5], "means_init": [[0] * D, [4] * D], "precisions_init": [np.eye(D)] * 2}


def rows_with_holes(n=N, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(0, 1, (n // 2, D)), rng.normal(4, 2, (n - n // 2, D))])
    rng.shuffle(rows)
    rows[rng.random(n) < share, rng.integers(0, D)] = np.nan
    return rows


def absent(rows):
    return np.isnan(rows).any(axis=1)


def dropping(rows, **kwargs):
    return open_source(rows, missing="drop", **kwargs)


def as_zarr(rows, folder, chunk=500):
    array = zarr.create_array(folder / f"rows-{chunk}.zarr", shape=rows.shape, chunks=(chunk, D), dtype=rows.dtype)
    array[:] = rows
    return folder / f"rows-{chunk}.zarr"


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_left_out_is_a_row_that_is_not_there(covariance_type, weighted):
    rows = rows_with_holes()
    gone = absent(rows)
    weights = np.random.default_rng(1).random(N) if weighted else None
    start = {"full": [np.eye(D)] * 2, "tied": np.eye(D), "diag": np.ones((2, D)), "spherical": np.ones(2)}
    given_start = {**START, "precisions_init": start[covariance_type]}
    common = {"covariance_type": covariance_type, "max_iter": 6, "tol": 0, "sample_size": 1000, **given_start}
    if weighted:
        weights[gone] = np.nan  # nobody asks for the weight of what is not there
    with pytest.warns(match="did not converge"):
        ours = GaussianMixture(2, **common).fit(dropping(rows), sample_weight=weights)
    with pytest.warns(match="did not converge"):
        theirs = GaussianMixture(2, **common).fit(
            rows[~gone], sample_weight=None if weights is None else weights[~gone]
        )
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)
    assert ours.n_missing_ == gone.sum() > 0
    assert theirs.n_missing_ == 0
    np.testing.assert_allclose(ours.bic(dropping(rows)), theirs.bic(rows[~gone]), rtol=1e-12)


def test_results_come_back_as_missing(tmp_path):
    rows = rows_with_holes()
    gone, path = absent(rows), as_zarr(rows, tmp_path)
    mixture = GaussianMixture(2, random_state=0).fit(dropping(path))
    for data in (dropping(rows), dropping(path), dropping(da.from_array(rows, chunks=(700, D)))):
        labels, density = np.asarray(mixture.predict(data)), np.asarray(mixture.score_samples(data))
        posterior = np.asarray(mixture.predict_proba(data))
        assert set(labels[gone]) == {-1}
        assert np.isnan(density[gone]).all()
        assert np.isnan(posterior[gone]).all()
        np.testing.assert_array_equal(labels[~gone], mixture.predict(rows[~gone]))
        np.testing.assert_allclose(density[~gone], mixture.score_samples(rows[~gone]), rtol=1e-12)
        np.testing.assert_allclose(posterior[~gone], mixture.predict_proba(rows[~gone]), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=5), seed=st.integers(0, 1000), share=st.floats(0, 0.95))
def test_the_sample_does_not_depend_on_the_blocks(cuts, seed, share):
    rows = rows_with_holes(share=share, seed=seed)
    source = dropping(rows).rows(np.array(sorted({0, *cuts, N})))
    found = scan(Passes(source, None, LocalScheduler()), sample_rows=200, seed=seed)
    present = np.flatnonzero(~absent(rows))
    chosen = present[np.argsort(uniform_hash(seed, present))[:200]]
    np.testing.assert_array_equal(found.rows, rows[np.sort(chosen)])
    assert (found.n_rows, found.n_missing) == (len(present), N - len(present))


def test_where_most_rows_are_missing_a_second_pass_fills_the_sample():
    for share, n_passes in ((0.3, 1), (0.9, 2)):
        found = scan(
            Passes(dropping(rows_with_holes(100_000, share)), None, LocalScheduler()),
            sample_rows=2000, seed=0,
        )  # fmt: skip
        assert (len(found.rows), found.n_passes) == (2000, n_passes)


def test_blocks_without_a_row(tmp_path):
    rows = rows_with_holes()
    rows[500:1500] = np.nan
    rows[-500:] = np.nan
    ours = GaussianMixture(2, random_state=0, sample_size=1000).fit(dropping(as_zarr(rows, tmp_path)))
    theirs = GaussianMixture(2, random_state=0).fit(rows[~absent(rows)])
    np.testing.assert_allclose(np.sort(ours.weights_), np.sort(theirs.weights_), rtol=1e-3)


@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask"])
def test_by_default_a_missing_value_is_an_error_that_says_how_to_leave_it_out(kind, tmp_path):
    rows = rows_with_holes()
    data = {"numpy": rows, "zarr": as_zarr(rows, tmp_path), "dask": da.from_array(rows, chunks=(700, D))}[kind]
    with pytest.raises(NonFiniteData, match="missing='drop'"):
        GaussianMixture(2).fit(data)


def test_infinity_is_not_a_missing_value():
    rows = rows_with_holes()
    rows[np.flatnonzero(~absent(rows))[7], 1] = np.inf
    row = np.flatnonzero(np.isinf(rows).any(axis=1))[0]
    with pytest.raises(NonFiniteData, match=f"infinity \\(row {row}, feature 1 of array\\)") as caught:
        GaussianMixture(2).fit(dropping(rows))
    assert "drop" not in str(caught.value)


def test_nothing_left_is_said():
    with pytest.raises(InvalidData, match="each of the 50 rows of array has a missing value"):
        GaussianMixture(2).fit(dropping(np.full((50, D), np.nan)))
    rows = np.full((50, D), np.nan)
    rows[0] = 1
    with pytest.raises(InvalidData, match="only 1 rows have no missing value, for 2 components"):
        GaussianMixture(2).fit(dropping(rows))
    rows[:4] = np.arange(12).reshape(4, 3)
    weights = np.zeros(50)
    weights[0] = 1
    with pytest.raises(InvalidWeights, match="only 1 rows have a positive weight"):
        GaussianMixture(2).fit(dropping(rows), sample_weight=weights)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    rows = rows_with_holes()
    gone, path, model = absent(rows), as_zarr(rows, tmp_path), tmp_path / "m.dgmm"

    def run(*words, code=0):
        assert in_process(monkeypatch, *words, local=True) == code
        return capsys.readouterr()

    assert "--missing drop" in run("fit", path, "-k", 2, "--model", model, code=2).err
    said = f"{gone.sum():,} rows with a missing value left out"
    fitted = run("fit", path, "-k", 2, "--model", model, "--missing", "drop", "--seed", 0, "--json")
    assert said in fitted.err
    facts = json.loads(fitted.out)
    assert (facts["rows"], facts["rows_left_out"]) == ((~gone).sum(), gone.sum())
    assert said in run("info", model).out
    mixture = load(model)
    assert mixture.n_missing_ == gone.sum()
    scored = json.loads(run("score", path, "--model", model, "--missing", "drop", "--json").out)
    assert (scored["n"], scored["rows_left_out"]) == ((~gone).sum(), gone.sum())
    np.testing.assert_allclose(scored["mean_log_likelihood"], mixture.score(rows[~gone]), rtol=1e-12)
    selected = run(
        "select", path, "--components", "1..2", "--covariance-types", "full", "--model", model, "--missing", "drop"
    )
    assert said in selected.err
    out = tmp_path / "described.zarr"
    mixture = load(model)
    run("predict", path, "--model", model, "--missing", "drop", "--out", out, "--labels", "--log-density")
    labels = zarr.open_array(out / "labels")[:]
    np.testing.assert_array_equal(labels == -1, gone)
    np.testing.assert_array_equal(labels[~gone], mixture.predict(rows[~gone]))
    np.testing.assert_array_equal(np.isnan(zarr.open_array(out / "log_density")[:]), gone)
