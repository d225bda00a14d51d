"""A fitted mixture as a value, and its file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgmm.data.address import Address
from dgmm.engine import archive
from dgmm.engine.anomalies import DensityWork
from dgmm.engine.likelihood import ScoreWork
from dgmm.engine.origin import Origin
from dgmm.engine.trace import Trace, pack_trace, unpack_trace
from dgmm.errors import CorruptFile, IllDefinedCovariance, SourceNotFound
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import covariance_type
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters

KIND = "model"
# Squares of what is farther from the frame's origin are no doubles.
_FARTHEST = 1e150


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted mixture and how it came about.

    Attributes
    ----------
    parameters : Parameters
        In `frame`, so that predictions lose nothing to a far origin.
    frame : Frame
    dtype : dtype
        Of the data it was fitted to: float32 or float64.
    radius_squared : float
        See `Components.prepare`.
    converged : bool
    trace : tuple of Step
        Of the last phase's iterations; the model file leaves the seconds out, which differ from run to run.
    n_passes : int
        Over all rows, the scan among them.
    n_rows : int
        Those that were not left out.
    weight : float
        Sum of sample weights.
    feature_names : tuple of str
        Empty where the data had none.
    settings : dict
        The estimator's parameters, as far as JSON can hold them.
    n_missing : int
        Rows left out because a value was missing.
    origin : Origin
        What it was fitted to, and how it was chosen.
    """

    parameters: Parameters
    frame: Frame
    dtype: np.dtype[Any]
    radius_squared: float
    converged: bool
    trace: Trace
    n_passes: int
    n_rows: int
    weight: float
    feature_names: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    n_missing: int = 0
    origin: Origin = field(default_factory=Origin)

    @property
    def n_iter(self) -> int:
        """Iterations of the last phase."""
        return len(self.trace)

    @property
    def history(self) -> tuple[float, ...]:
        """Mean log-likelihood that each iteration found."""
        return tuple(step.log_likelihood for step in self.trace)

    def components(self) -> Components:
        """Ready for an E-step in float64."""
        return Components.prepare(self.parameters, np.dtype(np.float64), self.radius_squared)

    def e_step(self) -> EStep:
        """An E-step of its own, for one thread."""
        return EStep(self.components(), self.frame)

    def score_work(self) -> ScoreWork:
        """The pass that sums log-densities."""
        return ScoreWork(self.components(), self.frame)

    def density_work(self) -> DensityWork:
        """The pass that counts log-densities."""
        return DensityWork(self.components(), self.frame)

    def in_data_units(self) -> Parameters:
        """Weights, means and covariances as users see them."""
        return self.parameters.seen_from(self.frame).to_data(self.frame)

    def pack(self) -> bytes:
        """The content of the model file."""
        header: dict[str, Any] = {
            "covariance_type": self.parameters.covariance.name,
            "dtype": self.dtype.name,
            "n_passes": self.n_passes,
            "converged": self.converged,
            "n_rows": self.n_rows,
            "n_missing": self.n_missing,
            "weight": self.weight,
            "radius_squared": self.radius_squared,
            "feature_names": list(self.feature_names),
            "settings": self.settings,
            "origin": self.origin.pack(),
        }
        arrays = {
            **parameter_arrays(self.parameters),
            "shift": self.frame.shift,
            "scale": self.frame.scale,
            "trace": pack_trace(tuple(replace(step, seconds=np.nan) for step in self.trace)),
        }
        return archive.pack(KIND, header, arrays)

    def save(self, path: Address) -> None:
        """Write the model file to a path or to the URL of an object store, durably and atomically."""
        archive.write(path, self.pack())

    @classmethod
    def load(cls, path: Address) -> Model:
        """Read a model file at a path or URL; nothing in it is ever executed.

        Raises
        ------
        SourceNotFound
            There is no such file.
        ForeignFile, CorruptFile, NewerSchema, ReadFailed
            It cannot be used.
        StoreError
            The object store refuses, or does not answer.
        """
        try:
            header, arrays = archive.read(path, KIND)
        except FileNotFoundError as error:
            msg = f"There is no model file at {path}. Check the path, or fit a model first."
            raise SourceNotFound(msg) from error
        try:
            return cls._unpack(header, arrays)
        except IllDefinedCovariance:
            raise
        except Exception as error:
            # The checksum holds: the file was made to deceive, and decides what is raised.
            msg = f"{path} has the form of a model file but lacks a part: {error!r}. Fit and save it again."
            raise CorruptFile(msg) from error

    @classmethod
    def _unpack(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Model:
        """The inverse of `pack`; any exception where that has not written it."""
        model = cls(
            parameters=parameters_from(header["covariance_type"], arrays),
            frame=Frame(arrays["shift"], arrays["scale"]),
            dtype=np.dtype(header["dtype"]),
            radius_squared=header["radius_squared"],
            converged=header["converged"],
            trace=unpack_trace(arrays["trace"]),
            n_passes=header["n_passes"],
            n_rows=header["n_rows"],
            weight=header["weight"],
            feature_names=tuple(header["feature_names"]),
            settings=header["settings"],
            n_missing=header.get("n_missing", 0),
            origin=Origin.unpack({"versions": header["versions"], **header.get("origin", {})}),
        )
        model._check()
        return model

    def _check(self) -> None:
        """`ValueError` or `TypeError` for values that no fit has."""
        d = self.parameters.n_features
        right = {
            "means": bool((np.abs(self.parameters.means) < _FARTHEST).all()),
            "frame": self.frame.shift.shape == self.frame.scale.shape == (d,)
            and np.isfinite(self.frame.shift).all() and np.isfinite(self.frame.scale).all()
            and (self.frame.scale > 0).all(),
            "dtype": self.dtype in (np.float32, np.float64),
            "radius_squared": isinstance(self.radius_squared, float) and 0 <= self.radius_squared < np.inf,
            "converged": isinstance(self.converged, bool),
            "counts": all(type(n) is int and n >= 0 for n in (self.n_passes, self.n_rows, self.n_missing)),
            "weight": isinstance(self.weight, float) and 0 <= self.weight < np.inf,
            "feature_names": len(self.feature_names) in (0, d)
            and all(isinstance(name, str) for name in self.feature_names),
            "settings": isinstance(self.settings, dict),
        }  # fmt: skip
        if wrong := [name for name, is_right in right.items() if not is_right]:
            msg = f"{', '.join(wrong)} of another kind or size"
            raise ValueError(msg)


def parameter_arrays(parameters: Parameters) -> dict[str, NDArray[Any]]:
    """Parameters as the arrays of an archive."""
    return {
        "weights": parameters.weights,
        "means": parameters.means,
        "covariances": parameters.covariances,
    }


def parameters_from(covariance: str, arrays: dict[str, NDArray[Any]]) -> Parameters:
    """Parameters from the arrays of an archive; `ValueError` where their shapes do not fit."""
    found = Parameters(covariance_type(covariance), arrays["weights"], arrays["means"], arrays["covariances"])
    k, d = found.means.shape
    if found.weights.shape != (k,) or found.covariances.shape != found.covariance.shape(k, d) or 0 in (k, d):
        msg = f"shapes {found.weights.shape}, {found.means.shape}, {found.covariances.shape} do not fit"
        raise ValueError(msg)
    for array in (found.weights, found.means, found.covariances):
        if array.dtype != np.float64 or not np.isfinite(array).all():
            msg = "parameters that are not finite float64"
            raise ValueError(msg)
    if (found.weights < 0).any():
        msg = "negative weights"
        raise ValueError(msg)
    return found
