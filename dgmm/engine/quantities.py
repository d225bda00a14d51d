"""What a model can say of a row: labels, responsibilities, log-densities, anomalies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
LOWEST = float(np.finfo(np.float64).min)


class PerRow(NamedTuple):
    """An array with one entry a row.

    Attributes
    ----------
    trailing : tuple of int
        Its shape but for the number of rows.
    dtype : dtype
    left_out : float
        What stands for a row that was left out.
    columns : tuple of str
        What a table calls its columns.
    dims : tuple of str
        What a grid calls the dimensions of `trailing`.
    """

    trailing: tuple[int, ...]
    dtype: np.dtype[Any]
    left_out: float
    columns: tuple[str, ...]
    dims: tuple[str, ...] = ()


class Quantity(ABC):
    """Something that a model says of each row, in one array or several."""

    @abstractmethod
    def arrays(self, n_components: int) -> dict[str, PerRow]:
        """What is made of each row, by name."""

    @abstractmethod
    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        """The arrays for a tile, from log-densities (b,) and responsibilities (K, b), which stay as they are."""


@dataclass(frozen=True)
class Labels(Quantity):
    """The most likely component."""

    def arrays(self, n_components: int) -> dict[str, PerRow]:
        return {"labels": PerRow((), np.dtype(np.int64), -1, ("label",))}

    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        return (responsibilities.argmax(axis=0),)


@dataclass(frozen=True)
class Responsibilities(Quantity):
    """The probability of each component."""

    def arrays(self, n_components: int) -> dict[str, PerRow]:
        columns = tuple(f"responsibility_{k}" for k in range(n_components))
        return {"responsibilities": PerRow((n_components,), np.dtype(np.float64), np.nan, columns, ("component",))}

    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        return (responsibilities.T,)


@dataclass(frozen=True)
class Top(Quantity):
    """The components of the largest responsibilities, of equal ones the lower number first, and those.

    Attributes
    ----------
    most : int
        So many; all where the mixture has fewer.
    """

    most: int

    def arrays(self, n_components: int) -> dict[str, PerRow]:
        m = min(self.most, n_components)
        ranks = range(1, m + 1)
        return {
            "top_components": PerRow(
                (m,), np.dtype(np.int64), -1, tuple(f"top_component_{i}" for i in ranks), ("rank",)
            ),
            "top_responsibilities": PerRow(
                (m,), np.dtype(np.float64), np.nan, tuple(f"top_responsibility_{i}" for i in ranks), ("rank",)
            ),
        }

    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        # The largest, then the largest of the others: along contiguous rows faster than to partition or to sort,
        # unless m is a good part of K (measured), and ties need no care.
        rest = responsibilities.T.copy()
        rows = np.arange(len(rest))
        components = np.empty((len(rest), min(self.most, rest.shape[1])), np.int64)
        values = np.empty(components.shape)
        for rank in range(components.shape[1]):
            components[:, rank] = largest = rest.argmax(axis=1)
            values[:, rank] = rest[rows, largest]
            rest[rows, largest] = -1.0
        return components, values


@dataclass(frozen=True)
class LogDensity(Quantity):
    """The log-density of the mixture, in data units."""

    def arrays(self, n_components: int) -> dict[str, PerRow]:
        return {"log_density": PerRow((), np.dtype(np.float64), np.nan, ("log_density",))}

    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        return (density,)


@dataclass(frozen=True)
class Anomalies(Quantity):
    """Whether the log-density is below that of all but a share of the rows.

    Attributes
    ----------
    quantile : float
        The share.
    threshold : float or None
        None until a pass has found it.
    """

    quantile: float
    threshold: float | None = None

    def arrays(self, n_components: int) -> dict[str, PerRow]:
        return {"anomalies": PerRow((), np.dtype(np.bool_), False, ("anomaly",))}

    def of_tile(self, density: Values, responsibilities: Values) -> tuple[Values, ...]:
        assert self.threshold is not None  # noqa: S101
        return (comparable(density) < self.threshold,)


def comparable(density: Values) -> Values:
    """Log-densities with the lowest number for NaN: of rows so far out that it is beyond double precision."""
    return np.where(np.isnan(density), LOWEST, density)
