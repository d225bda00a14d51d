"""Where the lines of a text table begin: one streaming read, after which any row can be found.

A table here is a line a row. Line breaks within quotes would make a line number mean nothing, and are refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dgmm.data.files import StoredFile
from dgmm.data.text_file import open_text
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
        It is no text, cannot be decompressed, or has a blank line or a line break within quotes.
    """
    with open_text(file) as opened:
        layout = _layout(opened, file)
        offsets, rows = [layout.begin], [0]
        opened.seek(layout.begin)
        watch = _Watch(file, layout)
        # Line ends wait for what follows them: blank lines may follow the last row.
        position, waiting = layout.begin, b""
        while piece := opened.read(PIECE_BYTES):
            text = waiting + piece
            body = text.rstrip(b"\r\n")
            waiting = text[len(body) :]
            if body:
                watch.see(body)
            found = body.count(b"\n")
            if found:
                offsets.append(position + body.rindex(b"\n") + 1)
                rows.append(watch.line + found)
            watch.line += found
            position += len(body)
    watch.end()
    if position > layout.begin:  # the last row
        last = max(1, len(offsets) - 1)
        offsets[last:], rows[last:] = [position + waiting.find(b"\n") + 1], [watch.line + 1]
    return Index(layout, np.array(offsets, dtype=np.int64), np.array(rows, dtype=np.int64))


class _Watch:
    """Notices what would make lines and rows differ."""

    def __init__(self, file: StoredFile, layout: Layout) -> None:
        self.line = 0  # ends of lines before the text
        self._file, self._header = file, layout.header_lines
        self._before = b"\n"  # the end of the header
        self._quoted = False  # whether the last text ended within quotes

    def see(self, text: bytes) -> None:
        """Look at what follows; it does not end with a line end."""
        if b'"' in text or self._quoted:
            self._see_quotes(text)
        text, before = self._before + text, len(self._before)
        for blank in (b"\n\n", b"\n\r\n"):
            if (at := text.find(blank)) >= 0:
                line = self.line + text.count(b"\n", before, at + 1) + 1 + self._header
                msg = f"Line {line} of {self._file.path} is blank. Take it out: every line must be a row."
                raise InvalidData(msg)
        self._before = b""

    def end(self) -> None:
        """Look at how it ended."""
        if self._quoted:
            raise self._broken(self.line)

    def _see_quotes(self, text: bytes) -> None:
        characters = np.frombuffer(text, np.uint8)
        within = np.bitwise_xor.accumulate(characters == ord('"')) ^ self._quoted
        broken = within & (characters == ord("\n"))
        if broken.any():
            raise self._broken(self.line + text.count(b"\n", 0, int(broken.argmax())))
        self._quoted = bool(within[-1])

    def _broken(self, before: int) -> InvalidData:
        """The error of a line with so many ends of lines before it."""
        return InvalidData(
            f"Line {before + 1 + self._header} of {self._file.path} breaks within quotes, or has a quote that "
            "never ends. Every line must be a row: leave out columns with such texts, or write the table as "
            "Parquet."
        )


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
        begin = head.find(b"\n") + 1 or len(head)
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
