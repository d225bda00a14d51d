"""The first pass: validate, count, find the frame, and draw a sample."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block, Source
from dgmm.engine.outliers import Outliers, OutlierWork
from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.sample import Sample, SamplingRule
from dgmm.engine.validity import check_finite, check_weights, naming_chunks
from dgmm.errors import DataWarning, InvalidData, InvalidWeights
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.frame import Frame, spreads

# A spread of fewer steps of the dtype is a coarse one: rounding adds a thousandth to its variance.
_LEAST_STEPS = 10
_RADIUS_QUANTILE = 0.999
# Of rows that may be left out, so many at least are thought to stay; more missing ones take a second pass.
_EXPECTED_SHARE = 0.5
# Components may be narrower than the data, and precisions are inverse variances.
_LARGEST_VARIANCE = 1e280


@dataclass(frozen=True, eq=False)
class Summary:
    """What is known of some rows; summaries add (Chan, Golub & LeVeque 1983 for the variances).

    Attributes
    ----------
    n_rows : int
        Those that are not left out.
    weight : float
        Sum of sample weights.
    mean, squares : ndarray (D,)
        Mean, and weighted sum of squared differences to it.
    low, high : ndarray (D,)
        Smallest and largest value.
    sample : Sample
    digest : int
        Of the content, for sources without a fingerprint of their own; else 0.
    """

    n_rows: int
    weight: float
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sample: Sample
    digest: int

    def __add__(self, other: Summary) -> Summary:
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # `_check_variance` looks for it
            between = other.mean - self.mean
            mean = self.mean + between * share
            squares = self.squares + other.squares + between**2 * (self.weight * share)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        digest = (self.digest + other.digest) % 2**256
        n_rows = self.n_rows + other.n_rows
        return Summary(n_rows, weight, mean, squares, low, high, self.sample + other.sample, digest)


class ScanWork:
    """The scan as a pass.

    Parameters
    ----------
    rule : SamplingRule
    hash_content : bool
        Digest every block.
    """

    name = "scan"

    def __init__(self, rule: SamplingRule, *, hash_content: bool) -> None:
        self._rule = rule
        self._hash_content = hash_content

    def prepare(self) -> ScanWork:
        return self

    def begin(self) -> BlockFunction:
        return self._summarise

    def _summarise(self, block: Block, weights: Rows | None) -> Summary:
        rows = block.rows
        check_finite(block)
        if weights is not None:
            check_weights(block, weights)
        digest = self._digest(block, weights) if self._hash_content else 0
        sample = Sample.of_rows(block.row_numbers(), rows, weights, self._rule)
        present = rows if weights is None or weights.all() else rows[weights > 0]
        low = present.min(axis=0, initial=np.inf).astype(np.float64)
        high = present.max(axis=0, initial=-np.inf).astype(np.float64)
        return Summary(len(rows), *_moments(rows, weights), low, high, sample, digest)

    @staticmethod
    def _digest(block: Block, weights: Rows | None) -> int:
        state = hashlib.sha256(str(block.first).encode())
        for part in (block.kept, block.rows, weights):
            if part is not None:
                state.update(np.ascontiguousarray(part).data)
        return int.from_bytes(state.digest(), "big")


def _moments(rows: Rows, weights: Rows | None) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Weight, mean, and weighted sum of squared differences to it; `_check_variance` looks for overflow."""
    w = None if weights is None else weights.astype(np.float64)
    weight = float(len(rows)) if w is None else float(w.sum())
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.sum(axis=0, dtype=np.float64) if w is None else w @ rows.astype(np.float64)
        mean /= weight or 1.0
        squares = np.zeros_like(mean)
        for tile in range(0, len(rows), 4096):
            delta = rows[tile : tile + 4096] - mean
            delta *= delta
            squares += delta.sum(axis=0) if w is None else w[tile : tile + 4096] @ delta
    return weight, mean, squares


def _check_variance(
    variance: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], source: Source
) -> None:
    """Refuse features whose variances, or their inverses, a double cannot hold."""
    bad = ~(variance < _LARGEST_VARIANCE) | ((variance < 1 / _LARGEST_VARIANCE) & (low < high))
    if bad.any():
        feature = int(np.flatnonzero(bad)[0])
        msg = (
            f"{source.feature(feature)} of {source.name} has values from {low[feature]:.3g} to "
            f"{high[feature]:.3g}: squares of their differences leave the range of double precision. Multiply it "
            "by a constant that brings them near 1."
        )
        raise InvalidData(msg)


@dataclass(frozen=True, eq=False)
class Scan:
    """What the scan found, as the rest of the fit needs it.

    Attributes
    ----------
    n_rows : int
        Those that are not left out.
    weight : float
        Sum of sample weights.
    frame : Frame
    mean, variance, low, high : ndarray (D,)
        Of the data, in data units; the last two are the smallest and the largest value.
    rows : ndarray (m, D)
        The sample, in data units.
    weights : ndarray (m,) or None
        What each row of the sample weighs; None where all rows weigh the same.
    complete : bool
        The sample is the whole data set.
    n_passes : int
        One; one more each where outliers were looked for, and where most rows are missing.
    radius_squared : float
        A high quantile of |z|^2 in the frame.
    content : str
        Digest of the content where the source has no fingerprint of its own, else empty.
    n_missing : int
        Rows left out because a value is missing.
    """

    n_rows: int
    weight: float
    frame: Frame
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rows: Rows
    weights: NDArray[np.float64] | None
    complete: bool
    n_passes: int
    radius_squared: float
    content: str
    n_missing: int = 0

    def framed_for(self, covariance: CovarianceType, *, standardize: bool) -> Scan:
        """The same data in the frame that a covariance type wants: it maps the family onto itself."""
        if not covariance.isotropic:
            return self
        if standardize:
            frame = Frame.standard(self.frame.shift, self.variance)
        else:
            frame = Frame.from_sample(self.rows, isotropic=True)
        return replace(self, frame=frame, radius_squared=_radius_squared(frame, self.rows))


