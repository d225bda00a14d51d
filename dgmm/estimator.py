"""`GaussianMixture`: scikit-learn's names, attributes and behaviour over the engine."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Self

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from dgmm.arguments import check_parameters, feature_names, settings_of
from dgmm.data.address import Address
from dgmm.data.opening import open_source, open_weights
from dgmm.data.source import Source
from dgmm.engine.model import Model
from dgmm.engine.run import Observer, fit_model
from dgmm.engine.settings import Settings
from dgmm.errors import CollapsedComponentWarning, ShapeMismatch
from dgmm.fitted import FittedMixture
from dgmm.interchange import model_of_sklearn
from dgmm.live import watcher
from dgmm.mixture.criteria import LONGEST_RUN, converged


class GaussianMixture(FittedMixture):
    """Gaussian mixture for data that need not fit in memory.

    Parameters
    ----------
    n_components : int, default=1
        K, the number of Gaussians.
    covariance_type : {'full', 'tied', 'diag', 'spherical'}, default='full'
        Each its own matrix, one for all, each its own variances, each one variance.
    tol : float, default=1e-5
        What EM may still gain, in mean log-likelihood per row, when it stops: the Aitken estimate of it has to
        be below `tol` in three successive iterations.
    reg_covar : float, default=1e-6
        Added to the variance of every feature, in squared data units.
    reg_relative : float, default=0.0
        Times the data's variance of each feature, added likewise (spherical: times the mean variance).
    standardize : bool, default=False
        Fit in units of each feature's standard deviation: `reg_covar` is in these, and a spherical component is a
        sphere in these. Results are in the data's units all the same; there such spheres have a variance for
        each feature, so `covariances_` and its kin are in the shape of 'diag'.
    max_iter : int, default=1000
        Iterations on the sample for each run, and then on all rows.
    max_passes : int or None, default=None
        Passes over all rows at most, the scan among them.
    accelerate : bool, default=True
        Extrapolate where EM crawls (Anderson's method, or longer steps, guarded by the log-likelihood), on all
        rows and before it on the sample.
    n_init : int, default=1
        Starts tried on the sample, the worse half of them dropped again and again; the best is improved by
        split-and-merge moves, and goes on.
    n_finalists : int, default=1
        So many of the best starts go on to all rows, in the same passes.
    init_params : {'mixed', 'kmeans', 'k-means++', 'random', 'random_from_data'}, default='mixed'
        How a start is drawn from the sample; `mixed` takes 'k-means++', 'random_from_data' and 'kmeans' in turn.
    sample_size : int or None, default=None
        Rows of the sample; None is 50,000, fewer where rows are very long.
    weights_init, means_init, precisions_init : array-like, default=None
        (K,), (K, D), and the precisions in the shape of the covariances. All three together are the start
        itself: EM then begins with a pass over all rows. Where any is given no component is split or merged.
    random_state : int, RandomState, Generator or None, default=None
        None draws a seed, which a checkpoint records.
    warm_start : bool, default=False
        Begin with the last fit's result, if it has the same shape; `n_init` counts as 1 then.
    verbose : int, default=0
        1 logs iterations; 2 the time they take too. A notebook shows a display instead: the rows of the running
        pass, the log-likelihood's curve, and when the fit may end.
    verbose_interval : int, default=10
        Iterations between two lines of the log.

    Attributes
    ----------
    weights_ : ndarray (K,)
    means_ : ndarray (K, D)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        (K, D, D), (D, D), (K, D) or (K,), as in scikit-learn.
    converged_ : bool
    n_iter_ : int
        Iterations of the last phase: on all rows, or on the sample where that is all rows.
    lower_bound_ : float
        Mean log-likelihood per row that the last iteration found.
    lower_bounds_ : list of float
        The same of every iteration.
    n_passes_ : int
        Passes over all rows that the fit took, the scan among them.
    history_ : ndarray (n_iter_,), structured
        Of each iteration: `log_likelihood`, `gain`, `seconds`, `rows_per_second`, `smallest_weight`, and
        `smallest_eigenvalue` of the covariances, in units in which each feature's spread is about 1.
    n_missing_ : int
        Rows left out because a value was missing.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names.

    Notes
    -----
    Data of more rows than the sample (50,000, fewer where rows are very long) are read once to validate them
    and to draw the sample, the starts run on the sample, and the best is carried on over all rows.

    Examples
    --------
    >>> import numpy as np
    >>> from dgmm import GaussianMixture
    >>> X = np.array([[1.0], [1.1], [0.9], [5.0], [5.1], [4.9]])
    >>> GaussianMixture(2, random_state=0).fit(X).means_.ravel().round(6)
    array([1., 5.])
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-5,
        reg_covar: float = 1e-6,
        reg_relative: float = 0.0,
        standardize: bool = False,
        max_iter: int = 1000,
        max_passes: int | None = None,
        accelerate: bool = True,
        n_init: int = 1,
        n_finalists: int = 1,
        init_params: str = "mixed",
        sample_size: int | None = None,
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.reg_relative = reg_relative
        self.standardize = standardize
        self.max_iter = max_iter
        self.max_passes = max_passes
        self.accelerate = accelerate
        self.n_init = n_init
        self.n_finalists = n_finalists
        self.init_params = init_params
        self.sample_size = sample_size
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def fit(
        self,
        X: Any,
        y: object = None,
        sample_weight: Any = None,
        *,
        checkpoint: Address | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Fit the mixture, or go on with a fit that was interrupted.

        Parameters
        ----------
        X : array-like, zarr.Array, str, path, dask.array.Array or Source, shape (n, D)
            A str or path is an address; see `dgmm.open_source`, which has options too, such as rows with missing
            values to be left out. Data on disk and Dask data are read by the workers of the active
            `distributed.Client` if there is one; arrays in memory never leave this process.
        y : ignored
        sample_weight : like X, shape (n,), optional
            Chunked in any way.
        checkpoint : path, optional
            A directory, or the URL of an object store (``s3://bucket/run1``). Every finished start and every
            iteration is made durable in it; the same fit on the same directory goes on where it stopped and ends
            with the same bits as an unbroken one.
        observer : Observer, optional
            Hears of every event; by default a log if `verbose`.

        Returns
        -------
        self

        Raises
        ------
        DgmmError
            One of the tree in `dgmm.errors`; what can be checked is checked before a pass is spent.
        """
        source, weights = self._open(X, sample_weight)
        settings, seed_is_given = self._settings(source)
        observer = observer or watcher(int(self.verbose), self.verbose_interval, self.tol)
        model, outcome = fit_model(
            source,
            weights,
            settings,
            seed_is_given=seed_is_given,
            checkpoint=checkpoint,
            observer=observer,
        )
        # EM that is asked for one iteration at a time converges as it would in one go.
        state = outcome.run.state
        earlier = () if state.extrapolated else self._path(source)
        path = (*earlier, *state.path)[-LONGEST_RUN:]
        if earlier and converged(path, self.tol):
            model = replace(model, converged=True)
        self._take(model, X, source)
        self._log_likelihoods = path
        for caution in outcome.run.cautions():
            warnings.warn(caution, CollapsedComponentWarning, stacklevel=2)
        if not model.converged and self.max_iter > 0:
            msg = (
                f"EM did not converge in {model.n_iter} iterations. Raise max_iter (with a checkpoint the fit "
                "goes on from here), raise tol, or look for degenerate data."
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=2)
        return self

    def fit_predict(self, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        """Fit, and give the label of each row."""
        return self.fit(X, y, sample_weight).predict(X)

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Self:
        """A fitted mixture that predicts what `fitted`, a `sklearn.mixture.GaussianMixture`, predicts."""
        check_is_fitted(fitted)
        known = set(cls().get_params())
        new = cls(**{k: v for k, v in fitted.get_params().items() if k in known})
        new._adopt(model_of_sklearn(fitted))
        return new

    @classmethod
    def _of_model(cls, model: Model) -> Self:
        """The estimator of a model file."""
        known = set(cls().get_params())
        new = cls(**{k: v for k, v in model.settings.items() if k in known})
        new._adopt(model)
        return new

    def _take(self, model: Model, X: Any, source: Source) -> None:
        """Become the mixture that was fitted to X, which was opened as `source`."""
        self._adopt(replace(model, feature_names=source.feature_names or feature_names(X)))

    def _open(self, X: Any, sample_weight: Any = None) -> tuple[Source, Source | None]:
        """Check everything that takes no pass to check, and open the data."""
        check_parameters(self.get_params())
        feature_names(X)
        source = open_source(X)
        if source.n_rows < 2:
            msg = f"Found 1 sample in {source.name} while a minimum of 2 is required; give more rows"
            raise ShapeMismatch(msg)
        if source.n_rows < self.n_components:
            msg = (
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {source.n_rows}; use fewer components"
            )
            raise ShapeMismatch(msg)
        return source, None if sample_weight is None else open_weights(sample_weight, source)

    def _settings(self, source: Source) -> tuple[Settings, bool]:
        return settings_of(self.get_params(), source, self._last(source))

    def _last(self, source: Source) -> Model | None:
        """The model that a warm start goes on from."""
        if not self.warm_start or not hasattr(self, "_model"):
            return None
        parameters = self._model.parameters
        same_shape = parameters.means.shape == (self.n_components, source.n_features)
        return self._model if same_shape and parameters.covariance.name == self.covariance_type else None

    def _path(self, source: Source) -> tuple[float, ...]:
        """The last log-likelihoods on the way to where a warm start goes on."""
        return getattr(self, "_log_likelihoods", ()) if self._last(source) else ()


def load(path: Address) -> GaussianMixture:
    """Read a model file that `GaussianMixture.save` or ``dgmm fit`` wrote; nothing in it is executed.

    Parameters
    ----------
    path : str or path
        A file, or the URL of an object store or of a web server.

    Raises
    ------
    SourceNotFound
        There is no such file.
    ForeignFile, CorruptFile, NewerSchema
        It cannot be used.
    StoreError
        The object store refuses, or does not answer.
    """
    return GaussianMixture._of_model(Model.load(path))
