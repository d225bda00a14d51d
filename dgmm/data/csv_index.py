"""Where the lines of a text table begin: one streaming read, after which any row can be found.

A table here is a line a row. Line breaks within quotes would make a line number mean nothing, and are refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dgmm.data.files import StoredFile
from dgmm.errors import InvalidData

# Text is read, found and parsed again in pieces of this size; a place is remembered for each.
PIECE_BYTES = 2**20
MISSING = ("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None")
"""How a missing value is spelled."""

_DELIMITERS = ",\t;| "
_LINES_TO_GUESS_FROM = 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Layout:
    """How the lines of a table are written.

    Attributes
    ----------
    delimiter : str
    names : tuple of str
        Of the columns; empty where there is no header.
    n_columns : int
    begin : int
        Offset of the first row.
    """

    delimiter: str
    names: tuple[str, ...]
    n_columns: int
    begin: int

    @property
    def header_lines(self) -> int:
        """Lines before the first row."""
        return int(bool(self.names))


@dataclass(frozen=True, eq=False)
class Index:
    """Places in a file where rows begin.

    Attributes
    ----------
    layout : Layout
    offsets : ndarray of int64, shape (n_pieces + 1,)
        Bytes; the last one is the end of the last row.
    rows : ndarray of int64, shape (n_pieces + 1,)
        The row that begins there.
    """

    layout: Layout
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]


def index_of(file: StoredFile) -> Index:
    """Read a file once and remember where rows begin, one for about each MiB.

    Raises
    ------
    InvalidData
        It is no text, has a blank line, or a line break within quotes.
    """
    with file.open() as opened:
        layout = _layout(opened, file)
        end = _end(opened, file.size, layout.begin)
        offsets, rows = [layout.begin], [0]
        opened.seek(layout.begin)
        watch = _Watch(file, layout)
        for offset, piece in _pieces(opened, layout.begin, end):
            watch.see(piece)
            found = piece.count(b"\n")
            if found:
                offsets.append(offset + piece.rindex(b"\n") + 1)
                rows.append(watch.line + found)
            watch.line += found
    if offsets[-1] < end:  # the last line does not end
        last = max(1, len(offsets) - 1)
        offsets[last:], rows[last:] = [end], [watch.line + 1]
    return Index(layout, np.array(offsets, dtype=np.int64), np.array(rows, dtype=np.int64))


def _pieces(opened: BinaryIO, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    while offset < end:
        piece = opened.read(min(PIECE_BYTES, end - offset))
        if not piece:
            return
        yield offset, piece
        offset += len(piece)


class _Watch:
    """Notices what would make lines and rows differ."""

    def __init__(self, file: StoredFile, layout: Layout) -> None:
        self.line = 0  # rows before the piece
        self._file, self._header = file, layout.header_lines
        self._before = b"\n"  # the end of the last piece
        self._quoted = False  # whether the last piece ended within quotes

    def see(self, piece: bytes) -> None:
        if b'"' in piece or self._quoted:
            self._see_quotes(piece)
        text = self._before + piece
        for blank in (b"\n\n", b"\n\r\n"):
            if (at := text.find(blank)) >= 0:
                line = self.line + text.count(b"\n", len(self._before), at + 1) + 1 + self._header
                msg = f"Line {line} of {self._file.path} is blank. Take it out: every line must be a row."
                raise InvalidData(msg)
        self._before = text[-2:]

    def _see_quotes(self, piece: bytes) -> None:
        characters = np.frombuffer(piece, np.uint8)
        within = np.bitwise_xor.accumulate(characters == ord('"')) ^ self._quoted
        broken = within & (characters == ord("\n"))
        if broken.any():
            at = int(broken.argmax())
            line = self.line + piece.count(b"\n", 0, at) + 1 + self._header
            msg = (
                f"Line {line} of {self._file.path} breaks within quotes, or has a quote that never ends. Every "
                "line must be a row: leave out columns with such texts, or write the table as Parquet."
            )
            raise InvalidData(msg)
        self._quoted = bool(within[-1])


def _layout(opened: BinaryIO, file: StoredFile) -> Layout:
    head = opened.read(PIECE_BYTES)
    while b"\n" not in head and (more := opened.read(PIECE_BYTES)):
        head += more
    if b"\0" in head:
        msg = f"{file.path} is no table of text (it has null bytes): write it as UTF-8."
        raise InvalidData(msg)
    begin = len(_BOM) if head.startswith(_BOM) else 0
    # What is no UTF-8 may be in columns that nobody wants.
    lines = head[begin:].decode("utf-8", "replace").split("\n")[: _LINES_TO_GUESS_FROM + 1]
    lines = [line.rstrip("\r") for line in (lines[:-1] if len(lines) > 1 else lines)]
    if not lines[0]:
        msg = f"{file.path} begins with a blank line, or is empty; expected a header or the first row."
        raise InvalidData(msg)
    delimiter = _delimiter([line for line in lines if line])
    first = fields(lines[0], delimiter)
    names = () if all(map(is_number, first)) else tuple(name.strip() for name in first)
    if names:
        names = (names[0].lstrip("# "), *names[1:])  # as numpy.savetxt writes a header
        begin = min(file.size, head.find(b"\n") + 1 or file.size)
    return Layout(delimiter, names, len(first), begin)


def _delimiter(lines: Sequence[str]) -> str:
    """What cuts all of the first lines into the same number of fields, more than one."""
    for delimiter in _DELIMITERS:
        counts = {len(fields(line, delimiter)) for line in lines}
        if len(counts) == 1 and counts != {1}:
            return delimiter
    return max(_DELIMITERS[:-1], key=lambda delimiter: len(fields(lines[0], delimiter)))


def fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line."""
    return next(csv.reader(io.StringIO(line), delimiter=delimiter), [])


def is_number(field: str) -> bool:
    """Whether a field is a number, or stands for a missing one."""
    if field.strip() in MISSING:
        return True
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def _end(opened: BinaryIO, size: int, begin: int) -> int:
    """Where the last row ends: blank lines may follow it."""
    end = size
    while end > begin:
        start = max(begin, end - PIECE_BYTES)
        opened.seek(start)
        text = opened.read(end - start)
        if last := len(text.rstrip(b"\r\n")):
            line_end = text.find(b"\n", last)
            return start + (line_end + 1 or last)
        end = start
    return begin
