"""The four constraints on the covariances; every difference between them lives here.

Each is one value (`FULL`, `TIED`, `DIAG`, `SPHERICAL`) with the same methods, so that no other file asks
which one it has. K is the number of components, D of features, b of rows in a tile, and Q the length of the
*quadratic* features that a covariance needs:

=========  ==================  =========  ==========================================
type       covariances         Q          second moments
=========  ==================  =========  ==========================================
full       (K, D, D)           D(D+1)/2   (K, Q): x_i x_j for i <= j
tied       (D, D)              D(D+1)/2   (1, Q): pooled over the components
diag       (K, D)              D          (K, Q): x_i^2
spherical  (K,)                1          (K, Q): |x|^2
=========  ==================  =========  ==========================================

Precisions are kept as scikit-learn keeps them: the upper triangular C with C C^T = inverse of the covariance
(full, tied), its square root (diag, spherical).
"""

from __future__ import annotations

from dgmm.errors import InvalidParameter
from dgmm.mixture.covariance_type import CovarianceType
from dgmm.mixture.matrices import Full, Tied
from dgmm.mixture.variances import DIAG, Spherical

FULL = Full()
TIED = Tied()
SPHERICAL = Spherical()
COVARIANCE_TYPES: dict[str, CovarianceType] = {c.name: c for c in (FULL, TIED, DIAG, SPHERICAL)}


def covariance_type(name: str) -> CovarianceType:
    """Look a covariance type up by scikit-learn's name for it.

    Raises
    ------
    InvalidParameter
        There is no such type.
    """
    if name not in COVARIANCE_TYPES:
        msg = f"covariance_type is {name!r}; it must be one of {', '.join(COVARIANCE_TYPES)}"
        raise InvalidParameter(msg)
    return COVARIANCE_TYPES[name]
