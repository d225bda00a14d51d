"""What a user passes to the estimator, checked before any work is spent, and what it asks of the engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names, _get_feature_names

from dgmm.data.source import Source
from dgmm.engine.model import Model
from dgmm.engine.predict import check_same_names
from dgmm.engine.settings import Settings, Start
from dgmm.errors import IllDefinedCovariance, InvalidData, InvalidParameter, UnsupportedDtype
from dgmm.mixture.covariance import COVARIANCE_TYPES, covariance_type
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
_FLAGS = ("standardize", "accelerate", "warm_start")


def settings_of(given: Mapping[str, Any], source: Source, last: Model | None) -> tuple[Settings, bool]:
    """What the estimator's parameters ask of the engine, and whether a seed is among them.

    Parameters
    ----------
    given : mapping
        That `check_parameters` has passed.
    source : Source
    last : Model or None
        What a warm start goes on from.

    Raises
    ------
    InvalidParameter
        See `user_start` and `seed_of`.
    """
    start = user_start(
        covariance_type(given["covariance_type"]),
        given["n_components"],
        source.n_features,
        weights=given["weights_init"],
        means=given["means_init"],
        precisions=given["precisions_init"],
    )
    if last is not None:
        parameters = last.parameters.to_data(last.frame)
        start = Start(parameters.weights, parameters.means, parameters.covariances)
    settings = Settings(
        n_components=int(given["n_components"]),
        covariance_type=given["covariance_type"],
        tol=float(given["tol"]),
        reg_covar=float(given["reg_covar"]),
        reg_relative=float(given["reg_relative"]),
        standardize=bool(given["standardize"]),
        max_iter=int(given["max_iter"]),
        max_passes=None if given["max_passes"] is None else int(given["max_passes"]),
        accelerate=bool(given["accelerate"]),
        n_init=int(given["n_init"]),
        n_finalists=int(given["n_finalists"]),
        init_params=given["init_params"],
        sample_size=None if given["sample_size"] is None else int(given["sample_size"]),
        seed=0 if given["random_state"] is None else seed_of(given["random_state"]),
        start=start,
    )
    return settings, given["random_state"] is not None


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
    # As near to 1 as scikit-learn wants them.
    tolerance = 1e-6 if getattr(weights, "dtype", None) == np.float32 else 1e-8
    if w is not None and not (np.all(w >= 0) and abs(w.sum() - 1.0) <= tolerance):
        msg = f"weights_init must be between 0 and 1 and sum to 1, but is {w} with sum {w.sum()}"
        raise InvalidParameter(msg)
    m = _array("means_init", means, (k, d))
    p = _array("precisions_init", precisions, covariance.shape(k, d))
    return Start(w, m, None if p is None else _covariances(covariance, p))


def _array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            found = f"{array.dtype} numbers"
            raise TypeError(found)
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be read as real numbers of the shape {shape}: {error}"
        raise InvalidParameter(msg) from error
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
    _check_choice("covariance_type", given["covariance_type"], COVARIANCE_TYPES)
    _check_choice("init_params", given["init_params"], INIT_PARAMS)
    for name, kind, low in _RANGES:
        value = given[name]
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value < np.inf:
            what = "an integer" if kind is Integral else "a number"
            msg = f"{name} is {value!r}; it must be {what} of at least {low}"
            raise InvalidParameter(msg)
    for name in _FLAGS:
        if not isinstance(given[name], bool | np.bool_):
            msg = f"{name} is {given[name]!r}; it must be True or False"
            raise InvalidParameter(msg)
    if not isinstance(given["verbose"], Integral | np.bool_) or given["verbose"] < 0:
        msg = f"verbose is {given['verbose']!r}; it must be True, False or an integer of at least 0"
        raise InvalidParameter(msg)
    if given["n_finalists"] > given["n_init"]:
        msg = f"n_finalists is {given['n_finalists']}; it must be at most n_init, which is {given['n_init']}"
        raise InvalidParameter(msg)
    size, k = given["sample_size"], given["n_components"]
    if size is not None and size < k:
        msg = f"sample_size is {size}; the starts of {k} components need at least {k} rows, better thousands"
        raise InvalidParameter(msg)


def _check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        msg = f"{name} is {value!r}; it must be one of {', '.join(choices)}"
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
    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError:
        msg = f"random_state is {random_state!r}; it must be None, an integer, a RandomState or a Generator"
        raise InvalidParameter(msg) from None


def feature_names(X: Any) -> tuple[str, ...]:
    """The names of X's columns, if they are strings, as scikit-learn finds them.

    Raises
    ------
    UnsupportedDtype
        Some are strings and some are not.
    """
    try:
        names = _get_feature_names(X)
    except TypeError as error:
        raise UnsupportedDtype(*error.args) from None
    return () if names is None else tuple(str(name) for name in names)


def check_feature_names(fitted: Any, X: Any, source: Source) -> None:
    """Compare X's names with those that an estimator was fitted with; scikit-learn's words and warnings.

    Parameters
    ----------
    fitted : estimator
    X : object
    source : Source
        X, opened: what is no table of scikit-learn's may have names too.

    Raises
    ------
    InvalidData
        They differ, or are in another order.
    UnsupportedDtype
        See `feature_names`.
    """
    if source.feature_names and not feature_names(X):
        check_same_names(tuple(getattr(fitted, "feature_names_in_", ())), source)
        return
    try:
        _check_feature_names(fitted, X, reset=False)
    except TypeError as error:
        raise UnsupportedDtype(*error.args) from None
    except ValueError as error:
        raise InvalidData(*error.args) from None
