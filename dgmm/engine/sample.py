"""A uniform random sample of rows that depends on the seed and the rows' global indices alone.

Priority sampling (Duffield, Lund & Thorup 2007, J. ACM 54): row i has priority weight_i / u_i with u_i a hash of
(seed, i) in (0, 1]; the m rows of highest priority are the sample, and each carries max(weight, threshold) where
the threshold is the next priority. Samples merge: same sample for any chunking, workers or order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]

# Rows whose hashes are held at a time.
_HASHED = 1 << 16


@dataclass(frozen=True, eq=False)
class Sample:
    """Up to `size` rows and, where rows are weighted, the next one for its priority.

    Attributes
    ----------
    size : int
    indices : ndarray (m,)
        Global row numbers, ascending.
    rows : ndarray (m, D)
    weights : ndarray (m,)
        The rows' own weights.
    priorities : ndarray (m,)
    """

    size: int
    indices: NDArray[np.int64]
    rows: Rows
    weights: NDArray[np.float64]
    priorities: NDArray[np.float64]

    @classmethod
    def of_rows(cls, indices: NDArray[np.int64], rows: Rows, weights: Rows | None, rule: SamplingRule) -> Sample:
        """The sample of rows (n, D) with the global numbers `indices` (n,)."""
        if weights is None:
            kept = rule.candidates(indices)
            w = np.ones(len(kept))
        else:
            kept = np.flatnonzero(weights > 0)
            w = weights[kept].astype(np.float64)
        sample = cls(rule.size, indices[kept], rows[kept], w, w / uniform_hash(rule.seed, indices[kept]))
        return sample._trimmed()

    def __add__(self, other: Sample) -> Sample:
        both = Sample(
            self.size,
            np.concatenate([self.indices, other.indices]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.priorities, other.priorities]),
        )
        return both._trimmed()

    def _trimmed(self, extra: int = 1) -> Sample:
        limit = self.size + extra
        # Ties in priority go to the lower index, so that the order of merging does not matter.
        best = np.lexsort((self.indices, -self.priorities))[:limit]
        return self._take(best[np.argsort(self.indices[best])])

    def _take(self, kept: NDArray[np.intp]) -> Sample:
        return Sample(self.size, self.indices[kept], self.rows[kept], self.weights[kept], self.priorities[kept])

    def drawn(self) -> tuple[Rows, NDArray[np.float64]]:
        """The rows of the sample in their order, and the weight that each carries."""
        if len(self.indices) <= self.size:
            return self.rows, self.weights
        threshold = self.priorities.min()
        sample = self._trimmed(extra=0)
        return sample.rows, np.maximum(sample.weights, threshold)


@dataclass(frozen=True)
class SamplingRule:
    """How rows are drawn.

    Attributes
    ----------
    size : int
        Rows wanted.
    seed : int
    cutoff : float
        Unweighted rows whose hash is above it are sure not to be among the sample.
    """

    size: int
    seed: int
    cutoff: float

    @classmethod
    def for_rows(cls, size: int, seed: int, n_rows: int) -> SamplingRule:
        """With room for 20 standard deviations in the number of rows below the cutoff."""
        return cls(size, seed, min(1.0, (size + 20 * size**0.5 + 100) / n_rows))

    def candidates(self, indices: NDArray[np.int64]) -> NDArray[np.intp]:
        """Places of the unweighted rows that may be among the sample, by their global numbers."""
        # In parts: of rows of few features the hashes of a block would be larger than the block.
        parts = range(0, max(len(indices), 1), _HASHED)
        hashes = ((first, uniform_hash(self.seed, indices[first : first + _HASHED])) for first in parts)
        return np.concatenate([first + np.flatnonzero(u <= self.cutoff) for first, u in hashes])


def uniform_hash(seed: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash (seed, index) to (0, 1]: the finaliser of SplitMix64 (Steele et al. 2014), applied twice."""
    x = indices.astype(np.uint64)
    with np.errstate(over="ignore"):
        x = _mix(x + _mix(np.array(seed % 2**64, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)))
    return ((x >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
