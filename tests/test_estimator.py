"""`GaussianMixture` as scikit-learn's users know it."""

from __future__ import annotations

import pickle
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from cases import TYPES, assert_close, mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import dgmm
from dgmm import GaussianMixture
from dgmm.errors import (
    CollapsedComponentWarning,
    DgmmWarning,
    IllDefinedCovariance,
    InvalidData,
    InvalidParameter,
    InvalidWeights,
    NonFiniteData,
    ShapeMismatch,
    UnsupportedDtype,
)
from dgmm.mixture.covariance import COVARIANCE_TYPES

ARRAYS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
all_types = pytest.mark.parametrize("name", TYPES)


def clusters(n=300, k=3, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return mixture("full", k, d, rng, spread=6.0, low=0.5, high=1.5).sample(n, rng)[0]


def fitted(name="full", k=3, rows=None, **options):
    rows = clusters() if rows is None else rows
    return GaussianMixture(k, covariance_type=name, **{"random_state": 0, **options}).fit(rows)


def equal(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)


# --- attributes ----------------------------------------------------------------------------------------------


@all_types
def test_attributes_are_scikit_learns(name):
    model = fitted(name)
    shapes = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3,)}
    assert model.weights_.shape == (3,)
    assert model.means_.shape == (3, 2)
    for attribute in ("covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(model, attribute).shape == shapes[name]
    assert model.weights_.sum() == pytest.approx(1.0)
    assert model.converged_ is True
    assert model.n_features_in_ == 2
    assert len(model.lower_bounds_) == model.n_iter_
    assert model.lower_bound_ == model.lower_bounds_[-1]
    assert model.fit(clusters()) is model
    inverse = np.linalg.inv(model.covariances_) if name in ("full", "tied") else 1 / model.covariances_
    assert_close(model.precisions_, inverse, 1e-10)


def test_results_a_row():
    rows, model = clusters(), fitted()
    labels, proba = model.predict(rows), model.predict_proba(rows)
    assert labels.shape == (300,)
    assert labels.dtype == np.int64
    assert proba.shape == (300, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(labels, proba.argmax(axis=1))
    assert model.score_samples(rows).shape == (300,)
    assert model.score(rows) == pytest.approx(model.score_samples(rows).mean(), rel=1e-13)
    np.testing.assert_array_equal(clone(model).fit_predict(rows), labels)
    n_parameters = 2 + 6 + 9
    assert model.bic(rows) == pytest.approx(-2 * model.score(rows) * 300 + n_parameters * np.log(300))
    assert model.aic(rows) == pytest.approx(-2 * model.score(rows) * 300 + n_parameters * 2)


def test_a_weighted_score_is_that_of_repeated_rows():
    rows, model = clusters(), fitted()
    weights = np.random.default_rng(0).integers(0, 3, 300)
    expected = model.score(np.repeat(rows, weights, axis=0))
    assert model.score(rows, sample_weight=weights.astype(float)) == pytest.approx(expected, rel=1e-13)


# --- dtypes --------------------------------------------------------------------------------------------------


@all_types
def test_float32_rows_give_float32_attributes_near_those_of_float64(name):
    rows = clusters().astype(np.float32)
    single, double = fitted(name, rows=rows), fitted(name, rows=rows.astype(float))
    for attribute in ARRAYS:
        assert getattr(single, attribute).dtype == np.float32
        assert getattr(double, attribute).dtype == np.float64
        assert_close(getattr(single, attribute), getattr(double, attribute), 1e-4, attribute)
    assert single.predict_proba(rows).dtype == np.float64
    np.testing.assert_array_equal(single.predict(rows), double.predict(rows))


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "<i4", ">i8", "u8", "<f2", ">f2", ">f4", ">f8", np.longdouble], ids=str
)
def test_other_numbers_are_those_of_the_same_value(dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (200, 3)) if dtype == "?" else np.round(clusters(200, d=3)) + 50
    rows = values.astype(dtype)
    same = rows.astype(np.float32 if dtype == ">f4" else np.float64)
    k = 1 if dtype == "?" else 3
    model = fitted(k=k, rows=same)
    assert equal(fitted(k=k, rows=rows), model)
    np.testing.assert_array_equal(model.score_samples(rows), model.score_samples(same))


