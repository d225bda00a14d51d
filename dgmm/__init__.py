"""Gaussian mixture models for data that does not fit in memory."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgmm.clusters.start import cluster
    from dgmm.data.opening import open_source
    from dgmm.estimator import GaussianMixture, load
    from dgmm.selection import select

try:
    __version__ = version("dgmm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"

__all__ = ["GaussianMixture", "__version__", "cluster", "load", "open_source", "select"]


def __getattr__(name: str) -> Any:
    # scikit-learn takes seconds to import; the command line wants to hear signals before that.
    if name in ("GaussianMixture", "load"):
        from dgmm import estimator

        return getattr(estimator, name)
    if name == "cluster":
        from dgmm.clusters import start

        return start.cluster
    if name == "open_source":
        from dgmm.data import opening

        return opening.open_source
    if name == "select":
        from dgmm import selection

        return selection.select
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
