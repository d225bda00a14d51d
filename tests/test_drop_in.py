"""What users of scikit-learn's `GaussianMixture` rely on, side by side with it where it can be compared."""

from __future__ import annotations

import inspect
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from cases import TYPES, assert_close, mixture
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dgmm import GaussianMixture
from dgmm.errors import InvalidData, InvalidParameter, ShapeMismatch, UnsupportedDtype
from dgmm.mixture.covariance import COVARIANCE_TYPES

ARRAYS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
all_types = pytest.mark.parametrize("name", TYPES)
both = pytest.mark.parametrize("cls", [GaussianMixture, Theirs], ids=["dgmm", "sklearn"])
RNG = np.random.default_rng(0)
ROWS = mixture("full", 2, 2, RNG, spread=6.0, low=0.5, high=1.5).sample(120, RNG)[0]
OVERLAPPING = mixture("full", 2, 2, RNG, spread=2.0).sample(300, RNG)[0]
WEIGHTS = RNG.uniform(0.5, 2.0, len(ROWS))
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])


def fitted(cls=GaussianMixture, rows=ROWS, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cls(**{"n_components": 2, "random_state": 0, **options}).fit(rows)


# --- names ---------------------------------------------------------------------------------------------------


def test_every_public_name_is_here_too():
    names = {name for name in dir(fitted(Theirs, FRAME)) if not name.startswith("_")}
    assert names <= set(dir(fitted(GaussianMixture, FRAME)))


def test_parameters_and_their_defaults_are_the_same_but_for_three():
    ours = inspect.signature(GaussianMixture).parameters
    theirs = inspect.signature(Theirs).parameters
    assert {n for n, p in theirs.items() if p.default != ours[n].default} == {"tol", "max_iter", "init_params"}
    assert all(p.kind == ours[name].kind for name, p in theirs.items())


def test_methods_take_scikit_learns_arguments():
    for method in (
        "fit",
        "fit_predict",
        "predict",
        "predict_proba",
        "score",
        "score_samples",
        "sample",
        "bic",
        "aic",
    ):
        ours, theirs = (list(inspect.signature(getattr(c, method)).parameters) for c in (GaussianMixture, Theirs))
        assert ours[: len(theirs)] == theirs


def test_tags_are_the_same():
    assert GaussianMixture().__sklearn_tags__() == Theirs().__sklearn_tags__()
    assert hasattr(GaussianMixture(), "set_output") is hasattr(Theirs(), "set_output") is False


def test_representations():
    model = GaussianMixture(2, tol=1e-4)
    assert repr(model) == "GaussianMixture(n_components=2, tol=0.0001)"
    assert "Not fitted" in model._repr_html_()
    page = fitted()._repr_html_()
    assert "GaussianMixture" in page
    assert "Not fitted" not in page


@all_types
def test_the_number_of_parameters_is_scikit_learns(name):
    model = fitted(covariance_type=name)
    assert model._n_parameters() == model.to_sklearn()._n_parameters()


# --- what is refused, and what is not ------------------------------------------------------------------------

REFUSED = [
    ({"covariance_type": ["full"]}, r"covariance_type is \['full'\]; it must be one of full, tied"),
    ({"init_params": ["kmeans"]}, r"init_params is \['kmeans'\]"),
    ({"tol": None}, "tol is None; it must be a number"),
    ({"n_init": 1.5}, "n_init is 1.5"),
    ({"warm_start": 1}, "warm_start is 1; it must be True or False"),
    ({"warm_start": "yes"}, "warm_start is 'yes'"),
    ({"verbose": -1}, "verbose is -1; .*integer of at least 0"),
    ({"verbose": "yes"}, "verbose is 'yes'"),
    ({"verbose_interval": 0}, "verbose_interval is 0"),
    ({"random_state": "a"}, "random_state is 'a'; it must be None, an integer"),
    ({"random_state": 1.5}, "random_state is 1.5"),
    ({"weights_init": [0.5, 0.500009]}, "sum to 1"),
    ({"weights_init": ["a", "b"]}, r"weights_init cannot be read as real numbers of the shape \(2,\): .*'a'"),
    ({"weights_init": [0.5, 0.5 + 1j]}, "weights_init cannot be read .*complex"),
    ({"means_init": [[1], [1, 2]]}, "means_init cannot be read"),
    ({"means_init": "abc"}, "means_init cannot be read"),
    ({"means_init": 5}, r"means_init has shape \(\)"),
    ({"means_init": sparse.eye(2).tocsr()}, "means_init"),
    ({"means_init": np.zeros((2, 2, 1))}, r"means_init has shape \(2, 2, 1\)"),
    ({"precisions_init": np.zeros((2, 2, 2))}, "symmetric, positive-definite"),
    ({"precisions_init": np.full((2, 2, 2), np.nan)}, "precisions_init contains NaN"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[str(options)[:60] for options, _ in REFUSED])
def test_what_scikit_learn_refuses_is_refused_by_name(options, message):
    with pytest.raises((ValueError, TypeError)):
        fitted(Theirs, **options)
    with pytest.raises(InvalidParameter, match=message):
        fitted(**options)


def test_the_parameters_that_are_only_here_are_checked_too():
    for options in ({"accelerate": 1}, {"max_passes": 0}, {"n_finalists": 2}, {"sample_size": 1}):
        with pytest.raises(InvalidParameter, match=next(iter(options))):
            fitted(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": np.int64(2), "tol": np.float32(1e-3), "max_iter": np.int32(50)},
        {"covariance_type": np.str_("diag"), "init_params": np.str_("kmeans")},
        {"warm_start": np.bool_(True), "verbose": np.bool_(False), "tol": 1},
        {"weights_init": (0.5, 0.5), "means_init": [[0, 0], [5, 5]]},
        {"weights_init": np.array([0.5, 0.5 + 5e-7], np.float32)},
        {"weights_init": pd.Series([0.5, 0.5]), "means_init": pd.DataFrame([[0, 0], [5, 5]])},
        {"precisions_init": [np.eye(2).tolist()] * 2, "means_init": np.array([[0, 0], [5, 5]], object)},
    ],
    ids=str,
)
@both
def test_what_scikit_learn_takes_is_taken(cls, options):
    assert fitted(cls, **options).means_.shape == (2, 2)


@both
def test_one_row_is_too_few(cls):
    with pytest.raises(ValueError, match=r"Found .*1 sample.* while a minimum of 2 is required"):
        cls().fit(ROWS[:1])


def test_a_failed_fit_changes_nothing():
    model = fitted(rows=FRAME)
    before = pickle.dumps(vars(model))
    mixed = FRAME.set_axis(["a", 1], axis=1)
    for rows, error in ((mixed, UnsupportedDtype), (FRAME[:1], ShapeMismatch)):
        with pytest.raises(error):
            model.fit(rows)
    assert pickle.dumps(vars(model)) == before


def test_assigning_attributes_makes_no_fitted_model():
    model = GaussianMixture(2)
    model.weights_, model.means_ = np.full(2, 0.5), np.zeros((2, 2))
    with pytest.raises(NotFittedError, match="This GaussianMixture instance is not fitted yet"):
        model.predict(ROWS)


# --- fits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_iter": 0}, {"max_iter": 2}, {"n_init": 3, "tol": 1e-3}], ids=str)
@all_types
def test_fit_predict_is_fit_and_predict(name, options):
    rows, options = OVERLAPPING, {"n_components": 3, "covariance_type": name, "random_state": 0, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = GaussianMixture(**options).fit_predict(rows)
    np.testing.assert_array_equal(labels, fitted(rows=rows, **options).predict(rows))


@both
def test_without_iterations_nothing_was_found_and_nothing_is_warned_of(cls):
    model = cls(2, max_iter=0, random_state=0).fit(ROWS)  # a warning would be an error
    assert (model.n_iter_, model.converged_, model.lower_bound_, model.lower_bounds_) == (0, False, -np.inf, [])


@all_types
def test_each_part_of_the_start_is_where_em_begins(name):
    precisions = 2 * np.eye(2) + 0.5 if name in ("full", "tied") else 2.0
    parts = {
        "weights_init": [0.3, 0.7],
        "means_init": ROWS[:2].tolist(),
        "precisions_init": np.broadcast_to(precisions, COVARIANCE_TYPES[name].shape(2, 2)).tolist(),
    }
    for given, value in parts.items():
        model = fitted(covariance_type=name, max_iter=0, **{given: value})
        assert_close(getattr(model, given.replace("init", "")), value, 1e-12, given)
        assert getattr(model, given) is value


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "f2"])
@all_types
def test_attributes_have_the_dtype_that_scikit_learns_have(name, dtype):
    rows = np.round(4 * ROWS).astype(dtype)
    ours, theirs = (fitted(cls, rows, covariance_type=name) for cls in (GaussianMixture, Theirs))
    for attribute in ARRAYS:
        assert getattr(ours, attribute).dtype == getattr(theirs, attribute).dtype
    assert [a.dtype for a in ours.sample(3)] == [a.dtype for a in theirs.sample(3)]
    assert ours.predict(rows).dtype == theirs.predict(rows).dtype


