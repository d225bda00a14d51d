"""Whether sums in single precision were good enough for what came of them.

The guard of `dgmm.mixture.components` looks at the parameters of an E-step. Where a component collapses in one
iteration, as onto fewer rows than dimensions, its covariance is the difference of moments that agree in all digits
of single precision: it may have no inverse, where double precision leaves it held by the ridge.
"""

from __future__ import annotations

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.components import single_precision_will_do
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics


def too_coarse(
    parameters: Parameters, statistics: SufficientStatistics, ridge: Array, radius_squared: float
) -> bool:
    """Whether an E-step of float32 rows leads where the guard refuses single precision, which it took itself.

    Then double precision has to do it again.

    Parameters
    ----------
    parameters : Parameters
        Of the E-step.
    statistics : SufficientStatistics
        What it found.
    ridge : ndarray (D,)
        See `m_step`.
    radius_squared : float
        See `Components.prepare`.
    """
    following = m_step(statistics, parameters, ridge)
    try:
        if single_precision_will_do(following, radius_squared):
            return False
    except IllDefinedCovariance:
        pass
    return single_precision_will_do(parameters, radius_squared)
