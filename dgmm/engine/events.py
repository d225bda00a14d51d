"""What happens in a fit or a selection, and what is known after it; no printing, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dgmm.engine.likelihood import Criteria
from dgmm.engine.sampled import Run
from dgmm.engine.scan import Scan


@dataclass(frozen=True, eq=False)
class Progress:
    """Everything a fit has found so far; all of it can be put on disk.

    Attributes
    ----------
    scan : Scan or None
    runs : dict
        Of the search on the sample, by name.
    finalists : dict
        Of the full passes, by name; empty before the first one.
    judged : Judged or None
        Of a selection.
    """

    scan: Scan | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    finalists: Mapping[str, Run] = field(default_factory=dict)
    judged: Judged | None = None


@dataclass(frozen=True, eq=False)
class Scanned:
    """The scan is done."""

    scan: Scan


@dataclass(frozen=True, eq=False)
class Searched:
    """A run on the sample has come to its end, or as far as it is to go for now.

    Attributes
    ----------
    name : str
        ``start-0003-1``: the second stretch of start 3; ``move-0003-0002``: where its third round of moves led.
    run : Run
    """

    name: str
    run: Run


@dataclass(frozen=True, eq=False)
class Iterated:
    """One pass over all rows, an iteration of each finalist that was not finished."""

    finalists: Mapping[str, Run]

    @property
    def n_iter(self) -> int:
        """Passes so far, but for the scan."""
        return max(run.state.n_iter for run in self.finalists.values())

    @property
    def best(self) -> Run:
        """The one that leads."""
        return best_of(self.finalists)


@dataclass(frozen=True, eq=False)
class Judged:
    """The criteria of the finalists of a selection are known.

    Attributes
    ----------
    criteria, held_out : mapping of str to Criteria
        By name; on the rows that were fitted, and on those held out.
    reached : mapping of str to sequence
        How far each of these runs was: its iterations, and the last log-likelihood if there is one.
    """

    criteria: Mapping[str, Criteria]
    held_out: Mapping[str, Criteria]
    reached: Mapping[str, Sequence[float]]

    def applies_to(self, runs: Mapping[str, Run]) -> bool:
        """Whether these runs are those that were judged: they may have gone on since."""
        return all(name in runs and reached_by(runs[name]) == list(r) for name, r in self.reached.items())


Event = Scanned | Searched | Iterated | Judged


def reached_by(run: Run) -> list[float]:
    """How far a run is, for `Judged`."""
    return [run.state.n_iter, *run.state.history[-1:]]


def best_of(runs: Mapping[str, Run]) -> Run:
    """The highest log-likelihood among those that did not fail."""
    return max(runs.values(), key=lambda run: (not run.failed, run.state.log_likelihood))
