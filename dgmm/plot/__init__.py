"""Pictures of mixtures, drawn with matplotlib (pip install 'dgmm[plot]').

Each function takes the Matplotlib axes to draw on, or makes a new figure in the user's own backend and style.
"""

from importlib.util import find_spec

from dgmm.errors import MissingExtra

if find_spec("matplotlib") is None:
    _msg = "pictures need the package matplotlib; pip install 'dgmm[plot]'"
    raise MissingExtra(_msg)

from dgmm.plot.candidates import criteria
from dgmm.plot.iterations import convergence
from dgmm.plot.maps import label_map, probability_map
from dgmm.plot.responsibilities import certainty
from dgmm.plot.views import component_pairs, components

__all__ = [
    "certainty", "component_pairs", "components", "convergence", "criteria", "label_map", "probability_map",
]  # fmt: skip