def test_lists_are_rows_too():
    assert equal(fitted(rows=clusters().tolist()), fitted())


# --- bad parameters and data ---------------------------------------------------------------------------------

K, D = 2, 2
BAD = [
    ({"n_components": 0}, r"n_components is 0.*integer of at least 1"),
    ({"n_components": 2.5}, r"n_components is 2\.5.*integer"),
    ({"n_components": True}, "n_components is True"),
    ({"n_components": "3"}, "n_components is '3'"),
    ({"covariance_type": "round"}, r"covariance_type is 'round'.*full, tied, diag, spherical"),
    ({"covariance_type": None}, "covariance_type is None"),
    ({"tol": -1e-3}, r"tol is -0\.001.*number of at least 0"),
    ({"tol": np.nan}, "tol is nan"),
    ({"tol": "1e-3"}, "tol is '1e-3'"),
    ({"reg_covar": -1.0}, "reg_covar is -1.0"),
    ({"reg_covar": np.inf}, "reg_covar is inf"),
    ({"reg_relative": -1.0}, "reg_relative is -1.0"),
    ({"max_iter": -1}, "max_iter is -1"),
    ({"max_iter": 1.5}, "max_iter is 1.5"),
    ({"n_init": 0}, "n_init is 0"),
    ({"init_params": "best"}, r"init_params is 'best'.*kmeans, k-means\+\+, random, random_from_data"),
    ({"random_state": -1}, "random_state is -1"),
    ({"weights_init": [0.5]}, r"weights_init has shape \(1,\).*\(2,\)"),
    ({"weights_init": [0.5, 0.6]}, "weights_init must be between 0 and 1 and sum to 1"),
    ({"weights_init": [1.5, -0.5]}, "weights_init must be between 0 and 1"),
    ({"weights_init": [np.nan, 1.0]}, "weights_init contains NaN"),
    ({"means_init": np.zeros((3, 2))}, r"means_init has shape \(3, 2\).*\(2, 2\)"),
    ({"means_init": np.full((2, 2), np.inf)}, "means_init contains NaN or infinity"),
    ({"precisions_init": np.ones(2)}, r"precisions_init has shape \(2,\).*\(2, 2, 2\)"),
    ({"precisions_init": np.array([[[1, 2], [0, 1]]] * 2)}, "symmetric, positive-definite"),
    ({"precisions_init": np.array([[[1, 0], [0, -1]]] * 2)}, "symmetric, positive-definite"),
    ({"precisions_init": np.array([[1, 0], [0, -1]]), "covariance_type": "tied"}, "symmetric, positive-definite"),
    ({"precisions_init": np.array([[1, 1], [1, 0]]), "covariance_type": "diag"}, "positive"),
    ({"precisions_init": np.array([1, -1]), "covariance_type": "spherical"}, "positive"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, _ in BAD])
def test_a_bad_parameter_is_named_with_what_it_must_be(options, message):
    with pytest.raises(InvalidParameter, match=message) as caught:
        GaussianMixture(**{"n_components": K, "random_state": 0, **options}).fit(clusters(50))
    assert isinstance(caught.value, ValueError)


def test_parameters_are_checked_in_fit_alone():
    model = GaussianMixture(-3, covariance_type="round")
    assert model.get_params()["n_components"] == -3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_not_finite_is_named_by_row_and_feature(value, dtype):
    rows = clusters().astype(dtype)
    rows[123, 1] = value
    spelled = {np.inf: " infinity", -np.inf: "-infinity"}.get(value, "NaN")
    with pytest.raises(NonFiniteData, match=f"{spelled} .*row 123, feature 1"):
        fitted(rows=rows)


