"""Fitted mixtures to scikit-learn and from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dgmm.engine.model import Model
from dgmm.engine.trace import Step
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

_FITTED = (
    "weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_",
    "converged_", "n_iter_", "lower_bound_", "lower_bounds_",
)  # fmt: skip


def to_sklearn(fitted: Any) -> Any:
    """A fitted `sklearn.mixture.GaussianMixture` with the attributes of a fitted `dgmm.GaussianMixture`."""
    from sklearn.mixture import GaussianMixture

    shared = set(GaussianMixture().get_params())
    params = {k: v for k, v in fitted.get_params().items() if k in shared}
    if params["init_params"] == "mixed":
        params["init_params"] = "k-means++"
    seed = params["random_state"]
    if isinstance(seed, np.random.Generator) or (isinstance(seed, int | np.integer) and seed >= 2**32):
        params["random_state"] = None  # scikit-learn takes neither
    # Standardised spheres are no spheres in data units.
    params["covariance_type"] = fitted._model.in_data_units().covariance.name
    other = GaussianMixture(**params)
    for name in (*_FITTED, "n_features_in_", "feature_names_in_"):
        if hasattr(fitted, name):
            setattr(other, name, getattr(fitted, name))
    return other


def model_of_sklearn(fitted: Any) -> Model:
    """The model of a fitted `sklearn.mixture.GaussianMixture`."""
    covariance = covariance_type(fitted.covariance_type)
    means = np.asarray(fitted.means_, dtype=np.float64)
    parameters = Parameters(
        covariance,
        np.asarray(fitted.weights_, dtype=np.float64),
        means,
        np.asarray(fitted.covariances_, dtype=np.float64),
    )
    k, d = means.shape
    variances = np.diagonal(covariance.full(parameters.covariances, k, d), axis1=1, axis2=2)
    # In place of a sample: the components' own spread about their common mean.
    spread = variances.max(axis=0) + means.var(axis=0)
    if covariance.isotropic:
        spread = np.full_like(spread, spread.max())
    frame = Frame(means.mean(axis=0), np.exp2(np.round(np.log2(np.sqrt(spread)))))
    bounds = tuple(getattr(fitted, "lower_bounds_", (fitted.lower_bound_,)))
    return Model(
        parameters=parameters.to_frame(frame),
        frame=frame,
        dtype=np.dtype(fitted.means_.dtype),
        radius_squared=float(16 * d),
        converged=bool(fitted.converged_),
        trace=tuple(Step(float(bound), np.nan, np.nan, np.nan) for bound in bounds),
        n_passes=0,
        n_rows=0,
        weight=0.0,
        feature_names=tuple(getattr(fitted, "feature_names_in_", ())),
    )
