"""Checks what a user passes to the estimator, before any work is spent."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from dgmm.engine.settings import Start
from dgmm.errors import IllDefinedCovariance, InvalidParameter
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.initialization import INIT_PARAMS

_RANGES: tuple[tuple[str, Any, float], ...] = (
    ("n_components", Integral, 1),
    ("tol", Real, 0),
    ("reg_covar", Real, 0),
    ("reg_relative", Real, 0),
    ("max_iter", Integral, 0),
    ("max_passes", Integral, 1),
    ("n_init", Integral, 1),
    ("n_finalists", Integral, 1),
    ("sample_size", Integral, 1),
    ("verbose_interval", Integral, 1),
)
_OPTIONAL = ("max_passes", "sample_size")


def user_start(
    covariance: CovarianceType, n_components: int, n_features: int, *, weights: Any, means: Any, precisions: Any
) -> Start:
    """Validate weights_init (K,), means_init (K, D) and precisions_init; None stays None.

    Raises
    ------
    InvalidParameter
        A wrong shape, a value that is not finite, weights that are no probabilities, or precisions that are
        not symmetric and positive definite.
    """
    k, d = n_components, n_features
    w = _array("weights_init", weights, (k,))
    if w is not None and not (np.all(w >= 0) and np.isclose(w.sum(), 1.0)):
        msg = f"weights_init must be between 0 and 1 and sum to 1, but is {w} with sum {w.sum()}"
        raise InvalidParameter(msg)
    m = _array("means_init", means, (k, d))
    p = _array("precisions_init", precisions, covariance.shape(k, d))
    return Start(w, m, None if p is None else _covariances(covariance, p))


def _array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        msg = f"{name} has shape {array.shape}; it must have the shape {shape}"
        raise InvalidParameter(msg)
    if not np.isfinite(array).all():
        msg = f"{name} contains NaN or infinity; every value must be finite"
        raise InvalidParameter(msg)
    return array


def _covariances(covariance: CovarianceType, precisions: NDArray[np.float64]) -> Any:
    msg = f"precisions_init: '{covariance.name} precision' should be "
    if covariance.name in ("full", "tied"):
        symmetric = np.allclose(precisions, np.swapaxes(precisions, -1, -2))
        if not (symmetric and np.all(np.linalg.eigvalsh(precisions) > 0)):
            raise InvalidParameter(msg + "symmetric, positive-definite")
    elif not np.all(precisions > 0):
        raise InvalidParameter(msg + "positive")
    found = covariance.covariances_from_precisions(precisions)
    try:
        covariance.precision_cholesky(found)
    except IllDefinedCovariance:
        raise InvalidParameter(msg + "invertible in double precision") from None
    return found


def check_parameters(given: Mapping[str, Any]) -> None:
    """Refuse values of the estimator's parameters that mean nothing.

    Raises
    ------
    InvalidParameter
        Naming the parameter, its value and what it may be.
    """
    covariance_type(given["covariance_type"])
    if given["init_params"] not in INIT_PARAMS:
        msg = f"init_params is {given['init_params']!r}; it must be one of {', '.join(INIT_PARAMS)}"
        raise InvalidParameter(msg)
    for name, kind, low in _RANGES:
        value = given[name]
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value < np.inf:
            what = "an integer" if kind is Integral else "a number"
            msg = f"{name} is {value!r}; it must be {what} of at least {low}"
            raise InvalidParameter(msg)
    if given["n_finalists"] > given["n_init"]:
        msg = f"n_finalists is {given['n_finalists']}; it must be at most n_init, which is {given['n_init']}"
        raise InvalidParameter(msg)
    size, k = given["sample_size"], given["n_components"]
    if size is not None and size < k:
        msg = f"sample_size is {size}; the starts of {k} components need at least {k} rows, better thousands"
        raise InvalidParameter(msg)


def seed_of(random_state: Any) -> int:
    """One number from whatever scikit-learn and NumPy take for a random state."""
    if isinstance(random_state, int | np.integer):
        if not 0 <= random_state < 2**63:
            msg = f"random_state is {random_state}; it must be between 0 and 2**63 - 1"
            raise InvalidParameter(msg)
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    return int(check_random_state(random_state).randint(2**31))
