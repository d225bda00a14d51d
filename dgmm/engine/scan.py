"""The first pass: validate, count, find the frame, and draw a sample."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgmm.engine.passes import BlockFunction, Passes, Rows
from dgmm.engine.sample import Sample, SamplingRule
from dgmm.errors import InvalidWeights, NonFiniteData
from dgmm.mixture.frame import Frame

_RADIUS_QUANTILE = 0.999


@dataclass(frozen=True, eq=False)
class Summary:
    """What is known of some rows; summaries add (Chan, Golub & LeVeque 1983 for the variances).

    Attributes
    ----------
    weight : float
        Sum of sample weights.
    mean, squares : ndarray (D,)
        Mean, and weighted sum of squared differences to it.
    sample : Sample
    digest : int
        Of the content, for sources without a fingerprint of their own; else 0.
    """

    weight: float
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    sample: Sample
    digest: int

    def __add__(self, other: Summary) -> Summary:
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        between = other.mean - self.mean
        return Summary(
            weight,
            self.mean + between * share,
            self.squares + other.squares + between**2 * (self.weight * share),
            self.sample + other.sample,
            (self.digest + other.digest) % 2**256,
        )


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

    def _summarise(self, first: int, rows: Rows, weights: Rows | None) -> Summary:
        _check_finite(first, rows)
        if weights is not None:
            _check_weights(first, weights)
        digest = 0
        if self._hash_content:
            parts = (rows,) if weights is None else (rows, weights)
            state = hashlib.sha256(str(first).encode())
            for part in parts:
                state.update(np.ascontiguousarray(part).data)
            digest = int.from_bytes(state.digest(), "big")
        w = None if weights is None else weights.astype(np.float64)
        weight = float(len(rows)) if w is None else float(w.sum())
        mean = rows.sum(axis=0, dtype=np.float64) if w is None else w @ rows.astype(np.float64)
        mean /= weight or 1.0
        squares = np.zeros_like(mean)
        for tile in range(0, len(rows), 4096):
            delta = rows[tile : tile + 4096] - mean
            delta *= delta
            squares += delta.sum(axis=0) if w is None else w[tile : tile + 4096] @ delta
        sample = Sample.of_block(first, rows, weights, self._rule)
        return Summary(weight, mean, squares, sample, digest)


def _check_finite(first: int, rows: Rows) -> None:
    # One number tells for nearly every block; overflow of the sum is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum()
    if np.isfinite(total):
        return
    bad = ~np.isfinite(rows)
    if bad.any():
        row, feature = (int(i) for i in np.argwhere(bad)[0])
        error = NonFiniteData(f"found {rows[row, feature]}")
        error.value, error.row, error.feature = float(rows[row, feature]), first + row, feature
        raise error


def _check_weights(first: int, weights: Rows) -> None:
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        msg = (
            f"the sample weight of row {first + row} is {weights[row]}; weights must be finite and not negative. "
            "Correct it, or give the row the weight 0 to leave it out."
        )
        raise InvalidWeights(msg)


@dataclass(frozen=True, eq=False)
class Scan:
    """What the scan found, as the rest of the fit needs it.

    Attributes
    ----------
    n_rows : int
    weight : float
        Sum of sample weights.
    frame : Frame
    mean, variance : ndarray (D,)
        Of the data, in data units.
    rows : ndarray (m, D)
        The sample, in data units.
    weights : ndarray (m,) or None
        What each row of the sample weighs; None where all rows weigh the same.
    complete : bool
        The sample is the whole data set.
    radius_squared : float
        A high quantile of |z|^2 in the frame.
    content : str
        Digest of the content where the source has no fingerprint of its own, else empty.
    """

    n_rows: int
    weight: float
    frame: Frame
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    rows: Rows
    weights: NDArray[np.float64] | None
    complete: bool
    radius_squared: float
    content: str


def scan(passes: Passes, *, sample_rows: int, seed: int, isotropic: bool) -> Scan:
    """Run the scan.

    Raises
    ------
    NonFiniteData
        Names the chunk, row and feature.
    InvalidWeights
        Names the row; or all weights are zero.
    """
    source = passes.source
    rule = SamplingRule.for_rows(sample_rows, seed, source.n_rows)
    try:
        summary: Summary = passes.run(ScanWork(rule, hash_content=source.delayed or _delayed(passes)))
    except NonFiniteData as error:
        if error.row is None:
            raise
        msg = (
            f"the data contain {error.value} ({source.locate(error.row, error.feature)}); every value must be "
            "finite. Remove or impute such rows, or give them the sample weight 0 and a finite value."
        )
        raise NonFiniteData(msg) from None
    if not summary.weight > 0:
        msg = "all sample weights are 0; at least one row must have a positive weight"
        raise InvalidWeights(msg)
    rows, weights = summary.sample.drawn()
    frame = Frame.from_sample(rows, isotropic=isotropic)
    distances = np.sum(frame.apply(rows) ** 2, axis=1)
    return Scan(
        n_rows=source.n_rows,
        weight=summary.weight,
        frame=frame,
        mean=summary.mean,
        variance=summary.squares / summary.weight,
        rows=rows,
        weights=None if passes.weights is None else weights,
        complete=sample_rows >= source.n_rows,
        radius_squared=float(np.quantile(distances, _RADIUS_QUANTILE)),
        content=f"{summary.digest:064x}" if summary.digest else "",
    )


def _delayed(passes: Passes) -> bool:
    return passes.weights is not None and passes.weights.delayed
