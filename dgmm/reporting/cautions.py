"""What deserves a look before a model is relied on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dgmm.data.source import Source
from dgmm.engine.look import Look
from dgmm.engine.model import Model
from dgmm.engine.sampled import cautions as of_components
from dgmm.mixture.merging import nearly_equal

# Rows for each parameter of its own that a component should have, by a rule of thumb.
_ROWS = 10
_NAMED = 12
_OUTSIDE = 0.05


def cautions(model: Model) -> Iterator[str]:
    """What the model says of itself."""
    parameters, origin = model.parameters, model.origin
    k, d = parameters.means.shape
    if not model.n_rows:
        yield "This model was not fitted by dgmm: nothing is known of its fit."
    elif not model.converged:
        yield (
            f"EM did not converge in {model.n_iter} iterations. Raise max_iter (with a checkpoint it goes on), "
            "raise tol, or look for degenerate data."
        )
    for caution in of_components(origin.collapsed, origin.outlying):
        yield f"{caution[0].upper()}{caution[1:]}."
    own = d + parameters.covariance.n_parameters(k, d) // k
    rows = parameters.weights * model.n_rows
    few = [
        c for c in np.flatnonzero(rows < _ROWS * own).tolist() if c not in (*origin.collapsed, *origin.outlying)
    ]
    if few and model.n_rows:
        yield (
            f"{_listed(few)} on fewer rows than {_ROWS} for each of the {own} parameters of its own: "
            "other data may show another one. Fewer components, or a simpler covariance type, would be surer."
        )
    for merge in nearly_equal(parameters, model.weight)[:_NAMED]:
        yield (
            f"Components {merge.first} and {merge.second} are nearly equal: one in their place would lose at most "
            f"{merge.loss:.2g} in mean log-likelihood, and have the lower BIC."
        )
    if origin.given:
        yield f"The start was given ({', '.join(origin.given)}); it is not in the model file."


def cautions_of_data(model: Model, source: Source, found: Look) -> Iterator[str]:
    """What a look at data adds."""
    recorded = model.origin.fingerprint
    if recorded and not source.local and source.identified and source.fingerprint() != recorded:
        yield (
            f"{source.name} is not what the model was fitted to, or has been written again since: the fingerprint "
            "differs."
        )
    outside = max(density.outside for density in found.densities)
    if outside > _OUTSIDE:
        yield f"{outside:.1%} of the rows lie outside of a picture, where the mixture expects none."
    if found.certainty is not None:
        never = np.flatnonzero(found.certainty.counts.sum(axis=1) == 0).tolist()
        if never:
            yield f"{_listed(never, 'is', 'are')} the most likely one of no row."


def _listed(components: Sequence[int], one: str = "rests", several: str = "rest") -> str:
    names = ", ".join(map(str, components[:_NAMED])) + (", ..." if len(components) > _NAMED else "")
    return f"Component {names} {one}" if len(components) == 1 else f"Components {names} {several}"
