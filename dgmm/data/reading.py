"""How data are read, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dgmm.errors import InvalidParameter

MissingChunks = Literal["error", "fill"]


@dataclass(frozen=True)
class Reading:
    """How data are read, whatever they are.

    Attributes
    ----------
    variables : tuple of str or None
        Those whose values are features; None is all.
    feature_dims : tuple of str or None
    missing_chunks : {"error", "fill"}
    name : str or None
        How messages call the data.
    column : bool
        One dimension is one feature: sample weights.
    text : bool
        Tables of text will do: they are read once.
    """

    variables: tuple[str, ...] | None = None
    feature_dims: tuple[str, ...] | None = None
    missing_chunks: MissingChunks = "error"
    name: str | None = None
    column: bool = False
    text: bool = False

    def told(self) -> dict[str, Any]:
        """What is not the default, by the name of the parameter of `open_source`."""
        told = {"variables": self.variables, "feature_dims": self.feature_dims}
        named: dict[str, Any] = {name: list(value) for name, value in told.items() if value}
        return named if self.missing_chunks == "error" else {**named, "missing_chunks": self.missing_chunks}

    def refuse_choice(self, name: str) -> None:
        """Refuse names of variables or dimensions for data that have none."""
        if self.variables is not None or self.feature_dims:
            msg = (
                f"{name} has neither variables nor dimensions to choose from. Leave variables and feature_dims "
                "out; they are of tables and grids (of a Zarr grid, name the group that holds the variables)."
            )
            raise InvalidParameter(msg)

    def refuse_dims(self, name: str) -> None:
        """Refuse names of dimensions for a table."""
        if self.feature_dims:
            msg = f"{name} is a table: it has no dimension {', '.join(self.feature_dims)}. Leave feature_dims out."
            raise InvalidParameter(msg)
