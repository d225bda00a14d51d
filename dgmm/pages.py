"""Pages, and parts of pages, from the templates beside this file. Whatever a template shows is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np


def render(template: str, **values: Any) -> str:
    """Fill a file of dgmm/templates in."""
    text: str = _environment().get_template(template).render(**values)
    return text


def source_of(file: str) -> str:
    """The text of a file of dgmm/templates."""
    return resources.files("dgmm").joinpath("templates", file).read_text(encoding="utf-8")


def polyline(values: Sequence[float], width: float, height: float, margin: float) -> str:
    """Points of a curve in an SVG of that size; empty where there are fewer than two."""
    if len(values) < 2:
        return ""
    y = np.asarray(values)
    extent = float(np.ptp(y)) or 1.0
    across = np.linspace(margin, width - margin, len(y))
    down = margin + (y.max() - y) / extent * (height - 2 * margin)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))


@cache
def _environment() -> Any:
    # Not every program that fits shows a page.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dgmm"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"share": share, "count": count}
    return environment


def plain(mean: float, deviation: float) -> str:
    """Mean ± standard deviation, both to the second digit of the latter."""
    if not 0 < deviation < math.inf or not math.isfinite(mean):
        return f"{mean:.4g} ± {deviation:.2g}"
    decimals = 1 - math.floor(math.log10(deviation))
    if -4 <= decimals <= 6 and abs(mean) < 1e12:
        places = max(decimals, 0)
        return f"{mean:z,.{places}f} ± {deviation:,.{places}f}"
    digits = min(max(math.floor(math.log10(abs(mean))) + decimals, 0), 15) if mean else 0
    return f"{mean:.{digits}e} ± {deviation:.1e}"


def share(part: float) -> str:
    """A fraction as a percentage, to its first digit where it is small."""
    percent = 100 * part
    if percent == 0 or percent >= 0.1:
        return f"{percent:.1f}%"
    return f"{percent:.1g}%" if percent >= 1e-4 else "< 0.0001%"


def count(number: float) -> str:
    """A number of rows, or their weight."""
    return f"{number:,.0f}" if float(number).is_integer() or number >= 1e4 else f"{number:,.4g}"
