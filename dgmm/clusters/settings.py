"""Dask settings of processes that we start."""

from __future__ import annotations

import logging
from typing import Any, Literal

import dask


def quiet_workers() -> dict[str, Any]:
    """Workers log what this process logs: nannies hand the levels on in the environment."""
    levels = dask.config.get("logging", None) or {"distributed": "warning"}
    return {"distributed.nanny.pre-spawn-environ.DASK_LOGGING": repr(levels)}


def silence_logs() -> int | Literal[False]:
    """What Dask's clusters take: warnings only, where the user has not set levels."""
    return False if dask.config.get("logging", None) else logging.WARNING
