"""Gaussian mixture models for data that does not fit in memory."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgmm.clusters.start import cluster
    from dgmm.data.opening import open_source
    from dgmm.estimator import GaussianMixture, load
    from dgmm.reporting import report
    from dgmm.selection import select

try:
    __version__ = version("dgmm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"

__all__ = ["GaussianMixture", "__version__", "cluster", "load", "open_source", "report", "select"]


# scikit-learn takes seconds to import; the command line wants to hear signals before that.
_MODULES = {
    "GaussianMixture": "dgmm.estimator",
    "cluster": "dgmm.clusters.start",
    "load": "dgmm.estimator",
    "open_source": "dgmm.data.opening",
    "report": "dgmm.reporting",
    "select": "dgmm.selection",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name in ("errors", "plot"):
        return import_module(f"dgmm.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