def test_infinities_of_both_signs_are_found():
    rows = clusters()
    rows[7], rows[9] = np.inf, -np.inf
    with pytest.raises(NonFiniteData, match="row 7, feature 0"):
        fitted(rows=rows)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score"])
def test_a_fitted_model_refuses_what_is_not_finite(method):
    rows = clusters()
    rows[123, 1] = np.nan
    for data in (rows, da.from_array(rows, chunks=(100, 2))):
        with (
            pytest.raises(NonFiniteData, match=r"NaN .*row 123, feature 1"),
            dask.config.set(scheduler="synchronous"),
        ):
            np.asarray(getattr(fitted(), method)(data))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.empty((0, 2)), ShapeMismatch, "0 sample"),
        (np.empty((5, 0)), ShapeMismatch, "0 feature"),
        (np.arange(5.0), ShapeMismatch, "1-D"),
        (np.zeros((2, 2, 2)), ShapeMismatch, "3-D"),
        (np.zeros((2, 2)), ShapeMismatch, "n_samples = 2"),
        (np.zeros((5, 2), complex), UnsupportedDtype, "complex"),
        (np.array([["a", "b"]] * 5), UnsupportedDtype, "real numbers"),
        (np.zeros((5, 2), "M8[s]"), UnsupportedDtype, "seconds"),
        (None, InvalidData, "None"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_used_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        GaussianMixture(3).fit(rows)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(299), "300 rows"),
        (np.zeros(300), "all sample weights are zero"),
        (np.r_[np.ones(299), -1.0], "row 299 is -1"),
        (np.r_[np.nan, np.ones(299)], "row 0 is nan"),
        (np.ones((300, 2)), "one weight a row"),
    ],
)
def test_sample_weights_that_cannot_be_used_are_refused(weights, message):
    with pytest.raises(InvalidWeights, match=message):
        GaussianMixture(2).fit(clusters(), sample_weight=weights)


def test_another_number_of_features_is_refused():
    with pytest.raises(ShapeMismatch, match="3 features, but GaussianMixture is expecting 2"):
        fitted().predict(np.zeros((5, 3)))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score", "bic", "aic"])
def test_an_unfitted_model_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(GaussianMixture(), method)(clusters())


def test_an_unfitted_model_neither_samples_nor_is_saved(tmp_path):
    model = GaussianMixture()
    for action in (model.sample, lambda: model.save(tmp_path / "m"), model.to_sklearn):
        with pytest.raises(NotFittedError):
            action()
    assert list(tmp_path.iterdir()) == []


# --- starts --------------------------------------------------------------------------------------------------


