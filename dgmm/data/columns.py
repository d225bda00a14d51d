"""Which columns of a table are the features, by name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from dgmm.errors import InvalidParameter, UnsupportedDtype

SHOWN = 20


def named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names of so many features; x0, x1, ... where they have none."""
    return tuple(names) or tuple(f"x{number}" for number in range(count))


def chosen(variables: Sequence[str] | None, known: Iterable[str], table: str) -> tuple[str, ...]:
    """The names of the features: those that were chosen, or all that there are.

    Parameters
    ----------
    variables : sequence of str or None
    known : iterable of str
        Columns that there are.
    table : str
        How messages call the table.

    Raises
    ------
    InvalidParameter
        There is no such column, or more than one.
    """
    there = Counter(known)
    names = tuple(there if variables is None else variables)
    for name in names:
        if name not in there:
            msg = f"{table} has no column {name!r}{choices(name, there)}"
            raise InvalidParameter(msg)
        if there[name] > 1:
            msg = f"{table} has {there[name]} columns called {name!r}. Rename them."
            raise InvalidParameter(msg)
    return names


def not_numbers(columns: Sequence[tuple[str, object]], known: int, table: str) -> UnsupportedDtype:
    """Build the error for columns that hold no real numbers.

    Parameters
    ----------
    columns : sequence of (str, object)
        Their names and types.
    known : int
        Number of all columns.
    table : str
        How messages call the table.
    """
    found = listed([f"{name} ({kind})" for name, kind in columns])
    advice = "Choose the columns that are features with variables=[...] (--variables a,b), or convert these first."
    return UnsupportedDtype(
        f"{len(columns)} of {known} columns of {table} hold no real numbers: {found}. "
        + (advice if len(columns) < known else "Convert them to numbers first.")
    )


def choices(wanted: str, known: Iterable[str]) -> str:
    """How a message goes on after a name that is none: which one was meant, perhaps, and which there are."""
    names = list(known)
    near = difflib.get_close_matches(wanted, names, 1)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" There are: {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Names as a message lists them, the first of very many."""
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
