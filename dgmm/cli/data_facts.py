"""What ``dgmm info`` says of data."""

from __future__ import annotations

from typing import Any

from dask.utils import format_bytes

from dgmm.data.source import Source

_SHOWN = 8


def data_facts(source: Source) -> tuple[dict[str, Any], str]:
    """Shape, features, blocks, and what would notice damage: as JSON, and for people.

    Parameters
    ----------
    source : Source
        Opened, not read.
    """
    names = list(source.feature_names)
    facts = {
        "kind": "data",
        "path": source.address,
        "rows": source.n_rows,
        "features": source.n_features,
        "feature_names": names,
        "dtype": source.dtype.name,
        "bytes_of_a_pass": source.n_rows * source.n_features * source.dtype.itemsize,
        "blocks": source.n_blocks,
        "rows_of_a_chunk": source.chunk_rows,
        "missing": source.missing,
        "checksum": source.checksum,
        "fingerprint": source.fingerprint(),
    }
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    lines = [
        f"data: {source.n_rows:,} rows of {source.n_features} features ({source.dtype.name}), "
        f"{format_bytes(facts['bytes_of_a_pass'])} a pass, in {source.n_blocks:,} blocks",
        *([f"features: {shown}"] if names else []),
        f"rows with a missing value: {'left out' if source.missing == 'drop' else 'an error'}",
        f"checksum: {source.checksum or _NONE}",
    ]
    return facts, "\n".join(lines)


_NONE = (
    "none that dgmm knows of. A flipped bit would go unnoticed; `dgmm convert` writes rows with checksums "
    "(in Zarr, the codec crc32c)"
)
