"""A fitted mixture as a piece of HTML, for notebooks."""

from __future__ import annotations

import numpy as np

from dgmm.data.columns import named
from dgmm.engine.model import Model
from dgmm.pages import plain, polyline, render

_COMPONENTS, _FEATURES = 12, 8
_WIDTH, _HEIGHT, _MARGIN = 260, 70, 6


def summary(model: Model, title: str) -> str:
    """Components, heaviest first, how EM ended, and the log-likelihood as a small curve.

    Parameters
    ----------
    model : Model
    title : str
        What stands for the estimator: its `repr`.
    """
    parameters = model.in_data_units()
    k, d = parameters.means.shape
    features = range(min(d, _FEATURES))
    shown = parameters.marginal(features)
    names = named(model.feature_names, d)
    heaviest = np.argsort(-parameters.weights, kind="stable")[:_COMPONENTS]
    history = [value for value in model.history if np.isfinite(value)]
    hidden = {"lighter component": k - len(heaviest), "more feature": d - len(features)}
    return render(
        "summary.html",
        title=title,
        model=model,
        covariance=model.parameters.covariance.name,
        shape=(k, d),
        names=[names[i] for i in features],
        components=[
            (
                int(c),
                float(parameters.weights[c]),
                [plain(float(shown.means[c, i]), float(shown.deviations[c, i])) for i in features],
            )
            for c in heaviest
        ],
        hidden=[f"{n} {what}{'s' if n > 1 else ''}" for what, n in hidden.items() if n],
        size=(_WIDTH, _HEIGHT),
        history=history,
        curve=polyline(history, _WIDTH, _HEIGHT, _MARGIN),
    )
