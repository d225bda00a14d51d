"""The coordinates in which a fit computes: z = (x - shift) / scale.

Products x_i x_j about a far origin cancel; about the middle of the data, in units of its spread, they do not.
Scales are powers of two, so that scaling is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dgmm.mixture.covariance_type import Array

# Robust to one row in twenty being an outlier; 3.29 standard deviations apart for a normal.
_LOW, _HIGH, _NORMAL_WIDTH = 0.05, 0.95, 3.29


def spreads(rows: Array) -> tuple[Array, Array]:
    """Median of each feature of rows (m, D), and its spread: one standard deviation where it is normal."""
    low, middle, high = np.quantile(rows, [_LOW, 0.5, _HIGH], axis=0, method="inverted_cdf").astype(float)
    return middle, high / _NORMAL_WIDTH - low / _NORMAL_WIDTH


@dataclass(frozen=True, eq=False)
class Frame:
    """A shift and a scale for each feature.

    Attributes
    ----------
    shift, scale : ndarray (D,)
        In data units, float64. All scales are equal where the covariances are isotropic in data units.
    """

    shift: Array
    scale: Array

    @classmethod
    def identity(cls, n_features: int) -> Frame:
        """The data's own coordinates."""
        return cls(np.zeros(n_features), np.ones(n_features))

    @classmethod
    def from_sample(cls, rows: Array, *, isotropic: bool) -> Frame:
        """Median and 5-95 % range of a sample of rows (m, D).

        Quantiles and not the standard deviation: one value of 1e8 among 1e6 rows would squeeze the others
        into a width of 1e-5. The shift is a value of the data, hence exact in their own dtype.
        """
        shift, spread = spreads(rows)
        with np.errstate(over="ignore"):
            extent = rows.max(axis=0).astype(float) / 2 - rows.min(axis=0).astype(float) / 2
        spread = np.where(spread > 0, spread, extent)
        if isotropic:
            spread = np.full_like(spread, spread.max())
        exponent = np.round(np.log2(np.where(spread > 0, spread, 1.0)))
        return cls(shift, np.exp2(np.clip(exponent, -1000, 1000)))

    @classmethod
    def standard(cls, shift: Array, variance: Array) -> Frame:
        """In units of the standard deviation of each feature, where it has one."""
        return cls(shift, np.sqrt(np.where(variance > 0, variance, 1.0)))

    @property
    def log_volume(self) -> float:
        """log of the volume in data units of a unit cube of the frame."""
        return float(np.log(self.scale).sum())

    @property
    def isotropic(self) -> bool:
        """Whether spheres in it are spheres in data units."""
        return bool(np.all(self.scale == self.scale[0]))

    def apply(self, rows: Array) -> Array:
        """Rows (n, D) in the frame."""
        z: Array = (rows.astype(np.float64) - self.shift) / self.scale
        return z
