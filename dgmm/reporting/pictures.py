"""Figures as data URIs of SVG that follow the page into its dark form."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins, in the colours of text and paper, for what the reader's preference decides.
_INK, _PAPER = "#010203", "#fdfeff"
_DATED = ("Date", "Creator", "Format", "Type")
_STYLE = (
    "<style>svg{--ink:#1b1f24;--paper:#ffffff}"
    "@media(prefers-color-scheme:dark){svg{--ink:#e6e8eb;--paper:#15181c}}</style>"
)
_THEME: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dgmm",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10.5,
    "savefig.dpi": 144,
    "axes.facecolor": _PAPER,
    "legend.framealpha": 0.8,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color",
         "grid.color", "legend.edgecolor"),
        _INK,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An image: its address, what it shows for those who do not see it, and a line below it."""

    address: str
    shows: str
    caption: str


def picture(draw: Callable[[Axes], object], width: float = 4.8, height: float = 4.0) -> str:
    """What `draw` draws, as the address of an image; the same bytes for the same drawing.

    Parameters
    ----------
    draw : callable
        Gets the axes.
    width, height : float
        In inches.
    """
    # Neither the user's style nor the user's backend has a say, and neither is changed.
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_THEME)
        # The reader's fonts have more letters than the one that measures here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_DATED))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "var(--ink)").replace(_PAPER, "var(--paper)")
    head, rest = text.split(">", 1)
    svg = f"{head}>{_STYLE}{rest}"
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
