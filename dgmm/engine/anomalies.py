"""The log-density that a given share of the rows lies below, from one pass.

The log-densities are counted in buckets whose width is 2^-14 of their values: DDSketch (Masson, Rim & Lee 2019,
PVLDB 12) with buckets cut by the bits of the numbers, which takes no logarithm. Counts add, so the result depends
neither on blocks nor on workers nor on order; the threshold is the edge of a bucket, so how many rows lie below
it is known exactly. Sketches with random compaction (KLL, REQ, as in Apache DataSketches) differ from run to run,
and were no faster and less accurate at a quantile of 0.001 (benchmarks/quantile.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block, Source
from dgmm.engine.likelihood import PreparedEStep
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.engine.quantities import Values, comparable
from dgmm.engine.validity import check_finite
from dgmm.errors import InvalidData
from dgmm.mixture.expectation import EStep

BUCKETS_PER_OCTAVE = 2**14
HISTOGRAM_BYTES = 16 * 16 * BUCKETS_PER_OCTAVE
"""Of log-densities from 16 octaves, such as those from -1 to -65536: more than enough."""

_SHIFT = np.finfo(np.float64).nmant - (BUCKETS_PER_OCTAVE.bit_length() - 1)
_MAGNITUDE = np.int64(2**63 - 1)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values lie in each bucket; histograms add.

    Attributes
    ----------
    buckets : ndarray (m,) of int64
        Numbers of the buckets that hold some, ascending as their values do.
    counts : ndarray (m,) of int64
    """

    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Histogram:
        """Of finite values (n,)."""
        # 0.0 for -0.0; then the bits of doubles, those of negative ones turned round, ascend as the doubles do.
        numbers = np.sort(_turned((values + 0.0).view(np.int64)) >> _SHIFT)
        return cls._merged(numbers, np.ones(len(numbers), np.int64))

    @classmethod
    def _merged(cls, buckets: NDArray[np.int64], counts: NDArray[np.int64]) -> Histogram:
        first = np.flatnonzero(np.diff(buckets, prepend=buckets[:1] - 1))
        return cls(buckets[first], np.add.reduceat(counts, first) if len(first) else counts)

    def __add__(self, other: Histogram) -> Histogram:
        buckets = np.concatenate([self.buckets, other.buckets])
        order = np.argsort(buckets, kind="stable")
        return self._merged(buckets[order], np.concatenate([self.counts, other.counts])[order])

    def threshold(self, quantile: float) -> Threshold:
        """The highest edge of a bucket with at most that share of all values below it; there has to be a value."""
        until = np.cumsum(self.counts)
        n = int(until[-1])
        at = int(np.searchsorted(until, quantile * n, side="right"))
        below = int(until[at - 1]) if at else 0
        edge = _turned(self.buckets[at : at + 1] << _SHIFT).view(np.float64)
        return Threshold(quantile, float(edge[0]), below, n)


def _turned(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits of doubles to integers in the same order, and back."""
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits)


@dataclass(frozen=True)
class Threshold:
    """Rows of a lower log-density are anomalous.

    Attributes
    ----------
    quantile : float
        The share of rows that was asked for.
    threshold : float
        Below the quantile of the log-densities by no more than 2^-14 of its size.
    rows_below : int
    rows : int
        In all, but for those left out.
    """

    quantile: float
    threshold: float
    rows_below: int
    rows: int

    def facts(self) -> dict[str, Any]:
        """For people and programs: with the share of rows below it, and by how much the quantile is more."""
        share = self.rows_below / self.rows
        return {**asdict(self), "share": share, "rank_error": self.quantile - share}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Threshold:
        """What these facts are of."""
        return cls(**{field.name: facts[field.name] for field in fields(cls)})


class DensityWork(PreparedEStep):
    """Counts log-densities under a fitted model, in float64."""

    name = "anomalies"

    def prepare(self) -> DensityWork:
        return self

    def begin(self) -> BlockFunction:
        step = EStep(self.components, self.frame)

        def count(block: Block, weights: Rows | None) -> Histogram:
            check_finite(block)
            densities: Values = np.empty(len(block.rows))
            for place, density, _ in step.posterior(block.rows):
                densities[place] = density
            return Histogram.of(comparable(densities))

        return count


def threshold_of(counted: Histogram, source: Source, quantile: float) -> Threshold:
    """The threshold, from what the pass counted of a source.

    Raises
    ------
    InvalidData
        No row is left.
    """
    if not len(counted.counts):
        msg = f"each of the {source.n_rows} rows of {source.name} has a missing value: none has a log-density"
        raise InvalidData(msg)
    return counted.threshold(quantile)
