"""The best start that the sample gives: restarts by successive halving, then split-and-merge moves.

Every decision follows from the runs' own results, in the order of their numbers, so that the outcome does not
depend on the number of workers. A run is known by its name: what an earlier driver finished is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from dgmm.engine.events import Searched
from dgmm.engine.moves import Divide, Unite, closest, divide, unite
from dgmm.engine.sampled import Climb, Run, Sampled, climb
from dgmm.mixture.criteria import converged
from dgmm.mixture.em import EMState
from dgmm.mixture.merging import looked_at_together
from dgmm.mixture.split_merge import choose, moved, worth_splitting

# Samples of fewer values than this are so quick that every start runs to its end.
_SMALL = 1 << 15
# Iterations of the first runs; each time the worse half is dropped the others get twice as many.
_SHORT = 20
# What EM may still gain where runs are only compared, and at the end, if the user's tol is not higher: EM that
# crawls towards a poor optimum is a waste that moves end.
_COARSE_TOL = 1e-4
_FINE_TOL = 1e-5
# Splits are found in tasks of so many components, two for each thread if that is enough: each task runs an E-step.
# What gains less in mean log-likelihood is none.
_COMPONENTS_PER_TASK = (4, 16)
_LEAST_SPLIT = 1e-6
# So many rounds of moves end the search in any case.
_ROUNDS_PER_COMPONENT = 2

_Request = TypeVar("_Request")
_Item = TypeVar("_Item")


class Tasks(Protocol):
    """What runs the tasks of a search: a `Scheduler`, or a loop."""

    n_threads: int

    def threads_each(self, n_tasks: int) -> int:
        """Threads that each of so many tasks, at the same time, may have."""

    def map(
        self, task: Callable[[Any, Any], Any], shared: Any, arguments: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield number and value of each ``task(shared, argument)`` as they are done."""