def test_the_best_of_several_starts_is_kept():
    rows = clusters(400, k=6, seed=3)
    # Given weights: nothing is split or merged, the starts alone decide.
    settings = {"init_params": "random_from_data", "weights_init": np.full(6, 1 / 6)}
    scores = [fitted(k=6, rows=rows, n_init=n, **settings).lower_bound_ for n in (1, 3, 8)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 1e-3


def test_the_seed_decides_and_nothing_else():
    rows = clusters(k=6)
    # Given weights: nothing is split or merged, which would lead every start to one optimum.
    settings = {"k": 6, "rows": rows, "weights_init": np.full(6, 1 / 6)}

    def one(random_state):
        return fitted(**settings, random_state=random_state)

    assert equal(one(3), one(3))
    assert not equal(one(3), one(4))
    assert equal(one(np.int64(3)), one(3))
    for make in (np.random.RandomState, np.random.default_rng):
        assert equal(one(make(3)), one(make(3)))
        stateful = make(3)
        assert not equal(one(stateful), one(stateful))
    state = np.random.get_state()[1].copy()  # noqa: NPY002  None leaves the global state alone
    assert np.isfinite(one(None).lower_bound_)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_warm_start_goes_on_where_the_last_fit_stopped():
    rows = clusters(k=4)
    with pytest.warns(ConvergenceWarning, match="did not converge in 3 iterations"):
        model = fitted(k=4, rows=rows, max_iter=3, warm_start=True)
    first = model.lower_bound_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
        straight = fitted(k=4, rows=rows, max_iter=6)
    assert model.lower_bounds_[0] > first
    assert_close(model.means_, straight.means_, 1e-10)
    assert model.lower_bound_ == pytest.approx(straight.lower_bound_, rel=1e-12)


def test_without_iterations_the_start_is_the_answer():
    rows = clusters()
    means = rows[:3]
    model = fitted(rows=rows, max_iter=0, means_init=means)
    assert_close(model.means_, means, 1e-14)
    assert model.n_iter_ == 0
    assert not model.converged_
    assert np.isfinite(model.score(rows))


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@all_types
def test_every_init_params_fits(name, init_params):
    model = fitted(name, init_params=init_params)
    assert model.converged_
    assert np.isfinite(model.means_).all()


# --- sampling ------------------------------------------------------------------------------------------------


@all_types
def test_samples_are_ordered_and_have_the_right_moments(name):
    model = fitted(name, rows=clusters() + 1.7e9)
    rows, labels = model.sample(40_000)
    assert rows.shape == (40_000, 2)
    assert rows.dtype == np.float64
    assert labels.shape == (40_000,)
    assert np.all(np.diff(labels) >= 0)
    full = COVARIANCE_TYPES[name].full(model.covariances_, 3, 2)
    for k in range(3):
        mine = rows[labels == k]
        assert abs(len(mine) / 40_000 - model.weights_[k]) < 0.0125
        deviation = np.sqrt(np.diag(full[k]))
        assert np.abs((mine.mean(axis=0) - model.means_[k]) / deviation).max() < 5 / np.sqrt(len(mine))
        difference = (np.cov(mine.T) - full[k]) / deviation / deviation[:, None]
        assert np.abs(difference).max() < 10 / np.sqrt(len(mine))
    np.testing.assert_array_equal(model.sample(10)[0], model.sample(10)[0])  # a seed gives the same rows again


@pytest.mark.parametrize("n", [0, -1, 1.5, "3"])
def test_a_number_of_samples_that_means_nothing_is_refused(n):
    with pytest.raises(InvalidParameter, match=f"Invalid value for 'n_samples': {n}"):
        fitted().sample(n)


# --- copies of a model ---------------------------------------------------------------------------------------


def assert_same_model(a, b, rows):
    assert type(a) is type(b)
    assert equal(a, b)
    for attribute in ARRAYS:
        assert getattr(a, attribute).dtype == getattr(b, attribute).dtype
    for attribute in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
        assert getattr(a, attribute) == getattr(b, attribute)
    for method in ("predict", "predict_proba", "score_samples", "score"):
        np.testing.assert_array_equal(getattr(a, method)(rows), getattr(b, method)(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@all_types
def test_a_saved_model_predicts_the_same_bits(tmp_path, name, dtype):
    rows = (clusters() * np.array([1e-3, 1e3]) + np.array([0.0, 1e6])).astype(dtype)
    model = fitted(name, rows=rows)
    model.save(tmp_path / "model.npz")
    loaded = dgmm.load(tmp_path / "model.npz")
    assert_same_model(loaded, model, rows)
    assert loaded.covariance_type == name
    assert loaded.n_components == 3
    loaded.save(tmp_path / "again.npz")
    assert_same_model(dgmm.load(tmp_path / "again.npz"), model, rows)


def test_a_pickled_model_predicts_the_same_bits():
    model = fitted()
    assert_same_model(pickle.loads(pickle.dumps(model)), model, clusters())


def test_clone_and_parameters():
    model = fitted("diag", reg_covar=1e-4, n_init=2)
    copy = clone(model)
    assert not hasattr(copy, "means_")
    assert copy.get_params() == model.get_params()
    assert copy.set_params(n_components=2).n_components == 2
    assert equal(clone(model).fit(clusters()), model)
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(colour="red")


def test_feature_names_are_kept_and_checked():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(clusters(), columns=["a", "b"])
    model = fitted(rows=frame)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert equal(model, fitted())
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a"]])


# --- extremes ------------------------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("d", [1, 5])
def test_one_component_is_the_mean_and_the_covariance(name, d):
    rng = np.random.default_rng(0)
    # Shapes within a few units of each other: one condition number for all types.
    rows = rng.standard_normal((500, d)) @ rng.uniform(-1, 1, (d, d)) + 3.0
    model = fitted(name, 1, rows, reg_covar=0)
    covariance = np.cov(rows.T, bias=True).reshape(d, d)
    expected = {
        "full": covariance[None],
        "tied": covariance,
        "diag": np.diag(covariance)[None],
        "spherical": np.array([np.trace(covariance) / d]),
    }[name]
    assert_close(model.means_[0], rows.mean(axis=0), 1e-12, "mean")
    assert_close(model.covariances_, expected, 1e-12, "covariance")
    assert model.converged_


@all_types
def test_with_regularisation_constant_features_and_duplicates_are_finite(name):
    rows = np.repeat(clusters(20), 10, axis=0)
    rows = np.column_stack([rows, np.full(200, 5.0), rows[:, 0]])  # constant, and twice the same
    with pytest.warns(CollapsedComponentWarning, match="very few distinct rows"):
        model = fitted(name, 3, rows, reg_covar=1e-6)
    assert np.isfinite(model.score_samples(rows)).all()
    assert model.weights_.sum() == pytest.approx(1.0)
    if name in ("full", "tied"):
        np.testing.assert_allclose(model.covariances_[..., 2, 2], 1e-6, rtol=1e-6)


@all_types
def test_equal_rows_and_more_components_than_distinct_rows_are_finite(name):
    for rows in (np.ones((50, 2)), np.repeat(np.arange(6.0).reshape(3, 2), 20, axis=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DgmmWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = fitted(name, 5, rows)
        assert np.isfinite(model.means_).all()
        assert np.isfinite(model.score_samples(rows)).all()
        assert model.weights_.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["full", "tied", "diag"])
def test_without_regularisation_a_constant_feature_is_named_with_its_component(name):
    rows = np.column_stack([clusters(), np.full(300, 5.0)])
    with pytest.raises(IllDefinedCovariance, match=r"component \d.*feature 2"):
        fitted(name, 3, rows, reg_covar=0)


@all_types
def test_a_start_far_from_all_rows_never_gives_nan(name):
    rows = clusters()
    means = np.concatenate([rows[:2], [[1e6, 1e6]]])
    kind = COVARIANCE_TYPES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DgmmWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        units = np.eye(2) if name in ("full", "tied") else 1.0
        for precisions in (None, np.broadcast_to(units, kind.shape(3, 2))):
            start = {"weights_init": [0.5, 0.5, 0.0], "means_init": means, "precisions_init": precisions}
            model = fitted(name, 3, rows, **start)
            for attribute in ARRAYS:
                assert np.isfinite(getattr(model, attribute)).all()
            assert np.isfinite(model.score_samples(rows)).all()
            assert model.weights_.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("reg_covar", [1e-6])
@all_types
def test_an_outlier_does_no_damage_to_the_others(name, reg_covar):
    rows = clusters(500)
    clean = fitted(name, 3, rows, reg_covar=reg_covar)
    spoiled = np.concatenate([rows, [[1e8, 1e8]]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DgmmWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = fitted(name, 4, spoiled, reg_covar=reg_covar, n_init=5)
    far = np.abs(model.means_).max(axis=1) > 1e7
    assert far.sum() == 1
    found = model.means_[~far]
    nearest = np.linalg.norm(found[:, None] - clean.means_[None], axis=2).min(axis=0)
    assert nearest.max() < 0.5


def test_the_verbose_log_goes_to_standard_output(capsys):
    fitted(verbose=1, verbose_interval=1)
    out = capsys.readouterr().out
    assert "scan: 300 rows" in out
    assert "sample, start 1: " in out
    fitted(verbose=0)
    assert capsys.readouterr().out == ""
