"""What pictures and reports want to know of data under a model, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dgmm.data.source import Block, Source
from dgmm.engine.certainty import Certainty, CertaintyWork
from dgmm.engine.density import Density, DensityWork, View
from dgmm.engine.model import Model
from dgmm.engine.passes import BlockFunction, Prepared, Rows, Work
from dgmm.engine.predict import check_features
from dgmm.engine.single import single_pass
from dgmm.engine.slices import Cells, CellsWork, Slice
from dgmm.errors import InvalidData
from dgmm.mixture.together import Together


@dataclass(frozen=True, eq=False)
class Look:
    """What was found.

    Attributes
    ----------
    densities : list of Density
        Of each view.
    certainty : Certainty or None
        Where it was asked for.
    cells : Cells or None
        Those of a map, where one was chosen.
    """

    densities: list[Density]
    certainty: Certainty | None
    cells: Cells | None


class _Works:
    """Several works over the same rows, `Together`."""

    name = "look"

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = works

    def prepare(self) -> _PreparedWorks:
        return _PreparedWorks([work.prepare() for work in self._works])


class _PreparedWorks:
    def __init__(self, prepared: Sequence[Prepared]) -> None:
        self._prepared = prepared

    def begin(self) -> BlockFunction:
        steps = [prepared.begin() for prepared in self._prepared]

        def step(block: Block, weights: Rows | None) -> Together[Any]:
            return Together(tuple(step(block, weights) for step in steps))

        return step


def look(
    source: Source,
    weights: Source | None,
    model: Model,
    views: Sequence[View],
    *,
    certainty: bool = False,
    chosen: Slice | None = None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Look:
    """Look at all rows once, on the active Dask client if there is one.

    Parameters
    ----------
    source, weights : Source
    model : Model
    views : sequence of tuple of Axis
        From `views_of`.
    certainty : bool
        Whether to compute responsibilities too.
    chosen : Slice, optional
        The map to draw of a grid.
    on_rows : callable
        Hears of rows done so far, and of all rows.

    Raises
    ------
    ShapeMismatch
        The rows have another number of features than the model.
    InvalidData
        No row is left.
    UnreachablePath, NonFiniteData, InvalidWeights, ClusterError
    """
    check_features(model, source)
    works: list[Work] = [DensityWork(views)]
    if certainty:
        works.append(CertaintyWork(model.components(), model.frame))
    if chosen is not None:
        works.append(CellsWork(model.components(), model.frame, chosen))
    counts, *others = single_pass(source, weights, _Works(works), on_rows).members
    sure = others.pop(0) if certainty else None
    if any(not places.sum() > 0 for places in (*counts.members, *([] if sure is None else [sure.counts]))):
        msg = f"no row of {source.name} is left to look at: all have a missing value, or no weight"
        raise InvalidData(msg)
    densities = [Density.of(view, places) for view, places in zip(views, counts.members, strict=True)]
    return Look(densities, sure, others[0] if others else None)
