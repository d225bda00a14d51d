"""What a fit is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dgmm.data.source import Source
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.covariance_type import Array, CovarianceType
from dgmm.mixture.parameters import Parameters

# Rows of the sample, unless the user says (benchmarks/passes.py --sample-sizes), less where the rows are long.
SAMPLE_ROWS = 50_000
_SAMPLE_BYTES = 1 << 26


@dataclass(frozen=True)
class Start:
    """What the user gives of the start, in data units; None is found on the sample.

    Attributes
    ----------
    weights : ndarray (K,) or None
    means : ndarray (K, D) or None
    covariances : ndarray or None
        In the shape of the covariance type.
    """

    weights: Array | None = None
    means: Array | None = None
    covariances: Array | None = None

    @property
    def given(self) -> bool:
        """Something is given."""
        return any(part is not None for part in vars(self).values())

    @property
    def complete(self) -> bool:
        """Nothing is left to be found."""
        return all(part is not None for part in vars(self).values())

    def parameters(self, covariance: CovarianceType, drawn: Parameters | None = None) -> Parameters:
        """What is given, and of `drawn` (in data units) the rest."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Parameters(covariance, **given) if drawn is None else replace(drawn, **given)


@dataclass(frozen=True)
class Settings:
    """The names are the estimator's."""

    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    reg_relative: float
    standardize: bool
    max_iter: int
    max_passes: int | None
    accelerate: bool
    n_init: int
    n_finalists: int
    init_params: str
    sample_size: int | None
    seed: int
    start: Start = field(default_factory=Start)

    @property
    def covariance(self) -> CovarianceType:
        """The constraint on the covariances."""
        return covariance_type(self.covariance_type)

    @property
    def n_starts(self) -> int:
        """A complete start leaves nothing to chance: once is enough."""
        return 1 if self.start.complete else self.n_init

    def full_iterations(self, scanned: int) -> int:
        """Iterations on all rows at most, after so many passes of the scan."""
        return self.max_iter if self.max_passes is None else max(0, min(self.max_iter, self.max_passes - scanned))

    def sample_rows(self, source: Source) -> int:
        """Rows of the sample."""
        if self.sample_size is not None:
            return min(source.n_rows, self.sample_size)
        row_bytes = source.n_features * source.dtype.itemsize
        return min(source.n_rows, max(min(SAMPLE_ROWS, _SAMPLE_BYTES // row_bytes), 1000, 20 * self.n_components))


@dataclass(frozen=True)
class Contest:
    """What a selection is asked to do.

    Attributes
    ----------
    settings : Settings
        Of each fit, but for the number of components and the covariance type.
    candidates : tuple of (int, str)
        Number of components and covariance type.
    criterion : {'bic', 'aic', 'icl', 'holdout'}
    holdout : float
        Fraction of rows left out of the fits.
    """

    settings: Settings
    candidates: tuple[tuple[int, str], ...]
    criterion: str
    holdout: float

    def of(self, name: str) -> Settings:
        """The settings of one candidate."""
        kind, k = name.rsplit("-", 1)
        return replace(self.settings, n_components=int(k), covariance_type=kind)

    @property
    def names(self) -> list[str]:
        """Of the candidates, as in ``full-0003``."""
        return [f"{kind}-{k:04d}" for k, kind in self.candidates]

    def sample_rows(self, source: Source) -> int:
        """Rows of the sample, enough for the largest candidate."""
        return max(self.of(name).sample_rows(source) for name in self.names)
