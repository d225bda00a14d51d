"""Blosc frames that are not whole: the library reads beyond their end, and gives whatever is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec

# Of a frame (c-blosc, README_CHUNK_FORMAT): four bytes of flags, then the sizes of what was compressed, of a
# block and of the frame itself.
_HEADER = 16


def with_whole_frames(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, which raises ValueError for a frame that is shorter than its header says.

    A shard that was cut has lost its index, so those are left as they are.
    """
    found: Any = array.metadata
    if found.zarr_format == 2:
        if not isinstance(found.compressor, numcodecs.Blosc):
            return array
        metadata = dataclasses.replace(found, compressor=_WholeBlosc(**_options(found.compressor)))
    else:
        if not any(isinstance(codec, BloscCodec) for codec in found.codecs):
            return array
        metadata = dataclasses.replace(found, codecs=tuple(_checked(found.codecs)))
    opened: Any = array.async_array
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=opened.store_path, config=opened.config))


def _checked(codecs: Iterable[Any]) -> Iterator[Any]:
    for codec in codecs:
        yield codec
        if isinstance(codec, BloscCodec):
            yield _WholeFrame()


def _check(frame: Any) -> None:
    content = memoryview(frame).cast("B")
    sizes = np.frombuffer(content[4:_HEADER], "<i4")
    if len(content) < _HEADER or sizes[-1] > len(content) or sizes.min() < 0:
        msg = f"{len(content)} bytes are not a whole Blosc frame"
        raise ValueError(msg)


class _WholeBlosc(numcodecs.Blosc):  # type: ignore[misc]
    """Format 2's."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        _check(np.ascontiguousarray(buf))
        return super().decode(buf, out)


def _options(codec: numcodecs.Blosc) -> dict[str, Any]:
    return {name: value for name, value in codec.get_config().items() if name != "id"}


@dataclasses.dataclass(frozen=True)
class _WholeFrame(BytesBytesCodec):
    """Follows format 3's, and is undone before it."""

    is_fixed_size = True

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _check(chunk_bytes.as_numpy_array())
        return chunk_bytes

    async def _encode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return chunk_bytes

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        return input_byte_length
