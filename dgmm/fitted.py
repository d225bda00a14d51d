"""`FittedMixture`: what a mixture that was fitted, loaded or converted answers."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from dgmm.arguments import check_feature_names, seed_of
from dgmm.data.address import Address
from dgmm.data.opening import open_source, open_weights
from dgmm.data.source import Source
from dgmm.engine.anomalies import threshold_of
from dgmm.engine.likelihood import PreparedEStep, Score
from dgmm.engine.model import Model
from dgmm.engine.quantities import Labels, LogDensity, Quantity, Responsibilities, Top
from dgmm.engine.rowwise import per_row
from dgmm.engine.single import single_pass
from dgmm.engine.trace import history_table
from dgmm.errors import InvalidParameter, ShapeMismatch
from dgmm.interchange import to_sklearn
from dgmm.mixture.criteria import aic, bic
from dgmm.summary import summary


class FittedMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """The methods of a fitted mixture; everything they need is in one `Model`."""

    random_state: Any

    def predict(self, X: Any) -> Any:
        """The most likely component of each row, (n,); lazy for Zarr and Dask data."""
        return self._per_row(X, Labels())[0]

    def predict_proba(self, X: Any) -> Any:
        """Responsibilities, (n, K); lazy for Zarr and Dask data."""
        return self._per_row(X, Responsibilities())[0]

    def top_responsibilities(self, X: Any, m: int) -> tuple[Any, Any]:
        """The m largest responsibilities of each row: for mixtures of many components.

        Parameters
        ----------
        X : like that of `predict`
        m : int
            At least 1; all responsibilities where the mixture has fewer components.

        Returns
        -------
        components, responsibilities : array (n, m)
            The largest first, of equal ones that of the lower component. Lazy for Zarr and Dask data: computed
            together, as in ``dask.compute(*mixture.top_responsibilities(X, 3))``, they take one pass.

        Raises
        ------
        InvalidParameter
        """
        if not isinstance(m, Integral) or m < 1:
            msg = f"m is {m!r}; it must be an integer of at least 1"
            raise InvalidParameter(msg)
        components, responsibilities = self._per_row(X, Top(int(m)))
        return components, responsibilities

    def score_samples(self, X: Any) -> Any:
        """Log-density at each row, (n,); lazy for Zarr and Dask data."""
        return self._per_row(X, LogDensity())[0]

    def anomaly_threshold(self, X: Any, quantile: float) -> float:
        """The log-density that a share of the rows lies below, from one pass.

        Rows with ``mixture.score_samples(X) < threshold`` are anomalous: at most `quantile` of them all. The
        threshold is below the exact quantile by no more than 1/16384 of its size, and is the same for any blocks
        and any workers.

        Parameters
        ----------
        X : like that of `predict`
        quantile : float
            Between 0 and 1; 0.001, say.

        Raises
        ------
        InvalidParameter
        """
        if not isinstance(quantile, Real) or not 0 < quantile < 1:
            msg = f"quantile is {quantile!r}; it must be a number between 0 and 1"
            raise InvalidParameter(msg)
        source = self._source(X)
        counted = single_pass(source, None, self._model.density_work())
        return threshold_of(counted, source, float(quantile)).threshold

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """Mean log-density per row (per unit of weight), from one pass."""
        total = self._total_score(X, sample_weight)
        return total.log_likelihood / total.weight

    def bic(self, X: Any) -> float:
        """Bayesian information criterion; lower is better."""
        total = self._total_score(X)
        return bic(total.log_likelihood, self._n_parameters(), total.weight)

    def aic(self, X: Any) -> float:
        """Akaike information criterion; lower is better."""
        total = self._total_score(X)
        return aic(total.log_likelihood, self._n_parameters())

    def sample(self, n_samples: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw rows (n_samples, D) and their components (n_samples,), ordered by component."""
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            msg = f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample."
            raise InvalidParameter(msg)
        rng = np.random.default_rng(seed_of(self.random_state))
        rows, labels = self._model.parameters.sample(int(n_samples), rng)
        return rows * self._model.frame.scale + self._model.frame.shift, labels

    def save(self, path: Address) -> None:
        """Write the fitted model to one file, durably and atomically; `dgmm.load` reads it.

        Parameters
        ----------
        path : str or path
            A file, or the URL of an object store (``s3://bucket/model.dgmm``).

        Raises
        ------
        WriteFailed, StoreError
        """
        check_is_fitted(self)
        self._model.save(path)

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.mixture.GaussianMixture` that predicts the same."""
        check_is_fitted(self)
        return to_sklearn(self)

    def __sklearn_is_fitted__(self) -> bool:
        # Not by the fitted attributes: assigning one of them makes no model.
        return hasattr(self, "_model")

    # The two hooks of scikit-learn that every version of it has; before a fit they give its own diagram.
    def _repr_html_inner(self) -> str:
        return self._page() if self.__sklearn_is_fitted__() else str(super()._repr_html_inner())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle and self.__sklearn_is_fitted__():
            bundle["text/html"] = self._page()
        return bundle

    def _page(self) -> str:
        return summary(self._model, repr(self))

    def _n_parameters(self) -> int:
        """Free parameters of the mixture, under scikit-learn's name."""
        return self._model.parameters.n_parameters

    def _adopt(self, model: Model) -> None:
        """Become this model: derive the fitted attributes, in data units."""
        settings = {k: v for k, v in self.get_params().items() if isinstance(v, bool | int | float | str)}
        self._model = Model(**{**vars(model), "settings": {**settings, **model.settings}})
        parameters, frame = model.in_data_units(), model.frame
        covariance = parameters.covariance
        in_frame = covariance.precision_cholesky(model.parameters.seen_from(frame).covariances)
        cholesky = covariance.rescale_cholesky(in_frame, frame.scale)
        dtype = model.dtype if model.dtype.kind == "f" else np.dtype(np.float64)
        self.weights_ = _as(parameters.weights, dtype)
        self.means_ = _as(parameters.means, dtype)
        self.covariances_ = _as(parameters.covariances, dtype)
        self.precisions_cholesky_ = _as(cholesky, dtype)
        with np.errstate(over="ignore"):  # of features in units of 1e-150
            self.precisions_ = _as(covariance.precisions(cholesky), dtype)
        self.converged_ = model.converged
        self.n_iter_ = model.n_iter
        self.n_passes_ = model.n_passes
        self.n_missing_ = model.n_missing
        self.history_ = history_table(model.trace, model.n_rows)
        self.lower_bounds_ = list(model.history)
        self.lower_bound_ = model.history[-1] if model.history else -np.inf
        self.n_features_in_ = parameters.n_features
        if model.feature_names:
            self.feature_names_in_ = np.array(model.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit

    def _source(self, X: Any) -> Source:
        check_is_fitted(self)
        source = open_source(X)
        check_feature_names(self, X, source)
        if source.n_features != self.n_features_in_:
            msg = (
                f"X has {source.n_features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
            raise ShapeMismatch(msg)
        return source

    def _per_row(self, X: Any, quantity: Quantity) -> tuple[Any, ...]:
        source = self._source(X)
        return per_row(source, PreparedEStep(self._model.components(), self._model.frame), quantity)

    def _total_score(self, X: Any, sample_weight: Any = None) -> Score:
        source = self._source(X)
        weights = None
        if sample_weight is not None:
            weights = open_weights(sample_weight, source)
        total: Score = single_pass(source, weights, self._model.score_work())
        return total


def _as(array: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """In a dtype, unless it cannot hold some value: units of 1e20 have covariances of 1e40."""
    with np.errstate(over="ignore", under="ignore"):
        cast: NDArray[np.floating] = array.astype(dtype)
    lost = ~np.isfinite(cast) | ((cast == 0) & (array != 0))
    return array if lost.any() else cast
