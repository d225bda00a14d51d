"""Gaussian mixture models for data that does not fit in memory."""

from importlib.metadata import PackageNotFoundError, version

from dgmm.estimator import GaussianMixture, load

try:
    __version__ = version("dgmm")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"

__all__ = ["GaussianMixture", "__version__", "load"]
