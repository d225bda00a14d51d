"""`select`: which number of components and which covariance type, in a handful of passes."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from dgmm.data.address import Address
from dgmm.data.source import Source
from dgmm.engine.candidates import Entry
from dgmm.engine.run import Observer, select_model
from dgmm.engine.selection import CRITERIA
from dgmm.engine.settings import Contest
from dgmm.errors import CollapsedComponentWarning, InvalidParameter
from dgmm.estimator import GaussianMixture
from dgmm.live import watcher
from dgmm.mixture.covariance import COVARIANCE_TYPES

_HOLDOUT = 0.1
# Parameters of a mixture that mean nothing to several candidates.
_OF_ONE = (
    *("n_components", "covariance_type", "n_finalists", "warm_start", "accelerate"),
    *("weights_init", "means_init", "precisions_init"),
)
_COLUMNS = (
    ("K", "n_components", "d"), ("type", "covariance_type", "s"), ("log-likelihood", "log_likelihood", ".6f"),
    ("parameters", "n_parameters", "d"), ("BIC", "bic", ".1f"), ("AIC", "aic", ".1f"), ("ICL", "icl", ".1f"),
    ("held-out", "held_out", ".6f"), ("passes", "n_passes", "d"), ("seconds", "seconds", ".1f"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` found.

    Attributes
    ----------
    best : GaussianMixture
        The fitted mixture of the lowest criterion; those with collapsed components win only if all have some.
    table : list of Entry
        A line for each candidate, in the order of the covariance types and of K.
    criterion : str
    n_passes : int
        Passes over all rows, all in all.
    """

    best: GaussianMixture
    table: list[Entry]
    criterion: str
    n_passes: int

    def to_frame(self) -> Any:
        """The table as a `pandas.DataFrame`, which needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def records(self) -> list[dict[str, Any]]:
        """The table as dictionaries."""
        return [asdict(entry) for entry in self.table]

    def __str__(self) -> str:
        lines = [[title for title, _, _ in _COLUMNS] + [""]]
        for entry in self.table:
            cells = [format(getattr(entry, name), form) for _, name, form in _COLUMNS]
            lines.append([*cells, self._remark(entry)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
        return "\n".join(
            "  ".join([*(cell.rjust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
            for line in lines
        )

    def _remark(self, entry: Entry) -> str:
        best = (entry.n_components, entry.covariance_type) == (self.best.n_components, self.best.covariance_type)
        remarks = {
            f"best {self.criterion}": best,
            "dropped: as foreseen from the sample": entry.dropped,
            "collapsed": entry.collapsed,
        }
        found = [text for text, applies in remarks.items() if applies]
        return ", ".join([*found, f"failed: {entry.failed}"] if entry.failed else found)


def select(
    X: Any,
    n_components: int | Iterable[int] = range(1, 21),
    covariance_types: str | Iterable[str] = ("full", "tied", "diag", "spherical"),
    *,
    criterion: str = "bic",
    holdout: float | None = None,
    sample_weight: Any = None,
    checkpoint: Address | None = None,
    observer: Observer | None = None,
    **settings: Any,
) -> Selection:
    """Fit mixtures of several sizes and covariance types in shared passes, and find the best.

    Every candidate is searched for on the sample. One that is hopeless there is dropped: its criterion, as the
    sample foresees it for all rows, is behind the best by more than four standard errors of the difference plus
    the correction for having been fitted to the sample. The others share passes until they have converged or
    cannot win any more (ten times what EM seems to have left would not do), and a last pass for the criteria.

    Parameters
    ----------
    X : array-like, zarr.Array, str, path or dask.array.Array, shape (n, D)
        See `GaussianMixture.fit`.
    n_components : int or iterable of int
    covariance_types : str or iterable of str
    criterion : {'bic', 'aic', 'icl', 'holdout'}
        The first three: lower is better, n is the sum of weights. 'holdout': mean log-likelihood of the rows left
        out, higher is better.
    holdout : float, optional
        Fraction of rows left out, chosen by seed and global index; 0.1 for that criterion, else 0.
    sample_weight : like X, shape (n,), optional
    checkpoint : path, optional
        A directory or URL that makes the selection resumable, as in `GaussianMixture.fit`.
    observer : Observer, optional
    **settings
        Parameters of `GaussianMixture`: tol, n_init, random_state, reg_covar, ...

    Returns
    -------
    Selection

    Raises
    ------
    InvalidParameter
        A value means nothing; nothing was computed.
    DgmmError
        See `GaussianMixture.fit`.

    Examples
    --------
    >>> import numpy as np
    >>> import dgmm
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(c, 1, (500, 2)) for c in (0, 8, 16)])
    >>> found = dgmm.select(X, range(1, 6), ["full", "spherical"], random_state=0)
    >>> found.best.n_components, found.best.covariance_type
    (3, 'spherical')
    """
    source, weights, contest, seed_is_given = prepare(
        X, n_components, covariance_types, criterion, holdout, sample_weight, settings
    )
    base = contest.settings
    observer = observer or watcher(settings.get("verbose", 0), settings.get("verbose_interval", 10), base.tol)
    model, outcome, selection = select_model(
        source, weights, contest, seed_is_given=seed_is_given, checkpoint=checkpoint, observer=observer
    )
    chosen = contest.of(selection.best())
    best = GaussianMixture(chosen.n_components, covariance_type=chosen.covariance_type, **settings)
    best._take(model, X, source)
    for caution in outcome.run.cautions():
        warnings.warn(f"of the best candidate {caution}", CollapsedComponentWarning, stacklevel=2)
    if not model.converged and best.max_iter > 0:
        msg = (
            f"EM of the best candidate did not converge in {model.n_iter} iterations. Raise max_iter (with a "
            "checkpoint the selection goes on from here), raise tol, or look for degenerate data."
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=2)
    return Selection(best, list(selection.table().values()), criterion, selection.n_passes)


def prepare(
    X: Any,
    n_components: Any,
    covariance_types: Any,
    criterion: str,
    holdout: float | None,
    sample_weight: Any,
    settings: dict[str, Any],
) -> tuple[Source, Source | None, Contest, bool]:
    """Check everything that takes no pass to check, and open the data; whether the seed is given comes last."""
    candidates = _candidates(n_components, covariance_types)
    held_out = _held_out(criterion, holdout)
    template = GaussianMixture(max(k for k, _ in candidates), accelerate=False, **_known(settings))
    source, weights = template._open(X, sample_weight)
    base, seed_is_given = template._settings(source)
    return source, weights, Contest(base, candidates, criterion, held_out), seed_is_given


def _candidates(n_components: Any, covariance_types: Any) -> tuple[tuple[int, str], ...]:
    sizes = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    several = isinstance(covariance_types, Iterable) and not isinstance(covariance_types, str)
    kinds = list(covariance_types) if several else [covariance_types]
    for k in sizes:
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            msg = f"n_components holds {k!r}; every number of components must be an integer of at least 1"
            raise InvalidParameter(msg)
    for kind in kinds:
        if not isinstance(kind, str) or kind not in COVARIANCE_TYPES:
            msg = f"covariance_types holds {kind!r}; each must be one of {', '.join(COVARIANCE_TYPES)}"
            raise InvalidParameter(msg)
    found = tuple(dict.fromkeys((int(k), kind) for kind in kinds for k in sizes))
    if not found:
        msg = "there is no candidate: n_components or covariance_types is empty; give at least one of each"
        raise InvalidParameter(msg)
    return found


def _held_out(criterion: str, holdout: float | None) -> float:
    if criterion not in CRITERIA:
        msg = f"criterion is {criterion!r}; it must be one of {', '.join(CRITERIA)}"
        raise InvalidParameter(msg)
    fraction = (_HOLDOUT if criterion == "holdout" else 0.0) if holdout is None else holdout
    if not isinstance(fraction, Real) or not 0 <= fraction < 1 or (criterion == "holdout" and fraction == 0):
        msg = f"holdout is {holdout!r}; it must be a fraction of rows below 1, and above 0 for criterion 'holdout'"
        raise InvalidParameter(msg)
    return float(fraction)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is no parameter of a fit, or has no meaning for several candidates."""
    shared = set(GaussianMixture().get_params()) - set(_OF_ONE)
    for name in settings:
        if name not in shared:
            near = difflib.get_close_matches(name, shared, 1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            msg = f"select() takes no {name!r}{meant} It takes {', '.join(sorted(shared))}"
            raise InvalidParameter(msg)
    return settings