class Search:
    """The search on the sample.

    Parameters
    ----------
    sampled : Sampled
    tasks : Tasks
    runs : mapping of str to Run
        What earlier drivers finished, by name.
    """

    def __init__(self, sampled: Sampled, tasks: Tasks, runs: Mapping[str, Run]) -> None:
        self._sampled = sampled
        self._tasks = tasks
        self.runs = dict(runs)
        small = sampled.scan.rows.size < _SMALL
        self._short = sampled.settings.max_iter if small else _SHORT
        self._tol = max(sampled.settings.tol, _COARSE_TOL)

    def events(self) -> Iterator[Searched]:
        """Run, or go on; an event is yielded once it is part of `runs`. In the end `best` holds the finalists.

        Raises
        ------
        InvalidWeights
            Fewer rows of positive weight than components.
        """
        settings = self._sampled.settings
        self._sampled.check()
        finalists = yield from self._halve()
        if settings.n_components > 1 and not settings.start.given:
            for index, run in finalists.items():
                finalists[index] = yield from self._move(index, run)
        tol = settings.tol if self._sampled.scan.complete else max(settings.tol, _FINE_TOL)
        last = {
            f"last-{index:04d}": Climb(run, settings.max_iter, tol, accelerate=settings.accelerate)
            for index, run in finalists.items()
        }
        finalists = dict(zip(finalists, (yield from self._climb(last)).values(), strict=True))
        self.best = sorted(finalists.values(), key=lambda run: run.rank, reverse=True)

    def _halve(self) -> Generator[Searched, None, dict[int, Run]]:
        """Successive halving: run all for a while, drop the worse half, run the others twice as long.

        (Jamieson & Talwalkar 2016, AISTATS.) The finalists, as far as `max_iter` lets them come, by number.
        """
        settings = self._sampled.settings
        longest = settings.max_iter
        runs: dict[int, Run | int] = {index: index for index in range(settings.n_starts)}
        iterations, stretch = self._short, 0
        while True:
            found = yield from self._climb(
                {
                    f"start-{index:04d}-{stretch}": Climb(run, min(iterations, longest), self._tol)
                    for index, run in runs.items()
                }
            )
            reached = dict(zip(runs, found.values(), strict=True))
            ranked = sorted(reached, key=lambda i: reached[i].rank, reverse=True)
            kept = sorted(ranked[: max((len(ranked) + 1) // 2, settings.n_finalists)])
            finalists = {index: reached[index] for index in kept}
            over = all(ended(run, longest, self._tol) for run in finalists.values())
            if len(kept) <= settings.n_finalists and over:
                return finalists
            runs = dict(finalists)
            iterations, stretch = 2 * iterations, stretch + 1

    def _climb(self, requests: Mapping[str, Climb]) -> Generator[Searched, None, dict[str, Run]]:
        """The named runs; those that are not known, or not known far enough, are tasks."""
        found, missing = {}, {}
        for name, request in requests.items():
            known = self.runs.get(name, request.run)
            if isinstance(known, Run) and ended(known, request.iterations, request.tol):
                found[name] = known
            else:
                missing[name] = replace(request, run=known)
        names = list(missing)
        for number, run in self._climbs(list(missing.values())):
            found[names[number]] = self.runs[names[number]] = run
            yield Searched(names[number], run)
        return {name: found[name] for name in requests}

    def _climbs(self, requests: Sequence[Climb]) -> Iterator[tuple[int, Run]]:
        """Yield number and run of each as they are done."""
        threads = self._tasks.threads_each(len(requests))
        return self._tasks.map(climb, self._sampled, [replace(request, threads=threads) for request in requests])

    def _move(self, index: int, best: Run) -> Generator[Searched, None, Run]:
        """Split-and-merge moves, a round for each that is kept, until none of a few gains."""
        for number in range(_ROUNDS_PER_COMPONENT * self._sampled.settings.n_components):
            if best.failed or not converged(best.state.history, self._tol):
                break
            name = f"move-{index:04d}-{number:04d}"
            if name not in self.runs:
                self.runs[name] = self._round(best, (index, number))
                yield Searched(name, self.runs[name])
            if self.runs[name].rank <= best.rank:
                break
            best = self.runs[name]
        return best

    def _round(self, best: Run, place: tuple[int, int]) -> Run:
        """The first of the proposed moves that gains, or `best`."""
        parameters, settings = best.state.parameters, self._sampled.settings
        seed, pooled = (settings.seed, *place, 1), settings.covariance.pooled
        ((_, pairs),) = self._tasks.map(closest, self._sampled, [parameters])
        united = [Unite(parameters, group) for group in _grouped(pairs, looked_at_together(parameters))]
        merges = sorted(self._found(unite, united), key=lambda merge: merge.loss)
        wanted = worth_splitting(merges, settings.n_components, _LEAST_SPLIT, pooled=pooled)
        fewest, most = _COMPONENTS_PER_TASK
        together = min(max(-(-len(wanted) // (2 * self._tasks.n_threads)), fewest), most)
        divided = [Divide(parameters, group, seed) for group in _grouped(wanted, together)]
        splits = self._found(divide, divided)
        sets = choose(merges, splits, _FINE_TOL, pooled=pooled)
        least = (True, not best.collapsed, best.state.log_likelihood + _FINE_TOL)
        # A whole solution is better than a collapsed one, however likely that is.
        above = -np.inf if best.collapsed else least[2]
        width = self._tasks.n_threads
        for first in range(0, len(sets), width):
            starts = [Run(EMState(moved(parameters, moves))) for moves in sets[first : first + width]]
            tried = [Climb(start, settings.max_iter, self._tol, above) for start in starts]
            runs = dict(self._climbs(tried))
            for i in sorted(runs):
                if runs[i].rank > least:
                    return runs[i]
        return best

    def _found(
        self, task: Callable[[Sampled, _Request], list[_Item]], requests: Sequence[_Request]
    ) -> list[_Item]:
        """All that tasks find, in the order of the requests."""
        found = dict(self._tasks.map(task, self._sampled, requests))
        return [item for i in sorted(found) for item in found[i]]


def _grouped(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """So many at a time."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def ended(run: Run, iterations: int, tol: float) -> bool:
    """Whether a run came as far as it is to go."""
    state = run.state
    return bool(run.failed) or state.n_iter >= iterations or state.converged(tol)
