"""What makes a fit this fit, and not another one whose checkpoint it could go on from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dgmm.data.source import Source
from dgmm.engine.settings import Contest, Settings, Start
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.tiling import tile_rows


def fit_identity(
    source: Source, weights: Source | None, settings: Settings, seed: int | None, content: str
) -> dict[str, Any]:
    """What makes a fit this fit. How long it runs, and where, is not part of it.

    Parameters
    ----------
    source, weights : Source
    settings : Settings
    seed : int or None
        None matches any recorded one.
    content : str
        Digest from the scan, where the source has no fingerprint of its own.
    """
    s = settings
    features = s.covariance.n_features(source.n_features)
    return {
        "data": content or source.fingerprint(),
        "weights": None if weights is None else content or weights.fingerprint(),
        "blocks": hashlib.sha256(np.ascontiguousarray(source.bounds, dtype="<i8").tobytes()).hexdigest(),
        "tile_rows": tile_rows(s.n_components, features),
        "n_components": s.n_components,
        "covariance_type": s.covariance_type,
        "reg_covar": float(s.reg_covar),
        "reg_relative": float(s.reg_relative),
        "init_params": s.init_params,
        "n_init": s.n_init,
        "n_finalists": s.n_finalists,
        "accelerate": s.accelerate,
        "sample_rows": s.sample_rows(source),
        "start": _start_digest(s.start),
        "seed": seed,
        **({"standardize": True} if s.standardize else {}),
    }


def contest_identity(
    source: Source, weights: Source | None, contest: Contest, seed: int | None, content: str
) -> dict[str, Any]:
    """The same of a selection."""
    shared = fit_identity(source, weights, contest.settings, seed, content)
    for of_one in ("n_components", "covariance_type", "tile_rows", "n_finalists", "accelerate"):
        del shared[of_one]
    return {
        **shared,
        "sample_rows": contest.sample_rows(source),
        "candidates": contest.names,
        "criterion": contest.criterion,
        "holdout": contest.holdout,
    }


def check(recorded: Mapping[str, Any]) -> None:
    """`ValueError` for an identity that neither a fit nor a selection has."""
    selects = "candidates" in recorded
    right = {
        "n_init": _is_count(recorded.get("n_init")),
        "seed": type(recorded.get("seed")) is int,
        "standardize": type(recorded.get("standardize", False)) is bool,
        "candidates": not selects or _are_names(recorded["candidates"]),
        "criterion": not selects or isinstance(recorded.get("criterion"), str),
        "holdout": not selects or type(recorded.get("holdout")) in (int, float),
        "n_components": selects or _is_count(recorded.get("n_components")),
        "covariance_type": selects or recorded.get("covariance_type") in tuple(COVARIANCE_TYPES),
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        msg = f"an identity whose {', '.join(wrong)} no fit has"
        raise ValueError(msg)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _start_digest(start: Start) -> str | None:
    state = hashlib.sha256()
    for name, value in sorted(vars(start).items()):
        if value is not None:
            state.update(f"{name}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return state.hexdigest() if start.given else None
