"""Whether an array's codecs notice a flipped bit."""

from __future__ import annotations

from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

# Codecs whose own format ends with a checksum over what was compressed, and those that are nothing else; the names
# are numcodecs's, which Zarr's format 2 uses, and format 3 with a prefix.
_COMPRESSORS = ("gzip", "zlib", "bz2", "lzma")
_CHECKSUMS = ("crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3")
_PREFIX = "numcodecs."


def checksum(array: zarr.Array[Any]) -> str | None:
    """The codec that notices a flipped bit in a chunk; None where all go on with a wrong value.

    Blosc, LZ4 and Zstandard find damage to their own structure at best, not to the values (Zstandard does where
    its ``checksum`` is on). In shards the codecs of the inner chunks count.
    """
    metadata: Any = array.metadata
    if array.metadata.zarr_format == 2:
        codecs = [*(metadata.filters or ()), *filter(None, [metadata.compressor])]
        return next(filter(None, map(_of_numcodecs, (codec.get_config() for codec in codecs))), None)
    codecs = list(metadata.codecs)
    while isinstance(codecs[0], ShardingCodec):
        # What follows it goes over the index too.
        codecs = [*codecs[1:], *codecs[0].codecs]
    return next(filter(None, map(_of_format_3, codecs)), None)


def _of_format_3(codec: Any) -> str | None:
    if isinstance(codec, Crc32cCodec):
        return "crc32c"
    if isinstance(codec, GzipCodec):
        return "gzip"
    if isinstance(codec, ZstdCodec):
        return "zstd" if codec.checksum else None
    described: dict[str, Any] = codec.to_dict()
    name = str(described.get("name", ""))
    return _of_numcodecs({"id": name.removeprefix(_PREFIX), **_configuration(described)})


def _configuration(described: dict[str, Any]) -> dict[str, Any]:
    return dict(described.get("configuration") or {})


def _of_numcodecs(config: dict[str, Any]) -> str | None:
    name = str(config["id"])
    if name == "zstd":
        return name if config.get("checksum") else None
    return name if name in (*_COMPRESSORS, *_CHECKSUMS) else None
