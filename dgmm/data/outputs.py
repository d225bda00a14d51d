"""The formats that results are written in."""

from __future__ import annotations

import os

from dgmm.data.parquet_output import ParquetOutput
from dgmm.data.row_output import RowOutput
from dgmm.data.zarr_output import ZarrOutput


def output_kind(path: str | os.PathLike[str]) -> type[RowOutput]:
    """Parquet where the path ends in ``.parquet``, else Zarr."""
    return ParquetOutput if os.fspath(path).rstrip("/").endswith(".parquet") else ZarrOutput