# --- warm starts ---------------------------------------------------------------------------------------------


@all_types
def test_one_iteration_at_a_time_converges_as_all_in_one_go(name):
    rows = OVERLAPPING
    start = {"weights_init": [0.5, 0.5], "means_init": rows[:2]}  # nothing is split or merged
    straight = fitted(rows=rows, covariance_type=name, accelerate=False, **start)
    assert straight.n_iter_ > 5
    model = fitted(rows=rows, covariance_type=name, max_iter=1, warm_start=True, **start)
    fits = 1
    while not model.converged_ and fits < 2 * straight.n_iter_:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows)
        fits += 1
        assert model.n_iter_ == len(model.lower_bounds_) == 1
    assert fits == straight.n_iter_
    assert_close(model.means_, straight.means_, 1e-9)


@pytest.mark.parametrize("change", [{"n_components": 3}, {"covariance_type": "diag"}], ids=str)
def test_a_warm_start_of_another_mixture_starts_anew(change):
    model = fitted(warm_start=True).set_params(**change).fit(ROWS)
    anew = fitted(**change)
    for attribute in ARRAYS:
        np.testing.assert_array_equal(getattr(model, attribute), getattr(anew, attribute))


def test_the_last_fit_counts_for_nothing_without_a_warm_start():
    model = fitted()
    for _ in range(8):
        with pytest.warns(ConvergenceWarning):
            model.set_params(max_iter=1).fit(ROWS)


