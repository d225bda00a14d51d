"""Generated mixtures with known answers, hard in different ways; each from its seed alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dgmm.mixture.covariance import FULL
from dgmm.mixture.parameters import Parameters


def _covariances(k: int, d: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    """Random orientations, volume about 1; the largest variance is `condition` times the smallest."""
    found = []
    for _ in range(k):
        basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
        variances = condition ** (rng.permutation(np.linspace(-0.5, 0.5, d)) if d > 1 else np.zeros(1))
        matrix = (basis * variances) @ basis.T
        found.append((matrix + matrix.T) / 2)
    return np.array(found)


def _mixture(
    k: int, d: int, *, spread: float, condition: float, weights: np.ndarray | None = None
) -> Callable[[np.random.Generator], Parameters]:
    """Means with a standard deviation of `spread` in each feature."""

    def make(rng: np.random.Generator) -> Parameters:
        w = np.full(k, 1 / k) if weights is None else weights / weights.sum()
        means = spread * rng.standard_normal((k, d))
        return Parameters(FULL, w, means, _covariances(k, d, condition, rng))

    return make


MIXTURES = {
    "separated": _mixture(10, 6, spread=6.0, condition=4.0),
    "overlapping": _mixture(10, 6, spread=1.5, condition=10.0),
    "unbalanced": _mixture(10, 5, spread=4.0, condition=4.0, weights=np.geomspace(1, 1000, 10)),
    "anisotropic": _mixture(8, 8, spread=3.0, condition=1e4),
    "high D": _mixture(12, 32, spread=1.5, condition=10.0),
    "many": _mixture(64, 8, spread=4.0, condition=10.0),
}


def generate(name: str, n_rows: int, seed: int) -> tuple[np.ndarray, Parameters]:
    """Rows in random order, and the mixture they come from."""
    truth = MIXTURES[name](np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    rows, _ = truth.sample(n_rows, rng)
    rng.shuffle(rows)
    return rows, truth
