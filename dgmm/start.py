"""Checks what a user gives of the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.fit import Start
from dgmm.errors import IllDefinedCovariance, InvalidParameter
from dgmm.mixture.covariance_type import CovarianceType


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
    if (
        precisions.ndim > 1
        and precisions.shape[-1] == precisions.shape[-2]
        and covariance.name in ("full", "tied")
    ):
        if not np.allclose(precisions, np.swapaxes(precisions, -1, -2)):
            raise InvalidParameter(msg + "symmetric, positive-definite")
        if not np.all(np.linalg.eigvalsh(precisions) > 0):
            raise InvalidParameter(msg + "symmetric, positive-definite")
    elif not np.all(precisions > 0):
        raise InvalidParameter(msg + "positive")
    found = covariance.covariances_from_precisions(precisions)
    try:
        covariance.precision_cholesky(found)
    except IllDefinedCovariance:
        raise InvalidParameter(msg + "invertible in double precision") from None
    return found
