"""What users pass to a plot, and what they get back: models in several forms, axes, names of features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from sklearn.utils.validation import check_is_fitted

from dgmm.data.columns import named
from dgmm.data.opening import open_source, open_weights
from dgmm.data.source import Source
from dgmm.engine.model import Model
from dgmm.errors import InvalidParameter
from dgmm.fitted import FittedMixture

_LONGEST_NAME = 40


def model_of(model: Any) -> Model:
    """The model of a fitted mixture, or in a file.

    Raises
    ------
    InvalidParameter
        It is neither.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, FittedMixture):
        check_is_fitted(model)
        return model._model
    if isinstance(model, str | os.PathLike):
        return Model.load(model)
    msg = f"found a {type(model).__name__}; expected a fitted GaussianMixture, or the path of a model file"
    raise InvalidParameter(msg)


def rows_of(data: Any, sample_weight: Any) -> tuple[Source, Source | None]:
    """Rows and their weights, opened."""
    source = open_source(data)
    return source, None if sample_weight is None else open_weights(sample_weight, source)


def axes(ax: Axes | None) -> Axes:
    """Axes to draw on: those given, or of a new figure of the user's backend."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def names_of(model: Model) -> tuple[str, ...]:
    """The features' names, or x0, x1, ..."""
    return named(model.feature_names, model.parameters.n_features)


def shown(name: str) -> str:
    """A name on one line, not too long; nothing in it is formatting."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def features_of(model: Model, wanted: Any) -> tuple[int, ...]:
    """Numbers of the feature, or of the two features, that a picture is to show.

    Parameters
    ----------
    model : Model
    wanted : str, int, or a pair of them

    Raises
    ------
    InvalidParameter
        There is no such feature, or there are more than two, or one twice.
    """
    parts = list(wanted) if isinstance(wanted, tuple | list) else [wanted]
    names = names_of(model)
    found = tuple(_feature(part, names) for part in parts)
    if not 1 <= len(found) <= 2 or len(set(found)) < len(found):
        msg = f"{wanted!r} is not a pair of features; expected two different ones, by name or number"
        raise InvalidParameter(msg)
    return found


def _feature(part: Any, names: Sequence[str]) -> int:
    if isinstance(part, str) and part in names:
        return names.index(part)
    if isinstance(part, int | np.integer) and -len(names) <= part < len(names):
        return int(part) % len(names)
    msg = f"there is no feature {part!r}; there are {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
    raise InvalidParameter(msg)