def _radius_squared(frame: Frame, rows: Rows) -> float:
    return float(np.quantile(np.sum(frame.apply(rows) ** 2, axis=1), _RADIUS_QUANTILE))


def scan(passes: Passes, *, sample_rows: int, seed: int) -> Scan:
    """Run the scan; its frame has a scale for each feature.

    Raises
    ------
    NonFiniteData
        Names the chunk, row and feature.
    InvalidData
        A feature is so large or so small that its variance is not a double; or no row is left.
    InvalidWeights
        Names the row; or all weights are zero.
    """
    source = passes.source
    summary, n_passes = _summary(passes, sample_rows, seed)
    if not summary.weight > 0:
        msg = "all sample weights are zero; at least one row must have a positive weight"
        raise InvalidWeights(msg)
    rows, drawn = summary.sample.drawn()
    weights = None if passes.weights is None else drawn
    variance = summary.squares / summary.weight
    _check_variance(variance, summary.low, summary.high, source)
    _check_resolution(rows, source)
    outliers = OutlierWork.wanted(rows, summary.low, summary.high)
    if outliers is not None:
        rows, weights = _with_outliers(rows, weights, summary.weight, passes.run(outliers), source)
        n_passes += 1
    frame = Frame.from_sample(rows, isotropic=False)
    return Scan(
        n_rows=summary.n_rows,
        n_missing=source.n_rows - summary.n_rows,
        weight=summary.weight,
        frame=frame,
        mean=summary.mean,
        variance=variance,
        low=summary.low,
        high=summary.high,
        rows=rows,
        weights=weights,
        complete=sample_rows >= summary.n_rows,
        n_passes=n_passes,
        radius_squared=_radius_squared(frame, rows),
        content=f"{summary.digest:064x}" if summary.digest else "",
    )


def _summary(passes: Passes, sample_rows: int, seed: int) -> tuple[Summary, int]:
    """The summary of all rows, with a full sample, and the passes that it took."""
    source, n_passes = passes.source, 1
    expected = source.n_rows if source.missing == "error" else int(_EXPECTED_SHARE * source.n_rows) + 1
    with naming_chunks(source):
        rule = SamplingRule.for_rows(sample_rows, seed, expected)
        summary: Summary = passes.run(ScanWork(rule, hash_content=not passes.identified))
        weighted = passes.weights is not None or passes.subset is not None
        if not weighted and len(summary.sample.indices) < min(sample_rows, summary.n_rows):
            # So many rows are missing that the rule passed over some of the sample: now their number is known.
            rule = SamplingRule.for_rows(sample_rows, seed, summary.n_rows)
            summary, n_passes = passes.run(ScanWork(rule, hash_content=not passes.identified)), 2
    if summary.n_rows == 0:
        msg = f"each of the {source.n_rows} rows of {source.name} has a missing value: nothing is left to fit"
        raise InvalidData(msg)
    return summary, n_passes


def _with_outliers(
    rows: Rows, weights: NDArray[np.float64] | None, weight: float, found: Outliers, source: Source
) -> tuple[Rows, NDArray[np.float64]]:
    """The sample with the farthest rows, which stand for themselves alone, and what each weighs."""
    first, distance = int(found.indices[0]), found.distances[0]
    msg = (
        f"{source.name} has {found.count} row(s) more than 10,000 times the spread of a feature from its median, "
        f"the farthest row {first} ({distance:.3g} times). Such rows take a component each, or spoil one: if they "
        "are errors or missing values, leave them out or give them weight 0; otherwise use a component more."
    )
    warnings.warn(msg, DataWarning, stacklevel=2)
    if weights is None:
        weights = np.full(len(rows), (weight - found.weights.sum()) / len(rows))
    return np.concatenate([rows, found.rows]), np.concatenate([weights, found.weights])


def _check_resolution(rows: Rows, source: Source) -> None:
    """Say which features have values that their dtype rounds to a good part of their spread."""
    middle, spread = spreads(rows)
    extent = rows.max(axis=0).astype(np.float64) - rows.min(axis=0)
    spread = np.where(spread > 0, spread, extent)
    step = np.spacing(np.abs(middle).astype(rows.dtype)).astype(np.float64)
    coarse = np.flatnonzero((extent > 0) & (spread < _LEAST_STEPS * step))
    if len(coarse):
        j = int(coarse[0])
        msg = (
            f"{source.feature(j)} of {source.name} lies near {middle[j]:.6g}, where {rows.dtype} has steps of "
            f"{step[j]:.3g}, and spreads over {spread[j]:.3g}: values are rounded to a good part of what is to be "
            f"found in them. Store float64, or subtract an offset before storing (features {coarse.tolist()})."
        )
        warnings.warn(msg, DataWarning, stacklevel=2)
