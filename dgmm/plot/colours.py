"""Colours of components: safe for the colour-blind while they are few, far apart from each other when many."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Okabe & Ito 2008, without black and yellow, which are lost on dark or white paper; first those that the
# colour-blind keep apart best.
_FIRST = ("#56b4e9", "#e69f00", "#009e73", "#0072b2", "#d55e00", "#cc79a7")
# Lightness (CIE L*) that stands out from both white and black.
_LIGHTNESS = (42.0, 75.0)
_LEAST_CHROMA = 25.0
_STEPS = 18
_DISTINCT = 128

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(axis=1)


def colours(n: int) -> list[str]:
    """A colour for each of n components, as ``#rrggbb``; after 128 they are repeated.

    The first six are those of Okabe and Ito. Each further one is, of all that stand out from white and from black
    paper, the farthest in CIE Lab from those before it (as Glasbey et al. 2007, Color Res. Appl. 32).
    """
    palette = _palette()
    return [palette[i % len(palette)] for i in range(n)]


@cache
def _palette() -> tuple[str, ...]:
    levels = np.linspace(0, 1, _STEPS)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    low, high = _LIGHTNESS
    allowed = (lab[:, 0] >= low) & (lab[:, 0] <= high) & (chroma >= _LEAST_CHROMA)
    rgb, lab = rgb[allowed], lab[allowed]
    first = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in _FIRST]) / 255
    nearest = np.min([np.linalg.norm(lab - other, axis=1) for other in _lab(first)], axis=0)
    found = list(_FIRST)
    while len(found) < _DISTINCT:
        best = int(nearest.argmax())
        found.append("#" + "".join(f"{round(255 * level):02x}" for level in rgb[best]))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(found)


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab (D65) of sRGB values between 0 and 1, (n, 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
