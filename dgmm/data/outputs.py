"""The formats that results are written in."""

from __future__ import annotations

import os
from pathlib import Path

from dgmm.data.parquet_output import ParquetOutput
from dgmm.data.row_output import RowOutput
from dgmm.data.zarr_output import ZarrOutput
from dgmm.errors import InvalidParameter

# Of single files: what is written would be a folder of that name.
_FILES = (".csv", ".tsv", ".txt", ".npy", ".npz", ".h5", ".hdf5", ".nc", ".pq", ".parq", ".zip", ".gz")


def output_kind(path: str | os.PathLike[str]) -> type[RowOutput]:
    """Parquet where the path ends in ``.parquet``, else Zarr.

    Raises
    ------
    InvalidParameter
        The path is named like a file of another format.
    """
    name = os.fspath(path).rstrip("/")
    if name.lower().endswith(_FILES):
        msg = (
            f"{name} is named like a {Path(name).suffix} file; results are written as a Zarr group or, where the "
            "name ends in .parquet, as a folder of Parquet files. Choose a name such as out.zarr or out.parquet."
        )
        raise InvalidParameter(msg)
    return ParquetOutput if name.endswith(".parquet") else ZarrOutput
