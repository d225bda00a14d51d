"""Fits in units of each feature's standard deviation, seen in the data's own."""

import json
import warnings

import numpy as np
import pytest
import zarr
from commands import in_process
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.preprocessing import StandardScaler

import dgmm
from dgmm import GaussianMixture

UNITS = np.array([1e-3, 1.0, 2e4])
TYPES = ("full", "tied", "diag", "spherical")


def two(n=4000, seed=0):
    """Two spheres, each feature in units of its own."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(0, 1, (n // 2, 3)), rng.normal(4, 2, (n - n // 2, 3))])
    return rows * UNITS + [5, -3, 1e6]


def fitted(rows, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(**{"n_components": 2, "random_state": 0, "standardize": True, **changes}).fit(rows)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("sample_size", [None, 500])
def test_it_is_a_fit_of_standardised_rows(covariance_type, sample_size):
    """scikit-learn's, after StandardScaler, brought back to the data's units."""
    rows = two()
    scaler = StandardScaler().fit(rows)
    z = scaler.transform(rows)
    reg_covar = 0.05
    theirs = Theirs(
        2, covariance_type=covariance_type, reg_covar=reg_covar, tol=1e-12, max_iter=1000, random_state=0
    ).fit(z)
    ours = fitted(rows, covariance_type=covariance_type, reg_covar=reg_covar, tol=1e-12, sample_size=sample_size)
    order = np.argsort(ours.means_[:, 0])
    other = np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(ours.weights_[order], theirs.weights_[other], atol=1e-6)
    np.testing.assert_allclose(ours.means_[order], scaler.inverse_transform(theirs.means_[other]), rtol=1e-5)
    root = scaler.scale_
    expected = {
        "full": lambda c: c[other] * np.outer(root, root),
        "tied": lambda c: c * np.outer(root, root),
        "diag": lambda c: c[other] * root**2,
        "spherical": lambda c: c[other][:, None] * root**2,
    }[covariance_type](theirs.covariances_)
    found = ours.covariances_ if covariance_type == "tied" else ours.covariances_[order]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    density = theirs.score_samples(z) - np.log(root).sum()
    np.testing.assert_allclose(ours.score_samples(rows), density, atol=1e-4)
    assert ours._n_parameters() == theirs._n_parameters()


@given(st.lists(st.floats(-6, 6), min_size=3, max_size=3), st.sampled_from(TYPES))
def test_units_do_not_matter(exponents, covariance_type):
    rows, units = two(300), 10.0 ** np.array(exponents)
    one = fitted(rows, covariance_type=covariance_type, reg_covar=0.1, max_iter=5)
    other = fitted(rows * units, covariance_type=covariance_type, reg_covar=0.1, max_iter=5)
    np.testing.assert_allclose(one.weights_, other.weights_, rtol=1e-6)
    np.testing.assert_allclose(one.means_ * units, other.means_, rtol=1e-6)
    np.testing.assert_allclose(one.lower_bound_, other.lower_bound_ + np.log(units).sum(), rtol=1e-6)


def test_without_it_units_matter():
    """The law above can fail."""
    rows = two(300)
    one = fitted(rows, covariance_type="spherical", standardize=False)
    other = fitted(rows * [1, 1, 1e-6], covariance_type="spherical", standardize=False)
    assert abs(one.lower_bound_ - other.lower_bound_ - np.log(1e-6)) > 0.1


def test_standardised_spheres_are_a_diagonal_model_elsewhere(tmp_path):
    rows = two()
    model = fitted(rows, covariance_type="spherical")
    assert model.covariances_.shape == model.precisions_.shape == model.precisions_cholesky_.shape == (2, 3)
    np.testing.assert_allclose(model.precisions_, 1 / model.covariances_)
    theirs = model.to_sklearn()
    assert theirs.covariance_type == "diag"
    np.testing.assert_allclose(theirs.score_samples(rows), model.score_samples(rows), rtol=1e-7)
    model.save(tmp_path / "m.dgmm")
    again = dgmm.load(tmp_path / "m.dgmm")
    assert again.standardize is True
    np.testing.assert_array_equal(again.covariances_, model.covariances_)
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    drawn, labels = again.sample(100_000)
    np.testing.assert_allclose(drawn[labels == 0].var(axis=0), again.covariances_[0], rtol=0.05)


@pytest.mark.parametrize("given_start", ["means_init", "precisions_init"])
def test_a_start_in_data_units(given_start):
    rows = two()
    reference = fitted(rows, covariance_type="spherical")
    # The variance of a sphere in data units is that of the sphere of the same volume.
    volume = np.exp(np.log(reference.covariances_).mean(axis=1))
    start = {"means_init": reference.means_, "precisions_init": 1 / volume}
    found = fitted(rows, covariance_type="spherical", **{given_start: start[given_start]})
    assert found.lower_bound_ == pytest.approx(reference.lower_bound_, abs=1e-4)
    complete = fitted(rows, covariance_type="spherical", weights_init=reference.weights_, max_iter=1, **start)
    assert complete.lower_bounds_[0] == pytest.approx(reference.lower_bound_, abs=1e-6)


def test_warm_start_goes_on():
    rows = two()
    model = fitted(rows, covariance_type="spherical", warm_start=True, max_iter=2)
    before = model.lower_bound_
    assert fitted(rows, covariance_type="spherical").lower_bound_ >= before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows)
    assert model.lower_bounds_[0] == pytest.approx(before, abs=1e-2)
    assert model.lower_bounds_[0] >= before - 1e-9


def test_a_constant_feature():
    rows = two()
    rows[:, 1] = 7.0
    model = fitted(rows, covariance_type="spherical", reg_covar=1e-3)
    np.testing.assert_allclose(model.means_[:, 1], 7.0)


def test_another_fit_of_the_checkpoint_is_refused(tmp_path):
    rows = two()
    fitted(rows, covariance_type="spherical").fit(rows, checkpoint=tmp_path / "c")
    with pytest.raises(dgmm.errors.CheckpointMismatch, match="standardize was True"):
        fitted(rows[:10], covariance_type="spherical", standardize=False).fit(rows, checkpoint=tmp_path / "c")


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    rows = two()
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(1000, 3))
    words = ("fit", tmp_path / "x.zarr", "-k", 2, "--covariance-type", "spherical", "--seed", 0, "--json")
    more = ("--standardize", "--model", tmp_path / "m.dgmm", "--checkpoint", tmp_path / "c")
    assert in_process(monkeypatch, *words, *more, local=True) == 0
    facts = json.loads(capsys.readouterr().out)
    model = fitted(rows, covariance_type="spherical")
    assert in_process(monkeypatch, "info", tmp_path / "c", "--json") == 0
    of_checkpoint = json.loads(capsys.readouterr().out)
    for name in ("weights", "means", "standard_deviations"):
        assert facts[name] == of_checkpoint[name]
    np.testing.assert_allclose(dgmm.load(tmp_path / "m.dgmm").covariances_, model.covariances_, rtol=1e-9)


@pytest.mark.parametrize("standardize", [1, "yes", None])
def test_it_is_a_flag(standardize):
    with pytest.raises(dgmm.errors.InvalidParameter, match="standardize"):
        GaussianMixture(standardize=standardize).fit(two(100))


def test_select_takes_it():
    found = dgmm.select(two(), range(1, 4), ["full", "spherical"], random_state=0, standardize=True)
    assert (found.best.n_components, found.best.covariance_type) == (2, "spherical")
    assert found.best.covariances_.shape == (2, 3)
