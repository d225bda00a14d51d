"""Published optima are reached, and are not taken for collapsed solutions."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cases import assert_close, order

from dgmm import GaussianMixture
from dgmm.mixture.collapse import multiplicity, too_few_rows
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

FOLDER = Path(__file__).with_name("ground_truth")
CASES = json.loads((FOLDER / "ground_truth.json").read_text())
# Starts that reach the optimum from random_state=0; 50 are tried among the slow tests.
N_INIT = dict.fromkeys(CASES, 2) | {"iris full 3": 5, "iris tied 3": 5, "faithful full 3": 10}
all_cases = pytest.mark.parametrize("case", CASES)


def rows_of(case):
    return np.loadtxt(FOLDER / CASES[case]["data"], delimiter=",", ndmin=2)


def covariances_of(known):
    """Recorded as K matrices or numbers, in the shape of the covariance type."""
    k, d = np.array(known["means"]).reshape(known["n_components"], -1).shape
    recorded = np.array(known["covariances"], dtype=float)
    if known["covariance_type"] == "tied":
        return recorded.reshape(-1, d, d)[0]
    return recorded.reshape(k, d, d)


@cache
def fit_of(case, n_init):
    known = CASES[case]
    model = GaussianMixture(
        known["n_components"],
        covariance_type=known["covariance_type"],
        n_init=n_init,
        reg_covar=0,
        random_state=0,
        tol=1e-9,
        max_iter=5000,
    )
    return model.fit(rows_of(case))


@pytest.mark.parametrize("n_init", [None, pytest.param(50, marks=pytest.mark.slow)])
@all_cases
def test_the_known_optimum_is_reached_and_no_spurious_higher_one(case, n_init):
    rows, known, fit = rows_of(case), CASES[case], fit_of(case, n_init or N_INIT[case])
    assert fit.converged_
    assert fit.score(rows) * len(rows) == pytest.approx(known["log_likelihood"], abs=1e-4)
    assert fit.bic(rows) == pytest.approx(known["bic"], abs=2e-4)
    assert fit._model.parameters.n_parameters == known["n_parameters"]


@all_cases
def test_the_default_fit_is_not_a_spurious_higher_optimum(case):
    """Equal values of a feature, of which iris has many, have whatever density reg_covar makes of them."""
    rows, known = rows_of(case), CASES[case]
    k, kind = known["n_components"], known["covariance_type"]
    fit = GaussianMixture(k, covariance_type=kind, random_state=0).fit(rows)
    assert fit.score(rows) * len(rows) < known["log_likelihood"] + 0.02


@all_cases
def test_its_parameters_are_the_known_ones(case):
    known, fit = CASES[case], fit_of(case, N_INIT[case])
    means = np.array(known["means"]).reshape(fit.means_.shape)
    found = order(fit.means_, means)
    tolerance = 1e-3
    assert_close(fit.weights_[found], known["weights"], tolerance, "weights")
    assert_close(fit.means_[found], means, tolerance, "means")
    covariances = fit.covariances_ if known["covariance_type"] == "tied" else fit.covariances_[found]
    assert_close(covariances, covariances_of(known), tolerance, "covariances")


@all_cases
def test_the_known_optimum_has_its_likelihood_and_is_not_collapsed(case):
    rows, known = rows_of(case), CASES[case]
    kind = COVARIANCE_TYPES[known["covariance_type"]]
    means = np.array(known["means"]).reshape(known["n_components"], -1)
    parameters = Parameters(kind, np.array(known["weights"]), means, covariances_of(known))
    frame = Frame.from_sample(rows, isotropic=kind.isotropic)
    components = Components.prepare(parameters.to_frame(frame), np.dtype(float), 16.0)
    step = EStep(components, frame)
    total = sum(float(density.sum()) for _, density, _ in step.posterior(rows))
    assert total == pytest.approx(known["log_likelihood"], abs=1e-3)
    assert too_few_rows(components, step, rows, multiplicity(rows)) == []
