"""Acceleration of EM where it crawls, by Anderson's method, guarded by the log-likelihood.

A pass at parameters x gives the log-likelihood and the image G(x). From the last few points x_i and residuals
f_i = G(x_i) - x_i Anderson's method takes the affine combination whose residual is least, in the linear model of
G, and adds that residual (Anderson 1965, J. ACM 12; for EM: Henderson & Varadhan 2019, J. Comput. Graph. Stat.
28). Here it is applied periodically (Banerjee, Suryanarayana & Pask 2016, Chem. Phys. Lett. 647), with plain steps
in between: they say at which rate EM converges, which decides when to extrapolate and when to stop.

Where EM leaves a saddle its steps grow, and Anderson's method leads back to it. Where its result is worse than a
plain step, or EM speeds up, a longer step in EM's own direction takes its place (over-relaxed EM: Redner & Walker
1984, SIAM Rev. 26; Salakhutdinov & Roweis 2003, ICML), twice as long each time, until that fails.

The vector x holds log-weights, means and covariances, these as logarithms of standard deviations or as Cholesky
factors with a logarithmic diagonal (Pinheiro & Bates 1996, Stat. Comput. 6): every vector is a mixture. Lengths
are measured by the information of the complete data, in which the rates of EM are eigenvalues of a symmetric
matrix (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39) and which does not depend on the units of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dgmm.errors import IllDefinedCovariance
from dgmm.mixture.covariance_type import Array
from dgmm.mixture.criteria import LONGEST_RUN, converged
from dgmm.mixture.parameters import Parameters

# Differences of points that are combined; fewer where the points have more values than this, as each checkpoint
# holds them.
_MEMORY, _MOST_VALUES = 5, 1 << 22
# Likelihoods of plain steps between two extrapolations: two gains, hence one ratio.
_PERIOD = 3
# EM that would be done in so many steps is left alone.
_WORTHWHILE = 4
# A rate is underestimated before it is reached: extrapolation goes on until what is left is this far below tol.
_SAFETY = 0.1
# A longer step is worth so many plain ones at first; it may become that much longer; where less would not do, EM
# stays plain.
_FIRST_REACH, _GREATEST_REACH, _LEAST_REACH = 8.0, 1e4, 2.0
# Directions this much shorter than the longest are rounding.
_NEGLIGIBLE = 1e-8


@dataclass(frozen=True, eq=False)
class Acceleration:
    """What is remembered from pass to pass.

    Attributes
    ----------
    run : tuple of float
        Mean log-likelihoods of the last plain steps, since the last extrapolation.
    points, residuals : ndarray (n, P)
        The last parameters x that were kept since EM crawls, and G(x) - x, as vectors.
    rate : float
        Greatest ratio of successive gains that EM was seen to have since it crawls; 0 before.
    trial : Parameters or None
        Extrapolated, for the next pass to judge.
    least : float
        The mean log-likelihood that a plain step instead of `trial` is expected to have.
    succeeded : bool
        A trial was kept: the points are not those of plain EM.
    stretching : bool
        `trial`, or else the next one, is a longer step in EM's own direction.
    reach : float
        Plain steps that this is worth.
    over : bool
        Trials failed: from there on EM is plain.
    """

    run: tuple[float, ...] = ()
    points: Array = field(default_factory=lambda: np.empty((0, 0)))
    residuals: Array = field(default_factory=lambda: np.empty((0, 0)))
    rate: float = 0.0
    trial: Parameters | None = None
    least: float = -np.inf
    succeeded: bool = False
    stretching: bool = False
    reach: float = _FIRST_REACH
    over: bool = False

    def converged(self, tol: float) -> bool:
        """Whether the plain steps since the last extrapolation have converged.

        Just after it their gains shrink fast, as long as other directions than the slow ones have something to
        gain: the greatest rate that was seen has to agree that less than `tol` is left.
        """
        if self.trial is not None or not converged(self.run, tol):
            return False
        return not self.succeeded or converged(self.run[-2:], tol) or abs(self._remaining) < tol

    def rejects(self, log_likelihood: float) -> bool:
        """Whether `trial`, if there is one, is worse than a plain step."""
        return self.trial is not None and not log_likelihood >= self.least

    def rejected(self) -> Acceleration:
        """As if the trial had never been; the next one is of the other kind, a longer step reaches less far."""
        if not self.stretching:
            return replace(self, trial=None, least=-np.inf, stretching=True)
        reach = self.reach / 4
        if reach < _LEAST_REACH:
            return self._stopped()
        return replace(self, trial=None, least=-np.inf, stretching=False, reach=reach)

    def _stopped(self) -> Acceleration:
        """Plain EM from here on."""
        return Acceleration(self.run, rate=self.rate, succeeded=self.succeeded, over=True)

    @property
    def _remaining(self) -> float:
        """What is left to gain at the greatest rate."""
        return (self.run[-1] - self.run[-2]) * self.rate / (1 - self.rate)

    def after(self, at: Parameters, image: Parameters, log_likelihood: float, tol: float) -> Acceleration:
        """After a pass at `at` that was not rejected.

        Parameters
        ----------
        at, image : Parameters
            Where the pass was, and the M-step's result.
        log_likelihood : float
            Mean, of `at`.
        tol : float
            See `dgmm.mixture.criteria.converged`.
        """
        extrapolated = self.trial is not None
        run = (log_likelihood,) if extrapolated else (*self.run, log_likelihood)[-LONGEST_RUN:]
        rate = max(self.rate, _rate_of(run)) if self.rate else _crawl(run, tol)
        if self.over or not rate:
            return replace(self, run=run)
        try:
            point, end = flatten(at), flatten(image)
        except np.linalg.LinAlgError:
            return replace(self, run=run)._stopped()
        if not (np.isfinite(point).all() and np.isfinite(end).all()):
            return replace(self, run=run)._stopped()
        residual = end - point
        if extrapolated:
            step, change = whiten(np.stack([point - self.points[-1], residual - self.residuals[-1]]), at)
            rate = max(rate, _rate_along(step, change))
        following = replace(
            self,
            run=run,
            points=_appended(self.points, point),
            residuals=_appended(self.residuals, residual),
            rate=rate,
            trial=None,
            least=-np.inf,
            succeeded=self.succeeded or extrapolated,
            reach=min(2 * self.reach, _GREATEST_REACH) if extrapolated and self.stretching else self.reach,
        )
        return following._extrapolated(at, tol)

    def _extrapolated(self, at: Parameters, tol: float) -> Acceleration:
        """With a trial, if it is time for one."""
        if min(len(self.run), len(self.points)) < _PERIOD or converged(self.run[-2:], tol):
            return self
        previous, gain = np.diff(self.run[-3:])
        if previous <= 0 or gain <= 0 or self._remaining < _SAFETY * tol:
            return self
        following = replace(self, stretching=self.stretching or bool(gain >= previous))
        if following.stretching:
            vector = self.points[-1] + self.reach * self.residuals[-1]
        else:
            vector = anderson(self.points, self.residuals, at)
        trial = unflatten(vector, at)
        if not _proper(trial):
            return following.rejected()
        return replace(following, trial=trial, least=float(self.run[-1] + gain * gain / previous))


def anderson(points: Array, residuals: Array, at: Parameters) -> Array:
    """The extrapolated vector, from vectors (n, P) of which the last are those of `at`."""
    steps, changes = np.diff(points, axis=0), np.diff(residuals, axis=0)
    white = whiten(np.concatenate([changes, residuals[-1:]]), at)
    lengths = np.maximum(np.linalg.norm(white[:-1], axis=1), np.finfo(np.float64).tiny)
    coefficients = np.linalg.lstsq(white[:-1].T / lengths, white[-1], rcond=_NEGLIGIBLE)[0] / lengths
    extrapolated: Array = points[-1] + residuals[-1] - coefficients @ (steps + changes)
    return extrapolated


def flatten(parameters: Parameters) -> Array:
    """Parameters as a vector without constraints.

    Raises
    ------
    LinAlgError
        A covariance is not positive definite.
    """
    d = parameters.n_features
    if _are_matrices(parameters):
        lower = np.linalg.cholesky(parameters.covariances)
        i = np.arange(d)
        lower[..., i, i] = np.log(lower[..., i, i])
        shapes = lower[(..., *np.tril_indices(d))]
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            shapes = np.log(parameters.covariances) / 2
    with np.errstate(divide="ignore"):
        logs = np.log(parameters.weights)
    return np.concatenate([logs, parameters.means.ravel(), shapes.ravel()])


def unflatten(vector: Array, like: Parameters) -> Parameters:
    """The mixture of a vector, in the family of another mixture."""
    k, d = like.means.shape
    shares = np.exp(vector[:k] - vector[:k].max())
    means, shapes = vector[k : k + k * d].reshape(k, d), vector[k + k * d :]
    shape = like.covariance.shape(k, d)
    with np.errstate(over="ignore"):
        if _are_matrices(like):
            lower = np.zeros(shape)
            lower[(..., *np.tril_indices(d))] = shapes.reshape(*shape[:-2], -1)
            i = np.arange(d)
            lower[..., i, i] = np.exp(lower[..., i, i])
            covariances = lower @ np.swapaxes(lower, -1, -2)
        else:
            covariances = np.exp(2 * shapes).reshape(shape)
    return Parameters(like.covariance, shares / shares.sum(), means, covariances)


def whiten(differences: Array, at: Parameters) -> Array:
    """Differences of vectors (n, P), in coordinates in which the information of the complete data is 1 at `at`."""
    k, d = at.means.shape
    share = np.sqrt(at.weights)
    logs = differences[:, :k]
    means = differences[:, k : k + k * d].reshape(-1, k, d)
    shapes = differences[:, k + k * d :]
    logs = (logs - (logs @ at.weights)[:, None]) * share
    if _are_matrices(at):
        lower = np.linalg.cholesky(at.covariances)
        inverse = np.linalg.inv(lower)
        means = np.einsum("kij,nkj->nki", np.broadcast_to(inverse, (k, d, d)), means) * share[:, None]
        changes = np.zeros((len(differences), *lower.shape))
        changes[(..., *np.tril_indices(d))] = shapes.reshape(*changes.shape[:-2], -1)
        i = np.arange(d)
        changes[..., i, i] *= lower[..., i, i]
        changes = inverse @ changes
        changes[..., i, i] *= np.sqrt(2.0)
        if not at.covariance.pooled:
            changes *= share[:, None, None]
        shapes = changes[(..., *np.tril_indices(d))]
    else:
        variances = at.covariances.reshape(k, -1)
        means = means / np.sqrt(variances) * share[:, None]
        features = d // variances.shape[1]
        shapes = shapes.reshape(len(differences), k, -1) * np.sqrt(2.0 * features) * share[:, None]
    n = len(differences)
    return np.concatenate([logs, means.reshape(n, -1), shapes.reshape(n, -1)], axis=1)


def _are_matrices(parameters: Parameters) -> bool:
    """Whether the covariances are D x D matrices, not variances."""
    return parameters.covariance.pooled or parameters.covariances.ndim == 3


def _proper(parameters: Parameters) -> bool:
    """Whether an E-step can be made of them."""
    if not (np.isfinite(parameters.means).all() and np.isfinite(parameters.covariances).all()):
        return False
    try:
        parameters.covariance.precision_cholesky(parameters.covariances)
    except IllDefinedCovariance:
        return False
    return True


def _appended(vectors: Array, vector: Array) -> Array:
    """With one vector more, of which the last few are kept."""
    kept = min(_MEMORY + 1, max(_PERIOD, _MOST_VALUES // len(vector)))
    return np.concatenate([vectors, vector[None]])[-kept:] if len(vectors) else vector[None]


def _rate_of(run: Sequence[float]) -> float:
    """The last ratio of gains, or 0 where that is none to converge with."""
    if len(run) < 3:
        return 0.0
    previous, gain = np.diff(run[-3:])
    return float(gain / previous) if 0 < gain < previous else 0.0


def _rate_along(step: Array, change: Array) -> float:
    """The ratio of gains that goes with a step and the change of the residual along it.

    The step of an extrapolation is mostly in the directions in which EM is slow. Errors in such a direction shrink
    by a factor of 1 + step.change / step.step, gains by its square.
    """
    factor = 1 + float(step @ change / (step @ step))
    return factor**2 if 0 < factor < 1 else 0.0


def _crawl(run: Sequence[float], tol: float) -> float:
    """The rate at which EM crawls, or 0 if it does not."""
    rate = _rate_of(run)
    if rate == 0 or _rate_of(run[:-1]) == 0:
        return 0.0
    remaining = (run[-1] - run[-2]) * rate / (1 - rate)
    return rate if remaining * rate**_WORTHWHILE > tol else 0.0
