"""Rows that count in a pass, by their global index: what holding out a part of the data needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.sample import uniform_hash

# Makes the choice independent of the sample, which hashes the same seed.
_SALT = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class Subset:
    """A random part of the rows, or the rest.

    Attributes
    ----------
    fraction : float
        Of rows that are held out.
    seed : int
    held_out : bool
        Those count, and not the rest.
    """

    fraction: float
    seed: int
    held_out: bool = False

    def weights(
        self, row_numbers: NDArray[np.int64], weights: NDArray[np.floating] | None
    ) -> NDArray[np.floating]:
        """Weights (n,) of rows given by their global numbers (n,): 0 for those that do not count."""
        chosen = uniform_hash(self.seed + _SALT, row_numbers) <= self.fraction
        counts = (chosen if self.held_out else ~chosen).astype(np.float64)
        return counts if weights is None else counts * weights
