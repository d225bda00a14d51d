"""What a model was fitted to and how it was chosen: for people. Nothing is computed from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dgmm.data.address import kind_of
from dgmm.data.source import Source
from dgmm.engine.archive import versions
from dgmm.engine.candidates import Entry
from dgmm.engine.sampled import Run
from dgmm.engine.scan import Scan
from dgmm.engine.settings import Start

_CREDENTIALS = re.compile(r"//[^/@]*@")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")
_QUERY = re.compile(r"[?#].*")


@dataclass(frozen=True)
class Choice:
    """How `select` chose a model.

    Attributes
    ----------
    criterion : {'bic', 'aic', 'icl', 'holdout'}
    holdout : float
        Fraction of rows left out of the fits.
    table : tuple of Entry
        A line a candidate; a model file leaves the seconds out, which differ from run to run.
    """

    criterion: str
    holdout: float
    table: tuple[Entry, ...]


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes
    ----------
    data : str
        Address of the rows; empty where they were an array in memory or a Dask graph.
    opened_with : mapping
        How the address was opened, as `Source.opened_with` has it.
    fingerprint : str
        Of the rows; empty where they were in memory.
    weights : str or None
        Address of the sample weights, empty where they were in memory; None where there were none.
    given : tuple of str
        Parts of the start that were given: weights, means, covariances.
    collapsed, outlying : tuple of int
        See `Run`.
    versions : mapping of str to str
        Of Python and of the libraries that shape a result.
    choice : Choice or None
        How `select` chose it.
    """

    data: str = ""
    opened_with: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    weights: str | None = None
    given: tuple[str, ...] = ()
    collapsed: tuple[int, ...] = ()
    outlying: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    choice: Choice | None = None

    @classmethod
    def of(
        cls, source: Source, weights: Source | None, scan: Scan, start: Start, run: Run, choice: Choice | None
    ) -> Origin:
        """The origin of the model that a run ended in."""
        return cls(
            data=_address(source),
            opened_with=dict(source.opened_with),
            fingerprint="" if source.local else source.fingerprint() if source.identified else scan.content,
            weights=None if weights is None else _address(weights),
            given=tuple(name for name, value in vars(start).items() if value is not None),
            collapsed=run.collapsed,
            outlying=run.outlying,
            versions=versions(),
            choice=choice,
        )

    def pack(self) -> dict[str, Any]:
        """As JSON can hold it."""
        packed = asdict(self)
        if self.choice is not None:
            lines = [{**asdict(entry), "seconds": None} for entry in self.choice.table]
            packed["choice"]["table"] = [{name: _finite(value) for name, value in line.items()} for line in lines]
        return packed

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Origin:
        """The inverse; what a file of an earlier version lacks is empty.

        Any exception where `pack` has not written it.
        """
        found = {part.name: packed[part.name] for part in fields(cls) if part.name in packed}
        for name in ("given", "collapsed", "outlying"):
            found[name] = tuple(found.get(name, ()))
        if found.get("choice") is not None:
            choice = found["choice"]
            found["choice"] = Choice(choice["criterion"], choice["holdout"], tuple(map(_entry, choice["table"])))
        origin = cls(**found)
        origin._check()
        return origin

    def _check(self) -> None:
        """`ValueError` for what no fit has."""
        right = {
            "data": isinstance(self.data, str),
            "opened_with": isinstance(self.opened_with, dict),
            "fingerprint": isinstance(self.fingerprint, str),
            "weights": self.weights is None or isinstance(self.weights, str),
            "given": all(isinstance(name, str) for name in self.given),
            "components": all(type(k) is int for k in (*self.collapsed, *self.outlying)),
            "versions": isinstance(self.versions, dict)
            and all(isinstance(version, str) for version in self.versions.values()),
            "choice": self.choice is None
            or (isinstance(self.choice.criterion, str) and type(self.choice.holdout) in (int, float)),
        }
        if wrong := [name for name, is_right in right.items() if not is_right]:
            msg = f"{', '.join(wrong)} of another kind"
            raise ValueError(msg)


def _address(source: Source) -> str:
    """Where the rows can be read again, without what only their owner may know."""
    if "://" not in source.address:
        return source.address
    kind = kind_of(source.address)
    # abfss://container@account names no user, and keys of a bucket may hold any sign.
    text = (_PASSWORD if kind == "az" else _CREDENTIALS).sub("//", source.address)
    return text if kind in ("s3", "gs", "az") else _QUERY.sub("", text)


def _entry(line: dict[str, Any]) -> Entry:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in line.items()}
    entry = Entry(**known)
    for part in fields(Entry):
        # Annotations are text; a float that is a whole number was written by somebody else.
        if type(value := getattr(entry, part.name)).__name__ != part.type:
            msg = f"{part.name} of a candidate is {value!r}"
            raise ValueError(msg)
    return entry


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