# --- the log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "iterations"),
    [({"verbose": 1, "verbose_interval": 2}, [2, 4]), ({"verbose": True}, []), ({"verbose": 0}, None)],
    ids=str,
)
def test_the_log_shows_starts_and_every_so_many_iterations(capsys, options, iterations):
    fitted(rows=OVERLAPPING, sample_size=60, max_iter=5, tol=0, **options)
    lines = capsys.readouterr().out.splitlines()
    found = [int(line.split()[1].strip(":")) for line in lines if line.startswith("iteration")]
    assert found == (iterations or [])
    assert any("start 1: " in line for line in lines) is (iterations is not None)
    assert not any("rows/s" in line for line in lines)


def test_more_verbosity_tells_the_time(capsys):
    fitted(verbose=2)
    assert "rows/s" in capsys.readouterr().out


# --- feature names -------------------------------------------------------------------------------------------


def frames():
    yield pytest.param(lambda: FRAME, id="pandas")
    yield pytest.param(
        lambda: pytest.importorskip("polars").DataFrame({name: FRAME[name].to_numpy() for name in FRAME}),
        id="polars",
    )


@pytest.mark.parametrize("frame", list(frames()))
def test_names_of_columns(frame):
    frame = frame()
    model, plain = fitted(rows=frame), fitted()
    assert model.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(model.predict_proba(frame), plain.predict_proba(ROWS))
    with pytest.raises(InvalidData, match="must be in the same order"):
        model.predict(frame[["b", "a"]])
    with pytest.raises(InvalidData, match="seen at fit time, yet now missing"):
        model.score(frame[["a"]])
    with pytest.warns(
        UserWarning, match="X does not have valid feature names, but GaussianMixture was fitted with"
    ):
        model.predict(ROWS)
    with pytest.warns(UserWarning, match="X has feature names, but GaussianMixture was fitted without"):
        plain.predict(frame)
    model.fit(ROWS)
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(ROWS).shape == (len(ROWS),)


