"""The E-step: rows and components to sufficient statistics, log-densities and responsibilities.

Rows are cut into tiles that stay in cache, and everything is held feature-major (the feature matrix Phi is
F x b, log-densities K x b), so that products, maxima, sums and exponentials run along contiguous memory. A tile
takes one of two kernels:

- *two GEMMs*: L = Theta Phi, R = softmax over components, T = R Phi^T;
- *centred*: for each component the differences to its mean, a triangular product, and moments about the mean;
  slower, right for any parameters. See `dgmm.mixture.components` for who gets which.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dgmm.mixture.components import Components
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.frame import Frame
from dgmm.mixture.statistics import SufficientStatistics

# Log-densities of a tile should stay in the second-level cache, its feature matrix in the third (measured).
_TILE_COMPONENT_BYTES = 1 << 20
_TILE_FEATURE_BYTES = 1 << 24
_TILE_ROWS = (64, 16384)
# Responsibilities below 1e-26 (1e-304 in double precision) are set to that: they weigh nothing, and subnormal
# numbers would slow the products 3-9 times (measured).
_LEAST_EXPONENT = {np.dtype(np.float32): -60.0, np.dtype(np.float64): -700.0}


def tile_rows(n_components: int, n_features: int) -> int:
    """Rows of a tile; the bits of a sum depend on it, so on K and the features of the kernel alone."""
    rows = min(_TILE_COMPONENT_BYTES // (8 * n_components), _TILE_FEATURE_BYTES // (8 * n_features))
    low, high = _TILE_ROWS
    return min(max(rows // low * low, low), high)


class _Workspace:
    """Buffers for one tile at a time, in one dtype."""

    def __init__(self, components: Components, rows: int, dtype: np.dtype[np.floating]) -> None:
        k, d = components.parameters.means.shape
        self.dtype = dtype
        n_quadratic = 0 if components.centred.all() else components.theta.shape[1] - d - 1
        self.phi = np.empty((n_quadratic + d + 1, rows), dtype)
        self.phi[-1] = 1.0
        self.joint = np.empty((k, rows), dtype)
        # Vectors (b,) of a tile. Made anew they cost page faults where freed memory is given back at once, as
        # Dask's nannies have it (MALLOC_TRIM_THRESHOLD_): 15 % of a pass, measured.
        self.vectors = np.empty((3, rows), dtype)
        self.theta = components.theta.astype(dtype)

    def load(self, rows: Array, frame: Frame) -> tuple[Array, Array]:
        """Bring rows (b, D) into the frame: views of Phi (F, b) and of its linear part z (D, b)."""
        b, d = rows.shape
        phi = self.phi[:, :b]
        z = phi[-1 - d : -1]
        np.copyto(z, rows.T)
        z -= frame.shift[:, None].astype(self.dtype)
        z /= frame.scale[:, None].astype(self.dtype)
        return phi, z


class EStep:
    """One E-step, applied to block after block; it keeps its buffers between them.

    Parameters
    ----------
    components : Components
        In the frame.
    frame : Frame
    """

    def __init__(self, components: Components, frame: Frame) -> None:
        self._components = components
        self._frame = frame
        self._covariance = components.parameters.covariance
        k, d = components.parameters.means.shape
        self._features = d if components.centred.all() else components.theta.shape[1]
        self._rows = tile_rows(k, self._features)
        self._workspaces: dict[np.dtype[np.floating], _Workspace] = {}

    def __call__(self, rows: Array, weights: Array | None = None) -> SufficientStatistics:
        """Statistics of a block.

        Parameters
        ----------
        rows : ndarray (n, D)
            In data units, float32 or float64.
        weights : ndarray (n,), optional
            Sample weights.

        Returns
        -------
        SufficientStatistics
            In the frame, float64 whatever the dtype of the rows.
        """
        total = _Moments(self._components)
        for start in range(0, len(rows), self._rows):
            tile = slice(start, start + self._rows)
            w = None if weights is None else weights[tile]
            phi, z, centred = self._load(rows[tile], self._components.dtype)
            joint = self._log_joint(phi, z, centred=centred)
            density = self._softmax(joint, w)
            total.add_densities(density, w)
            if centred:
                total.add_centred(z, joint)
            else:
                total.add_two_gemm(phi, z, joint, w)
        return total.statistics()

    def posterior(self, rows: Array) -> Iterator[tuple[slice, Array, Array]]:
        """For each tile: its place in the block, log-densities (b,), responsibilities (K, b); in float64.

        The arrays are overwritten by the next tile. Log-densities are in data units.
        """
        for start in range(0, len(rows), self._rows):
            tile = slice(start, min(start + self._rows, len(rows)))
            phi, z, centred = self._load(rows[tile], np.dtype(np.float64))
            joint = self._log_joint(phi, z, centred=centred)
            density = self._softmax(joint, None)
            if not centred:
                density += self._covariance.row_log_density(self._components.precision_cholesky, z)
            density -= self._frame.log_volume
            yield tile, density, joint

    def _load(self, rows: Array, dtype: np.dtype[np.floating]) -> tuple[Array, Array, bool]:
        """The tile in the frame, in the narrowest dtype that the guard allows, and whether it must be centred."""
        components = self._components
        if dtype not in self._workspaces:
            self._workspaces[dtype] = _Workspace(components, self._rows, dtype)
        phi, z = self._workspaces[dtype].load(rows, self._frame)
        if components.centred.all():
            return phi, z, True
        farthest = np.maximum(z.max(axis=1), -z.min(axis=1)).astype(np.float64)
        if farthest @ farthest <= components.radius_limits[dtype]:
            return phi, z, False
        if dtype == np.float32:
            return self._load(rows, np.dtype(np.float64))
        return phi, z, True

    def _log_joint(self, phi: Array, z: Array, *, centred: bool) -> Array:
        """log w_k N(z; mu_k, Sigma_k), (K, b); tied: less the term that all components share, unless centred."""
        components = self._components
        workspace = self._workspaces[phi.dtype]
        joint = workspace.joint[:, : phi.shape[1]]
        if not centred:
            self._covariance.fill_quadratic(z, phi[: -1 - len(z)])
            np.matmul(workspace.theta, phi, out=joint)
        means = components.parameters.means
        for k in range(len(means)) if centred else components.centred_indices:
            white = self._covariance.whiten(z - means[k][:, None], components.precision_cholesky, k)
            joint[k] = components.log_constants[k] - 0.5 * np.einsum("db,db->b", white, white)
        return joint

    def _softmax(self, joint: Array, weights: Array | None) -> Array:
        """Turn log w_k N_k into (weighted) responsibilities, in place, and give the log-densities (b,)."""
        vectors: Array = self._workspaces[joint.dtype].vectors[:, : joint.shape[1]]
        density: Array = vectors[0]
        total, log_total = vectors[1:]
        np.max(joint, axis=0, out=density)
        joint -= density
        np.maximum(joint, _LEAST_EXPONENT[joint.dtype], out=joint)
        np.exp(joint, out=joint)
        np.sum(joint, axis=0, out=total)
        density += np.log(total, out=log_total)
        np.divide(1.0 if weights is None else weights, total, out=total)
        joint *= total
        return density


class _Moments:
    """Statistics of one block in the making."""

    def __init__(self, components: Components) -> None:
        covariance = components.parameters.covariance
        k, d = components.parameters.means.shape
        self._components = components
        self._covariance = covariance
        self._two_gemm = np.zeros(components.theta.shape)
        self._pooled = np.zeros((d, d))
        self._counts = np.zeros(k)
        self._first = np.zeros((k, d))
        self._second = np.zeros((1 if covariance.pooled else k, covariance.n_quadratic(d)))
        self._log_likelihood = 0.0
        self._weight = 0.0

    def add_densities(self, density: Array, weights: Array | None) -> None:
        if weights is None:
            self._weight += len(density)
            self._log_likelihood += float(density.sum(dtype=np.float64))
        else:
            self._weight += float(weights.sum(dtype=np.float64))
            self._log_likelihood += float(weights.astype(np.float64) @ density)

    def add_two_gemm(self, phi: Array, z: Array, responsibilities: Array, weights: Array | None) -> None:
        self._two_gemm += responsibilities @ phi.T
        if self._covariance.pooled:
            self._pooled += (z if weights is None else z * weights) @ z.T
        for k in self._components.centred_indices:
            self._add_centred(z, responsibilities, k)

    def add_centred(self, z: Array, responsibilities: Array) -> None:
        for k in range(len(responsibilities)):
            self._add_centred(z, responsibilities, k)

    def _add_centred(self, z: Array, responsibilities: Array, k: int) -> None:
        covariance, r = self._covariance, responsibilities[k]
        mean = self._components.parameters.means[k]
        delta = z - mean[:, None]
        count, first, second = r.sum(), delta @ r, covariance.second_moment(delta, r)
        if not self._components.centred[k]:
            second = second + 2 * covariance.outer(first, mean) + count * covariance.outer(mean, mean)
            first = first + count * mean
        self._counts[k] += count
        self._first[k] += first
        self._second[0 if covariance.pooled else k] += second

    def statistics(self) -> SufficientStatistics:
        if not self._components.centred.all():
            self._take_two_gemm()
        return SufficientStatistics(
            self._components.centres,
            self._counts,
            self._first,
            self._second,
            self._log_likelihood,
            self._weight,
        )

    def _take_two_gemm(self) -> None:
        """Split T = R Phi^T, for the components about the origin, into its moments."""
        components, covariance = self._components, self._covariance
        d = components.parameters.n_features
        origin = ~components.centred
        moments = self._two_gemm[origin]
        self._counts[origin] += moments[:, -1]
        self._first[origin] += moments[:, -1 - d : -1]
        if covariance.pooled:
            pooled = self._pooled[np.triu_indices(d)][None]
            self._second += pooled
            precisions = covariance.precisions(components.precision_cholesky)
            self._log_likelihood += covariance.shared_log_density(precisions, pooled)
        else:
            self._second[origin] += moments[:, : -1 - d]
