"""`dgmm.select`: the right candidate, with the figures that `GaussianMixture` finds."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from cases import TYPES
from sklearn.exceptions import ConvergenceWarning

import dgmm
import dgmm.engine.search
import dgmm.engine.settings
from dgmm import GaussianMixture
from dgmm.engine.passes import Passes
from dgmm.engine.subset import Subset
from dgmm.errors import IllDefinedCovariance, InvalidParameter, ShapeMismatch
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.parameters import Parameters

CROSSED = np.array([[[4.0, 3.0], [3.0, 4.0]], [[4.0, -3.0], [-3.0, 4.0]], [[0.5, 0.0], [0.0, 0.5]]])
COVARIANCES = {
    "full": CROSSED,
    "tied": CROSSED[0],
    "diag": np.array([[4.0, 0.5], [0.5, 4.0], [1.0, 1.0]]),
    "spherical": np.array([0.5, 2.0, 6.0]),
}


def three(name, n, seed=0):
    """Rows of three separated components."""
    means = np.array([[0.0, 0.0], [14.0, 0.0], [0.0, 14.0]])
    truth = Parameters(COVARIANCE_TYPES[name], np.array([0.3, 0.3, 0.4]), means, COVARIANCES[name])
    rng = np.random.default_rng(seed)
    return rng.permutation(truth.sample(n, rng)[0])


@pytest.fixture
def no_moves(monkeypatch):
    """Quicker, where it does not matter how good the fits are."""
    monkeypatch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)


@pytest.fixture(scope="module")
def rows():
    return three("diag", 5000)


@pytest.fixture(scope="module")
def found(rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)
        return dgmm.select(rows, (1, 2, 3, 4), random_state=3, sample_size=500, tol=1e-4, holdout=0.1)


# --- what is chosen ------------------------------------------------------------------------------------------


def check_chosen(name, n, sizes, seed, **settings):
    rows = three(name, n, seed)
    found = dgmm.select(rows, sizes, TYPES, random_state=seed, tol=1e-3, **settings)
    assert (found.best.n_components, found.best.covariance_type) == (3, name), f"{found}"
    assert found.best.bic(rows) == pytest.approx(min(entry.bic for entry in found.table))


@pytest.mark.parametrize("name", TYPES)
def test_bic_finds_the_generating_model_of_few_rows(no_moves, name):
    check_chosen(name, 500, (2, 3, 4), seed=0, n_init=4)


@pytest.mark.parametrize("name", TYPES)
def test_bic_finds_the_generating_model_of_more_rows_than_the_sample(monkeypatch, no_moves, name):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
    check_chosen(name, 8000, (2, 3, 4), seed=1, n_init=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("n", [900, 9000])
def test_bic_finds_the_generating_model_among_many(monkeypatch, name, seed, n):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1000)
    check_chosen(name, n, range(1, 7), seed)


@pytest.mark.parametrize("name", ["full", "spherical"])
def test_the_best_is_what_a_fit_alone_finds(name):
    """The spherical candidate has a frame of its own among the others."""
    rows, settings = three(name, 3000, seed=2), {"random_state": 5, "sample_size": 500, "tol": 1e-6}
    best = dgmm.select(rows, 3, TYPES, **settings).best
    alone = GaussianMixture(3, covariance_type=name, **settings).fit(rows)
    assert best.covariance_type == name
    assert best.converged_
    assert best.lower_bound_ == pytest.approx(alone.lower_bound_, rel=1e-12)
    for attribute in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(best, attribute), getattr(alone, attribute), rtol=1e-6, atol=1e-6)


def check_no_other_is_better(distance, seed, sizes, types, **more):
    """Three groups in a row, the last one wider."""
    rng, n, tol = np.random.default_rng(seed), 4000, 1e-4
    label = rng.integers(3, size=n)
    rows = rng.standard_normal((n, 2)) * (1 + label // 2)[:, None] + distance * label[:, None]
    settings = {"random_state": seed, "tol": tol, "sample_size": 400, **more}
    found = dgmm.select(rows, sizes, types, **settings)
    lowest = min(entry.bic for entry in found.table if not entry.dropped)
    assert found.best.bic(rows) == pytest.approx(lowest, abs=1e-6)
    for entry in (entry for entry in found.table if not entry.collapsed):
        alone = GaussianMixture(entry.n_components, covariance_type=entry.covariance_type, **settings).fit(rows)
        # EM may leave `tol` of the mean log-likelihood where it stops, on either side.
        assert lowest < alone.bic(rows) + 4 * n * tol, (seed, entry)


@pytest.mark.parametrize("seed", range(2))
def test_nothing_dropped_or_beaten_is_better_in_the_end(no_moves, seed):
    check_no_other_is_better(4.0, seed, (1, 2, 3, 4), ("full", "spherical"))


@pytest.mark.slow
@pytest.mark.parametrize("distance", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("seed", range(10))
def test_nothing_dropped_or_beaten_is_better_in_the_end_however_near_the_groups(no_moves, seed, distance):
    check_no_other_is_better(distance, seed, range(1, 6), TYPES, n_init=4)


# --- the figures ---------------------------------------------------------------------------------------------


def test_the_best_line_has_the_figures_of_its_model(rows, found):
    (line,) = (e for e in found.table if (e.n_components, e.covariance_type) == (3, "diag"))
    best = found.best
    assert (best.n_components, best.covariance_type) == (3, "diag")
    left_out = Subset(0.1, seed=3, held_out=True).weights(np.arange(len(rows)), None) > 0
    kept = rows[~left_out]
    r = best.predict_proba(kept)
    entropy = -np.sum(r[r > 0] * np.log(r[r > 0]))
    assert line.n_parameters == 2 + 6 + 6
    assert line.log_likelihood == pytest.approx(best.score(kept), rel=1e-12)
    assert line.bic == pytest.approx(best.bic(kept), rel=1e-12)
    assert line.aic == pytest.approx(best.aic(kept), rel=1e-12)
    assert line.icl == pytest.approx(best.bic(kept) + 2 * entropy, rel=1e-10)
    assert line.held_out == pytest.approx(best.score(rows[left_out]), rel=1e-12)
    assert line.converged is best.converged_ is True


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("n", [300, 3000])
def test_figures_of_each_type(no_moves, name, n):
    rows = three(name, n, seed=1)
    found = dgmm.select(rows, 3, name, criterion="icl", random_state=0, sample_size=300, tol=1e-4)
    (line,), best = found.table, found.best
    r = best.predict_proba(rows)
    entropy = -np.sum(r[r > 0] * np.log(r[r > 0]))
    assert line.log_likelihood == pytest.approx(best.score(rows), rel=1e-12)
    assert (line.bic, line.aic) == pytest.approx((best.bic(rows), best.aic(rows)), rel=1e-12)
    assert line.icl == pytest.approx(best.bic(rows) + 2 * entropy, rel=1e-10)
    assert np.isnan(line.held_out)


@pytest.mark.parametrize("n", [200, 2000], ids=["complete", "sampled"])
def test_a_weight_of_two_is_the_row_twice(no_moves, n):
    """With parameters that no iteration changes, so that both judge the same."""
    rows, weights = three("full", n), np.random.default_rng(0).integers(0, 3, n).astype(float)
    settings = {"random_state": 0, "max_iter": 0, "sample_size": 200}
    (line,) = (found := dgmm.select(rows, 2, "full", sample_weight=weights, **settings)).table
    best, repeated = found.best, np.repeat(rows, weights.astype(int), axis=0)
    r = best.predict_proba(repeated)
    entropy = -np.sum(r[r > 0] * np.log(r[r > 0]))
    assert line.log_likelihood == pytest.approx(best.score(repeated), rel=1e-12)
    assert (line.bic, line.aic) == pytest.approx((best.bic(repeated), best.aic(repeated)), rel=1e-12)
    assert line.icl == pytest.approx(best.bic(repeated) + 2 * entropy, rel=1e-10)


def test_the_table_has_each_candidate_once_in_order(found):
    lines = [(entry.covariance_type, entry.n_components) for entry in found.table]
    assert lines == [(kind, k) for kind in ("full", "tied", "diag", "spherical") for k in (1, 2, 3, 4)]
    assert any(entry.dropped for entry in found.table)


def test_as_a_frame(found):
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == [
        "n_components", "covariance_type", "log_likelihood", "n_parameters", "bic", "aic", "icl", "held_out",
        "n_passes", "converged", "collapsed", "dropped", "failed", "seconds",
    ]  # fmt: skip
    assert frame.to_dict("records") == found.records()
    best = frame.loc[frame[~frame.dropped].bic.idxmin()]
    assert (best.n_components, best.covariance_type) == (3, "diag")


def test_as_text(found):
    title, *lines = str(found).splitlines()
    assert title.split()[:3] == ["K", "type", "log-likelihood"]
    assert len(lines) == len(found.table)
    (best,) = (line for line in lines if line.endswith("best bic"))
    assert best.split()[:2] == ["3", "diag"]
    assert [line.endswith("dropped: as foreseen from the sample") for line in lines] == [
        entry.dropped for entry in found.table
    ]


@pytest.mark.parametrize("kind", ["float32", "zarr", "dask", "pandas"])
def test_the_kinds_of_data(no_moves, rows, tmp_path, kind):
    small = rows[:600]
    data = {
        "float32": lambda: small.astype(np.float32),
        "zarr": lambda: zarr.create_array(tmp_path / "x", data=small, chunks=(200, 2)),
        "dask": lambda: da.from_array(small, chunks=(250, 1)),
        "pandas": lambda: pd.DataFrame(small, columns=["a", "b"]),
    }[kind]()
    sizes = (k for k in np.array([2, 3]))
    found = dgmm.select(data, sizes, "diag", random_state=0, tol=1e-3, sample_size=300)
    expected = dgmm.select(small, [2, 3], ["diag"], random_state=0, tol=1e-3, sample_size=300)
    assert found.best.n_components == expected.best.n_components == 3
    np.testing.assert_allclose(found.best.means_, expected.best.means_, rtol=1e-4, atol=1e-4)
    if kind == "pandas":
        assert list(found.best.feature_names_in_) == ["a", "b"]


def test_a_best_that_has_not_converged_warns(no_moves):
    with pytest.warns(ConvergenceWarning, match="of the best candidate did not converge in 2 iterations"):
        dgmm.select(three("full", 200), 2, "full", random_state=0, tol=0, max_iter=2)


def test_verbose_logs(no_moves, capsys):
    dgmm.select(three("full", 200), 2, "full", random_state=0, verbose=1)
    assert "sample, 2 components, full:" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [{"max_iter": 0}, {"max_passes": 1}])
def test_no_iterations_at_all(no_moves, rows, limit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = dgmm.select(rows, (2, 3), "diag", random_state=0, sample_size=500, **limit)
    assert (found.best.n_components, found.n_passes) == (3, 2)


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_int": 3}, "takes no 'n_int'; did you mean 'n_init'"),
        ({"nonsense": 3}, "takes no 'nonsense'. It takes init_params"),
        ({"n_finalists": 2}, "takes no 'n_finalists'"),
        ({"means_init": [[0.0, 0.0]]}, "takes no 'means_init'"),
        ({"warm_start": True}, "takes no 'warm_start'"),
        ({"n_components": []}, "there is no candidate"),
        ({"covariance_types": ()}, "there is no candidate"),
        ({"n_components": 0}, "n_components holds 0"),
        ({"n_components": None}, "n_components holds None"),
        ({"n_components": 2.5}, "n_components holds 2.5"),
        ({"covariance_types": None}, "covariance_types holds None"),
        ({"covariance_types": [["full"]]}, "covariance_types holds"),
        ({"holdout": "much"}, "holdout is 'much'"),
        ({"n_components": [2, -1]}, "n_components holds -1"),
        ({"n_components": [2.0]}, "n_components holds 2.0"),
        ({"n_components": [True]}, "n_components holds True"),
        ({"n_components": "3"}, "n_components holds '3'"),
        ({"covariance_types": "round"}, "covariance_types holds 'round'; each must be one of full, tied"),
        ({"covariance_types": ["full", "Diag"]}, "covariance_types holds 'Diag'"),
        ({"criterion": "BIC"}, "criterion is 'BIC'; it must be one of bic, aic, icl, holdout"),
        ({"criterion": "holdout", "holdout": 0}, "holdout is 0"),
        ({"holdout": 1}, "holdout is 1"),
        ({"holdout": -0.1}, "holdout is -0.1"),
        ({"holdout": np.nan}, "holdout is nan"),
        ({"tol": -1}, "tol is -1"),
        ({"n_init": 0}, "n_init is 0"),
        ({"sample_size": 3}, "sample_size is 3; the starts of 4 components need at least 4"),
    ],
)
def test_refused_before_any_pass(monkeypatch, arguments, message):
    monkeypatch.setattr(Passes, "run", None)
    with pytest.raises(InvalidParameter, match=message):
        dgmm.select(np.zeros((100, 2)), **{"n_components": (2, 4), "covariance_types": "full", **arguments})


def test_more_components_than_rows_are_refused_before_any_pass(monkeypatch):
    monkeypatch.setattr(Passes, "run", None)
    with pytest.raises(ShapeMismatch, match="n_components = 6, n_samples = 5; use fewer components"):
        dgmm.select(np.zeros((5, 2)), range(1, 7))


@pytest.mark.parametrize(("fraction", "left_out"), [(0.001, 0), (0.8, 7), (0.99, 10)])
def test_a_fraction_that_leaves_too_few_rows(monkeypatch, fraction, left_out):
    monkeypatch.setattr(Passes, "run", None)
    with pytest.raises(InvalidParameter, match=f"of 10 rows it leaves out {left_out}, and {10 - left_out} for"):
        dgmm.select(three("full", 10), (1, 5), "full", holdout=fraction, random_state=1)


def test_where_every_candidate_fails_its_reason_is_told():
    with pytest.raises(IllDefinedCovariance, match="feature 0 has the smallest variance"):
        dgmm.select(np.ones((50, 2)), (1, 2), "full", reg_covar=0, random_state=0)


def test_a_candidate_that_cannot_be_fitted_has_a_line_that_says_why():
    rows = np.column_stack([np.random.default_rng(0).standard_normal((300, 2)), np.full(300, 5.0)])
    found = dgmm.select(rows, (1, 2), ("full", "spherical"), reg_covar=0, random_state=0)
    assert found.best.covariance_type == "spherical"
    assert all(bool(entry.failed) == (entry.covariance_type == "full") for entry in found.table)
    assert len(found.table) == 4
    failed = next(entry for entry in found.table if entry.failed)
    assert np.isnan(failed.bic)
    assert not failed.dropped
    assert "feature 2" in failed.failed
    assert "failed: component 0 has an ill-defined covariance" in str(found)
