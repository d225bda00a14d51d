"""Ways in which a worker dies; it imports this by itself."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from zarr.abc.codec import BytesBytesCodec
from zarr.registry import register_codec

MEMORY_LIMIT = 1 << 30
FOLDER = "TEST_TRAP_FOLDER"
BAIT = struct.pack("<d", 1.0 + 1 / 3)
_HELD: list[bytearray] = []


def segfault() -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def take_too_much() -> None:
    """More memory than the nanny allows: it kills the worker."""
    block = bytearray(MEMORY_LIMIT + MEMORY_LIMIT // 4)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])  # pages count once they are written to
    _HELD.append(block)


@dataclass(frozen=True)
class Trap(BytesBytesCodec):
    """Ends the process that decodes a chunk with the bait, once for each file in the folder that is set."""

    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"name": "trap"}

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        return input_byte_length

    async def _encode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return chunk_bytes

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        if FOLDER in os.environ and BAIT in chunk_bytes.to_bytes():
            for set_trap in Path(os.environ[FOLDER]).iterdir():
                set_trap.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return chunk_bytes


register_codec("trap", Trap)
