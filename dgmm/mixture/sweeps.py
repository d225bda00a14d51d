"""The loops of the compiled kernel: sweeps over the rows of a tile, along contiguous memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from dgmm.mixture.covariance_type import Array
from dgmm.mixture.elementary import exp, log

FULL, DIAG, SPHERICAL, TIED = range(4)
# Where a division by zero raised an error, no loop that divides would be made of vectors.
OPTIONS = {"nogil": True, "error_model": "numpy"}


def part(*freedoms: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile as a part of the kernel; `freedoms` of the compiler besides fused multiply-add."""
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(fastmath={"contract", *freedoms}, **OPTIONS)
    return compiled


def _long_vectors(_: Any) -> Any:
    """Have the loops of the function that calls this made of the longest vectors of the processor.

    The compiler prefers 256 bits, as some processors slow down for more; but BLAS uses those anyway, and an
    exponential takes a quarter less (measured).
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        with contextlib.suppress(TypeError):  # of a llvmlite that has no set there
            # An attribute of LLVM with a value, which the set's own `add` does not know.
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


long_vectors: Callable[[], None] = intrinsic(_long_vectors)


@part()
def to_frame(rows: Array, shift: Array, inverse_scale: Array, z: Array, squares: Array, limit: float) -> bool:
    """Fill `z` (D, b) with rows (b, D) in the frame, `squares` (b,) with |z|^2; whether all are within the limit.

    A row that is not finite is not.
    """
    long_vectors()
    squares[:] = 0.0
    for feature in range(len(z)):
        of_feature, unit = shift[feature], inverse_scale[feature]
        for j in range(squares.size):
            z[feature, j] = (z.dtype.type(rows[j, feature]) - of_feature) * unit
        for j in range(squares.size):
            squares[j] += z[feature, j] * z[feature, j]
    outside = 0
    for j in range(squares.size):
        outside += not squares[j] <= limit
    return outside == 0


@part()
def fill_features(z: Array, kind: int, phi: Array) -> None:
    """Quadratic features and ones beside `z`, in the order of the covariance types' `fill_quadratic`."""
    long_vectors()
    d, b = z.shape
    if kind == FULL:
        at = 0
        for i in range(d):
            for other in range(i, d):
                for j in range(b):
                    phi[at, j] = z[i, j] * z[other, j]
                at += 1
    elif kind == DIAG:
        for i in range(d):
            for j in range(b):
                phi[i, j] = z[i, j] * z[i, j]
    elif kind == SPHERICAL:
        phi[0] = 0.0
        for i in range(d):
            for j in range(b):
                phi[0, j] += z[i, j] * z[i, j]
    phi[-1] = 1.0


@part("nnan", "nsz")
def softmax(joint: Array, density: Array, factor: Array, least_exponent: float) -> None:
    """Turn log w_k N_k (K, b) into responsibilities times `1 / factor`, and give the log-densities (b,)."""
    long_vectors()
    k, b = joint.shape
    for j in range(b):
        density[j] = joint[0, j]
    for component in range(1, k):
        for j in range(b):
            density[j] = max(density[j], joint[component, j])
    factor[:] = 0.0
    for component in range(k):
        for j in range(b):
            responsibility = exp(max(joint[component, j] - density[j], least_exponent))
            joint[component, j] = responsibility
            factor[j] += responsibility
    for j in range(b):
        density[j] += log(factor[j])
        factor[j] = 1.0 / factor[j]


@part()
def weigh(weights: Array, density: Array, factor: Array) -> tuple[float, float]:
    """Multiply `factor` by the weights of a tile, if there are any; its log-likelihood and weight."""
    if not weights.size:
        return _sum(density), float(density.size)
    for j in range(weights.size):
        factor[j] *= weights[j]
    return _weighted_sum(weights, density), _sum(weights)


@part()
def weigh_rows(z: Array, weights: Array, weighted: Array) -> None:
    """Rows (D, b) times their weights, if there are any."""
    for feature in range(len(z)):
        if weights.size:
            for j in range(weights.size):
                weighted[feature, j] = z[feature, j] * weights[j]
        else:
            weighted[feature] = z[feature]


@part()
def scale_rows(joint: Array, factor: Array) -> None:
    """Multiply each row (K, b) by `factor` (b,)."""
    long_vectors()
    for component in range(len(joint)):
        for j in range(factor.size):
            joint[component, j] *= factor[j]


@part()
def scaled_transpose(joint: Array, factor: Array, out: Array) -> None:
    """Fill `out` (b, K) with the columns of `joint` (K, b) times `factor` (b,)."""
    for j in range(factor.size):
        by = factor[j]
        for component in range(len(joint)):
            out[j, component] = joint[component, j] * by


@part("reassoc", "nsz")
def _sum(values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += values[j]
    return total


@part("reassoc", "nsz")
def _weighted_sum(weights: Array, values: Array) -> float:
    total = 0.0
    for j in range(values.size):
        total += weights[j] * values[j]
    return total


@part()
def add(addend: Array, total: Array) -> None:
    for i in range(len(total)):
        for j in range(total.shape[1]):
            total[i, j] += addend[i, j]
