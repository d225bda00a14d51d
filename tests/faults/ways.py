"""Ways in which a worker dies; it imports this by itself."""

from __future__ import annotations

import ctypes

_HELD: list[bytearray] = []
MEMORY_LIMIT = 1 << 30


def segfault() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def take_too_much() -> None:
    """More memory than the nanny allows: it kills the worker."""
    block = bytearray(MEMORY_LIMIT + MEMORY_LIMIT // 4)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])  # pages count once they are written to
    _HELD.append(block)
