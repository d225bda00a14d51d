"""Which blocks a leaf task takes, and which sums a merge task adds: the tree of `summation`, in pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

# A thread gets at most so many leaves, however long the pass: the scheduler knows every task.
_MOST_A_THREAD = 32
# A merge task has 2^3 children: more would mean more sums held at once, fewer would mean more tasks.
_MERGE_LEVELS = 3


class Run(NamedTuple):
    """Blocks ``first:last``: an aligned run of 2^level, or what there is of one at the end."""

    first: int
    last: int

    @property
    def level(self) -> int:
        """Where its sum is in the tree."""
        return (self.last - self.first - 1).bit_length()


def equal_runs(n_blocks: int, size: int) -> list[Run]:
    """Runs of the same length, the largest power of two that is not above `size`."""
    run = 1 << (size.bit_length() - 1)
    return [Run(first, min(first + run, n_blocks)) for first in range(0, n_blocks, run)]


def ending_together(n_blocks: int, n_threads: int, worth: float, together: int) -> list[Run]:
    """Runs of the same length, and towards the end half as long, for threads that are ahead of others.

    Parameters
    ----------
    n_blocks, n_threads : int
    worth : float
        So many blocks are worth a task.
    together : int
        So many are read with less work together than apart: not cut while every thread has as many.
    """
    share = n_blocks / n_threads
    kept = math.floor(_level(min(together, share)))
    level = max(round(_level(min(max(worth, share / _MOST_A_THREAD), share / 2))), kept)
    runs, first = [], 0
    while first < n_blocks:
        ending = n_blocks - first <= n_threads << level
        length = 1 << (max(level - 1, kept) if ending else level)
        runs.append(Run(first, min(first + length, n_blocks)))
        first += length
    return runs


def _level(blocks: float) -> float:
    return math.log2(max(blocks, 1.0))


def merges(runs: Sequence[Run]) -> list[tuple[Run, list[Run]]]:
    """Each sum that a merge task adds, and what it adds; the last is the sum of all."""
    found, height = [], runs[0].level
    while len(runs) > 1:
        height += _MERGE_LEVELS
        groups = [list(group) for _, group in groupby(runs, key=lambda run: run.first >> height)]
        runs = [Run(group[0].first, group[-1].last) for group in groups]
        found += [(run, group) for run, group in zip(runs, groups, strict=True) if len(group) > 1]
    return found
