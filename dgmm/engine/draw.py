"""Rows drawn from a model, written to Zarr with bounded memory however many they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dgmm.data.address import Address
from dgmm.data.output import CHUNK_BYTES, UNIT_ROWS, RowOutput
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.model import Model


def draw(
    model: Model,
    n_rows: int,
    path: Address,
    *,
    seed: int,
    model_digest: str,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write a Zarr group of `rows` (n, D) and `labels` (n,), ordered by component.

    Each unit of rows is drawn from a seed of its own: the result depends on the model, the number of rows and
    the seed only. An interrupted run goes on where it stopped.

    Parameters
    ----------
    model : Model
    n_rows : int
    path : str or path
        A folder, the URL of an object store, or another URL that fsspec understands.
    seed : int
    model_digest : str
        Digest of the model's file.
    on_rows : callable
        Hears of rows drawn so far, and of rows to draw.

    Returns
    -------
    int
        Rows written; 0 where nothing was missing.

    Raises
    ------
    ForeignFile, CheckpointMismatch
        The output holds something else.
    WriteFailed
    """
    parameters = model.parameters
    d = parameters.n_features
    output = RowOutput.open(
        path,
        arrays={"rows": ((n_rows, d), np.float64), "labels": ((n_rows,), np.int32)},
        chunk_rows=max(1, min(UNIT_ROWS, CHUNK_BYTES // (8 * d))),
        identity={"model": model_digest, "rows": str(n_rows), "seed": str(seed)},
    )
    if output.complete:
        return 0
    counts = np.random.default_rng(seed).multinomial(n_rows, parameters.weights / parameters.weights.sum())
    ends = np.cumsum(counts)
    written, missing = 0, output.missing_units()
    to_write = sum(stop - start for start, stop in missing)
    with one_blas_thread():
        for start, stop in missing:
            labels = np.searchsorted(ends, np.arange(start, stop), side="right").astype(np.int32)
            own_seed = np.random.SeedSequence(seed, spawn_key=(start,))
            noise = np.random.default_rng(own_seed).standard_normal((stop - start, d))
            rows = np.empty_like(noise)
            for k in np.unique(labels):
                own = labels == k
                coloured = parameters.covariance.colour(noise[own], parameters.covariances, int(k))
                rows[own] = parameters.means[k] + coloured
            output.write(start, stop, {"rows": rows * model.frame.scale + model.frame.shift, "labels": labels})
            written += stop - start
            on_rows(written, to_write)
    output.finish()
    return written
