"""What several mixtures got out of one pass, side by side."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar


class _Summable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


T = TypeVar("T", bound=_Summable)


@dataclass(frozen=True, eq=False)
class Together(Generic[T]):
    """Results of several mixtures over the same rows; they add member by member.

    Attributes
    ----------
    members : tuple
        In the order of the mixtures; each has a `+`.
    """

    members: tuple[T, ...]

    def __add__(self, other: Together[T]) -> Together[T]:
        if len(self.members) != len(other.members):
            msg = (
                f"results of {len(self.members)} and of {len(other.members)} mixtures cannot be added: "
                "they belong to different passes"
            )
            raise ValueError(msg)
        return Together(tuple(a + b for a, b in zip(self.members, other.members, strict=True)))

    def __sizeof__(self) -> int:
        """Bytes of all members."""
        return sum(map(sys.getsizeof, self.members))
