"""Dask settings of processes that we start."""

from __future__ import annotations

from typing import Any

import dask


def quiet_workers() -> dict[str, Any]:
    """Workers log what this process logs: nannies hand the levels on in the environment."""
    levels = dask.config.get("logging", None)
    return {"distributed.nanny.pre-spawn-environ.DASK_LOGGING": repr(levels)} if levels else {}
