"""How a checkpoint's fit, and the environment it was written in, differ from ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from dgmm.engine.archive import JSON
from dgmm.errors import CheckpointMismatch, EnvironmentWarning


def refuse_another(directory: str, recorded: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a directory of a fit with another identity.

    Raises
    ------
    CheckpointMismatch
    """
    differences = [
        _difference(key, recorded.get(key), ours.get(key))
        for key in sorted(recorded.keys() | ours.keys())
        if recorded.get(key) != ours.get(key)
    ]
    if differences:
        msg = (
            f"{directory} holds the checkpoints of another fit: {'; '.join(differences)}. "
            f"Remove {directory} to start anew, or choose another checkpoint directory"
        )
        raise CheckpointMismatch(msg)


def warn_of_another(directory: str, recorded: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Say that its results may differ in the last bits, if the environment does."""
    changed = [
        f"{key} was {recorded.get(key, 'unknown')}, now {ours.get(key, 'unknown')}"
        for key in sorted(recorded.keys() | ours.keys())
        if recorded.get(key) != ours.get(key)
    ]
    if changed:
        msg = (
            f"{directory} was written in another environment ({'; '.join(changed)}): the fit goes on, "
            "but its results may differ in the last bits from an unbroken run"
        )
        warnings.warn(msg, EnvironmentWarning, stacklevel=3)


def _difference(key: str, recorded: JSON, ours: JSON) -> str:
    if key in {"data", "weights"} and isinstance(recorded, str) and isinstance(ours, str):
        return f"the {key} changed (fingerprint {recorded:.12}… now {ours:.12}…)"
    return f"{key} was {recorded!r}, now {ours!r}"
