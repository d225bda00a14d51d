"""Each covariance type against the matrices it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, covariances, matrices, mixture

from dgmm.errors import IllDefinedCovariance, InvalidParameter
from dgmm.mixture.covariance import COVARIANCE_TYPES, covariance_type

K, D = 3, 4
all_types = pytest.mark.parametrize("name", TYPES)


@pytest.fixture
def rng():
    return np.random.default_rng(17)


@all_types
def test_every_description_is_of_the_same_matrices(name, rng):
    parameters = mixture(name, K, D, rng)
    kind, given = parameters.covariance, parameters.covariances
    full = matrices(parameters).astype(float)
    assert given.shape == kind.shape(K, D)
    assert_close(kind.full(given, K, D), full, 0.0)
    cholesky = kind.precision_cholesky(given)
    precisions = np.linalg.inv(full)
    assert cholesky.shape == given.shape
    assert_close(kind.full(kind.precisions(cholesky), K, D), precisions, 1e-12)
    assert_close(kind.covariances_from_precisions(kind.precisions(cholesky)), given, 1e-12)
    assert_close(kind.log_det(cholesky, K, D), np.linalg.slogdet(precisions)[1] / 2, 1e-13)
    assert_close(kind.largest_precision(cholesky, K), np.linalg.eigvalsh(precisions)[:, -1], 1e-12)
    vectors = rng.standard_normal((K, D))
    expected = np.einsum("kij,kj->ki", precisions, vectors)
    assert_close(kind.precision_times(kind.precisions(cholesky), vectors), expected, 1e-12)


@all_types
@pytest.mark.parametrize("features", [(2,), (3, 0), (0, 1, 2, 3)])
def test_a_marginal_is_the_mixture_of_these_features(name, features, rng):
    parameters = mixture(name, K, D, rng)
    found, kept = parameters.marginal(features), list(features)
    assert found.covariance is parameters.covariance
    assert found.covariances.shape == found.covariance.shape(K, len(features))
    full = matrices(parameters).astype(float)
    assert_close(found.matrices(), full[:, kept][:, :, kept], 0.0)
    assert_close(found.means, parameters.means[:, kept], 0.0)
    assert_close(parameters.deviations, np.sqrt(np.diagonal(full, axis1=1, axis2=2)), 0.0)


@all_types
def test_whitening_makes_a_component_a_standard_normal(name, rng):
    parameters = mixture(name, K, D, rng)
    cholesky = parameters.covariance.precision_cholesky(parameters.covariances)
    delta = rng.standard_normal((D, 50))
    for k, matrix in enumerate(matrices(parameters).astype(float)):
        white = parameters.covariance.whiten(delta, cholesky, k)
        assert_close((white**2).sum(axis=0), np.einsum("ib,ij,jb->b", delta, np.linalg.inv(matrix), delta), 1e-12)


@all_types
def test_colouring_undoes_whitening(name, rng):
    parameters = mixture(name, K, D, rng)
    kind = parameters.covariance
    noise, cholesky = rng.standard_normal((10, D)), kind.precision_cholesky(parameters.covariances)
    for k in range(K):
        coloured = kind.colour(noise, parameters.covariances, k)
        lengths = (kind.whiten(coloured.T, cholesky, k) ** 2).sum(axis=0)
        assert_close(lengths, (noise**2).sum(axis=1), 1e-12)


@all_types
def test_quadratic_features_times_coefficients_are_the_quadratic_form(name, rng):
    parameters = mixture(name, K, D, rng)
    kind, z = parameters.covariance, rng.standard_normal((D, 20))
    cholesky = kind.precision_cholesky(parameters.covariances)
    phi = np.empty((kind.n_features(D) - D - 1, 20))
    kind.fill_quadratic(z, phi)
    found = kind.quadratic_coefficients(kind.precisions(cholesky)) @ phi + kind.row_log_density(cholesky, z)
    precisions = np.linalg.inv(matrices(parameters).astype(float))
    expected = -0.5 * np.einsum("ib,kij,jb->kb", z, precisions, z)
    assert_close(np.broadcast_to(found, (K, 20)), expected, 1e-12)


@all_types
def test_second_moments_and_outer_products_share_a_layout(name, rng):
    kind = COVARIANCE_TYPES[name]
    delta, r = rng.standard_normal((D, 30)), rng.random(30)
    found = kind.second_moment(delta, r)
    assert found.shape == (kind.n_quadratic(D),)
    assert_close(kind.outer(delta.T, delta.T).T @ r, found, 1e-14)
    a, b = rng.standard_normal((2, D))
    assert_close(kind.outer(a, b), kind.outer(b, a), 0.0)


@all_types
def test_pooled_log_density_sums_that_of_rows(name, rng):
    parameters = mixture(name, K, D, rng)
    kind, z = parameters.covariance, rng.standard_normal((D, 20))
    cholesky = kind.precision_cholesky(parameters.covariances)
    second = kind.second_moment(z, np.ones(20))[None]
    found = kind.shared_log_density(kind.precisions(cholesky), second)
    assert found == pytest.approx(np.sum(kind.row_log_density(cholesky, z)), rel=1e-12)


@all_types
def test_rescaling_is_that_of_the_rows(name, rng):
    kind, given = COVARIANCE_TYPES[name], covariances(name, K, D, rng)
    factor = np.full(D, 1e-5) if kind.isotropic else np.array([1e-6, 1.0, 3.0, 1e9])
    found = kind.full(kind.rescale(given, factor), K, D)
    assert_close(found / factor / factor[:, None], kind.full(given, K, D), 1e-14)
    cholesky = kind.rescale_cholesky(kind.precision_cholesky(given), factor)
    precisions = kind.full(kind.precisions(cholesky), K, D) * factor * factor[:, None]
    assert_close(precisions, kind.full(kind.precisions(kind.precision_cholesky(given)), K, D), 1e-12)


@all_types
def test_precisions_are_kept_as_scikit_learn_keeps_them(name, rng):
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

    given = covariances(name, K, D, rng)
    found = COVARIANCE_TYPES[name].precision_cholesky(given)
    assert_close(found, _compute_precision_cholesky(given, name), 1e-13)


@pytest.mark.parametrize(("name", "expected"), [("full", 30), ("tied", 10), ("diag", 12), ("spherical", 3)])
def test_free_parameters(name, expected, rng):
    parameters = mixture(name, K, D, rng)
    assert parameters.covariance.n_parameters(K, D) == expected
    assert parameters.n_parameters == K - 1 + K * D + expected


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_an_ill_defined_covariance_names_its_component(name, rng):
    given = covariances(name, K, D, rng)
    given[1] = 0.0
    with pytest.raises(IllDefinedCovariance, match="component 1"):
        COVARIANCE_TYPES[name].precision_cholesky(given)


@pytest.mark.parametrize("name", ["full", "tied", "diag"])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_an_ill_defined_covariance_names_its_feature(name, bad, rng):
    given = covariances(name, K, D, rng)
    if name == "diag":
        given[1, 2] = bad
    else:
        matrix = given if name == "tied" else given[1]
        matrix[2, :] = matrix[:, 2] = bad
    with pytest.raises(IllDefinedCovariance, match="feature 2"):
        COVARIANCE_TYPES[name].precision_cholesky(given)


def test_an_unknown_type_lists_the_known():
    with pytest.raises(InvalidParameter, match=r"'round'.*full, tied, diag, spherical"):
        covariance_type("round")
