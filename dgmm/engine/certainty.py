"""How sure a model is of the component of each row: the responsibility of the most likely one, from one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.source import Block
from dgmm.engine.likelihood import PreparedEStep, Score, checked_weight
from dgmm.engine.passes import BlockFunction, Rows
from dgmm.mixture.expectation import EStep

Counts = NDArray[np.number[Any]]
CELLS = 100
"""Cells of equal width between the probabilities 0 and 1."""


@dataclass(frozen=True, eq=False)
class Certainty:
    """What a pass finds; certainties add.

    Attributes
    ----------
    counts : ndarray (K, CELLS)
        Rows whose most likely component is k, by the probability of that; with sample weights, their sum.
    score : Score
        Log-likelihood of the same rows.
    """

    counts: Counts
    score: Score

    def __add__(self, other: Certainty) -> Certainty:
        return Certainty(self.counts + other.counts, self.score + other.score)

    def share(self, probability: float) -> float:
        """Of the rows whose most likely component has at least this probability, a multiple of 1 / CELLS."""
        sure = self.counts[:, round(probability * CELLS) :]
        return float(sure.sum() / self.counts.sum())


class CertaintyWork(PreparedEStep):
    """Blocks to their `Certainty` under a fitted model, in float64."""

    name = "certainty"

    def prepare(self) -> CertaintyWork:
        return self

    def begin(self) -> BlockFunction:
        step, k = EStep(self.components, self.frame), self.components.parameters.n_components

        def certainty(block: Block, weights: Rows | None) -> Certainty:
            weight, total = checked_weight(block, weights), 0.0
            counts: Counts = np.zeros(k * CELLS, dtype=np.int64 if weights is None else np.float64)
            for place, density, responsibilities in step.posterior(block.rows):
                label = responsibilities.argmax(axis=0)
                sure = np.take_along_axis(responsibilities, label[None], axis=0)[0]
                cell = label * CELLS + np.minimum((sure * CELLS).astype(np.intp), CELLS - 1)
                w = None if weights is None else weights[place].astype(np.float64)
                counts += np.bincount(cell, w, minlength=k * CELLS)
                total += float(density.sum() if w is None else w @ density)
            return Certainty(counts.reshape(k, CELLS), Score(total, weight, len(block.rows)))

        return certainty
