"""exp and log for compiled loops: no branch and no call in them, so that the compiler makes vectors of them.

exp(x) = 2^n exp(r), |r| <= log(2) / 2, with log(2) in two parts, the first of few bits, so that r is exact (Cody
and Waite 1980, Software Manual for the Elementary Functions); exp(r) = 1 + r + r^2 p(r), p by Chebyshev's
expansion; n is added to the exponent's bits. log(2^n m) = n log(2) + 2 artanh(s), s = (m - 1) / (m + 1),
sqrt(1/2) <= m < sqrt(2), by its series.
Errors are within 2 ulps (tests/mixture/test_compiled.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_f = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG2E_32, _LN2_HIGH_32, _LN2_LOW_32 = _f(1.4426950408889634), _f(0.693359375), _f(-2.12194440e-4)
# Added, and taken away again, they round to a whole number, which the sum has in its last bits.
_ROUND, _ROUND_32 = 6755399441055744.0, _f(12582912.0)
_ROOT_HALF, _ROOT_HALF_32 = np.int64(0x3FE6A09E667F3BCD), np.int32(0x3F3504F3)
_P = (
    0.5000000000000001, 0.1666666666666678, 0.041666666666622616, 0.008333333333321525, 0.0013888888916994847,
    0.0001984126976412275, 2.4801522989579258e-05, 2.7557422300652874e-06, 2.7618831411190296e-07,
    2.5042485131323435e-08,
)  # fmt: skip
_P_32 = (
    _f(0.5000000013543255), _f(0.16666576643547135), _f(0.04166646416731707), _f(0.008363235384630787),
    _f(0.0013933733215923522),
)  # fmt: skip
_A = tuple(2.0 / n for n in range(3, 23, 2))
_A_32 = tuple(_f(2.0 / n) for n in range(3, 13, 2))


def exp(x: Any) -> Any:
    """Of a float64 in [-708, 709] or a float32 in [-87, 88]; in compiled functions alone."""
    raise NotImplementedError


def log(x: Any) -> Any:
    """Of a positive normal float64 or float32; in compiled functions alone."""
    raise NotImplementedError


def _exp(x: Any) -> Callable[[Any], Any]:
    def double(x: Any) -> Any:
        rounded = x * _LOG2E + _ROUND
        n = rounded - _ROUND
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        p = _P[9]
        p = p * r + _P[8]
        p = p * r + _P[7]
        p = p * r + _P[6]
        p = p * r + _P[5]
        p = p * r + _P[4]
        p = p * r + _P[3]
        p = p * r + _P[2]
        p = p * r + _P[1]
        p = p * r + _P[0]
        p = (r * r) * p + r + 1.0
        exponent = np.float64(rounded).view(np.int64) << 52
        return np.int64(np.float64(p).view(np.int64) + exponent).view(np.float64)

    def single(x: Any) -> Any:
        rounded = x * _LOG2E_32 + _ROUND_32
        n = rounded - _ROUND_32
        r = (x - n * _LN2_HIGH_32) - n * _LN2_LOW_32
        p = _P_32[4]
        p = p * r + _P_32[3]
        p = p * r + _P_32[2]
        p = p * r + _P_32[1]
        p = p * r + _P_32[0]
        p = (r * r) * p + r + np.float32(1.0)
        exponent = np.int32(np.float32(rounded).view(np.int32) << np.int32(23))
        return np.int32(np.float32(p).view(np.int32) + exponent).view(np.float32)

    return single if x == types.float32 else double


def _log(x: Any) -> Callable[[Any], Any]:
    def double(x: Any) -> Any:
        bits = np.float64(x).view(np.int64)
        n = (bits - _ROOT_HALF) >> 52
        m = np.int64(bits - (n << 52)).view(np.float64)
        s = (m - 1.0) / (m + 1.0)
        q = s * s
        p = _A[9]
        p = p * q + _A[8]
        p = p * q + _A[7]
        p = p * q + _A[6]
        p = p * q + _A[5]
        p = p * q + _A[4]
        p = p * q + _A[3]
        p = p * q + _A[2]
        p = p * q + _A[1]
        p = p * q + _A[0]
        k = np.float64(n)
        return k * _LN2_HIGH + (2.0 * s + (s * q * p + k * _LN2_LOW))

    def single(x: Any) -> Any:
        bits = np.float32(x).view(np.int32)
        n = np.int32(np.int32(bits - _ROOT_HALF_32) >> np.int32(23))
        m = np.int32(bits - np.int32(n << np.int32(23))).view(np.float32)
        s = (m - np.float32(1.0)) / (m + np.float32(1.0))
        q = s * s
        p = _A_32[4]
        p = p * q + _A_32[3]
        p = p * q + _A_32[2]
        p = p * q + _A_32[1]
        p = p * q + _A_32[0]
        k = np.float32(n)
        return k * _LN2_HIGH_32 + (np.float32(2.0) * s + (s * q * p + k * _LN2_LOW_32))

    return single if x == types.float32 else double


overload(exp, inline="always")(_exp)
overload(log, inline="always")(_log)