def test_columns_without_string_names_are_rows_without_names():
    assert not hasattr(fitted(rows=pd.DataFrame(ROWS)), "feature_names_in_")


@pytest.mark.parametrize("kind", ["Float64", "Float32", "float32[pyarrow]"])
def test_columns_of_pandas_own_dtypes_are_numbers(kind):
    if "pyarrow" in kind:
        pytest.importorskip("pyarrow")
    assert_close(fitted(rows=FRAME.astype(kind)).means_, fitted().means_, 1e-6)


# --- among scikit-learn's tools ------------------------------------------------------------------------------


def test_a_seed_draws_the_same_sample_again_and_a_state_goes_on():
    for state, same in ((3, True), (np.random.RandomState(3), False), (np.random.default_rng(3), False)):
        model = fitted(random_state=state)
        assert np.array_equal(model.sample(5)[0], model.sample(5)[0]) is same


def test_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0))
    pipeline.fit(ROWS, gaussianmixture__sample_weight=WEIGHTS)
    scaled = StandardScaler().fit_transform(ROWS)
    alone = GaussianMixture(2, random_state=0).fit(scaled, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(pipeline.predict_proba(ROWS), alone.predict_proba(scaled))
    assert pipeline.score(ROWS) == alone.score(scaled)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.score_samples(ROWS), pipeline.score_samples(ROWS))
    clone(pipeline).set_params(gaussianmixture__n_components=3).fit(ROWS)


def cross_validated(options, *, weighted_score):
    """The mean held-out score of weighted fits."""
    scores = []
    for train, test in KFold(3).split(ROWS):
        model = GaussianMixture(random_state=0, **options).fit(ROWS[train], sample_weight=WEIGHTS[train])
        scores.append(model.score(ROWS[test], sample_weight=WEIGHTS[test] if weighted_score else None))
    return np.mean(scores)


@pytest.mark.parametrize("routing", [False, True])
def test_in_a_grid_search_with_weights(routing):
    grid = {"n_components": [1, 2], "covariance_type": ["full", "diag"]}
    model = GaussianMixture(random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, grid, cv=KFold(3), error_score="raise").fit(ROWS, sample_weight=WEIGHTS)
    results = search.cv_results_
    for options, score in zip(results["params"], results["mean_test_score"], strict=True):
        expected = [cross_validated(options, weighted_score=weighted) for weighted in (False, True)]
        if routing:
            assert score == pytest.approx(expected[1], rel=1e-12)
        else:  # scikit-learn's versions differ in whether they weight the score then
            assert score == pytest.approx(expected[0], rel=1e-12) or score == pytest.approx(expected[1], rel=1e-12)
    assert search.best_params_["n_components"] == 2
    assert search.best_estimator_.predict(ROWS).shape == (len(ROWS),)


def test_weights_are_routed_only_where_it_was_asked_for():
    with sklearn.config_context(enable_metadata_routing=True):
        model = GaussianMixture(2, random_state=0)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            GridSearchCV(model, {"n_components": [2]}).fit(ROWS, sample_weight=WEIGHTS)
        model.set_fit_request(sample_weight=True)
        routing = model.get_metadata_routing()
        assert routing.fit.requests["sample_weight"] is True
        assert routing.score.requests["sample_weight"] is None
        assert set(routing.fit.requests) == {"sample_weight", "checkpoint", "observer"}
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(ROWS, sample_weight=WEIGHTS)
        scaled = StandardScaler().fit_transform(ROWS)
        alone = GaussianMixture(2, random_state=0).fit(scaled, sample_weight=WEIGHTS)
        assert pipeline.score(ROWS) == alone.score(scaled)


def test_a_grid_search_survives_fits_that_fail():
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [2, 1000]}, cv=3)
    with (
        pytest.warns(FitFailedWarning, match="n_components = 1000"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(ROWS)
    assert search.best_params_ == {"n_components": 2}
