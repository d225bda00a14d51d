"""Sums in a fixed binary tree over blocks.

Floating-point addition does not associate, so the tree is part of the result: node (level, i) is the sum of
nodes (level - 1, 2 i) and (level - 1, 2 i + 1), or the former alone where the latter does not exist. It depends
on the number of blocks only. Any aligned run of 2^j blocks can be summed by one task, and the bits stay the same.
"""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar


class Summable(Protocol):
    """Has a `+`."""

    def __add__(self, other: Self, /) -> Self: ...


T = TypeVar("T", bound=Summable)


class BinaryCounter(Generic[T]):
    """Adds values in the order of the tree, holding one partial sum a level."""

    def __init__(self) -> None:
        self._partial: list[tuple[int, T]] = []

    def add(self, value: T, level: int = 0) -> None:
        """Take the value of the next block, or the sum of the next aligned run of 2^level blocks."""
        while self._partial and self._partial[-1][0] == level:
            value = self._partial.pop()[1] + value
            level += 1
        self._partial.append((level, value))

    def total(self) -> T:
        """The sum of all values so far; there has to be one."""
        _, total = self._partial[-1]
        for _, left in reversed(self._partial[:-1]):
            total = left + total
        return total
