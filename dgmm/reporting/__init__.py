"""A fit as one page."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from dgmm.data.address import Address, split_name
from dgmm.data.opening import open_source, open_weights
from dgmm.engine.folder import file_at
from dgmm.engine.record import timed_trace
from dgmm.errors import InvalidParameter, StoreError

__all__ = ["report"]


def report(
    model: Any,
    data: Any = None,
    path: Address = "report.html",
    *,
    sample_weight: Any = None,
    checkpoint: Address | None = None,
) -> Address:
    """Write what is known of a fitted mixture to one self-contained HTML file.

    What was fitted and how, the components in the data's own units, pictures, convergence, what deserves a look,
    and the command that makes the model again. It needs matplotlib: pip install 'dgmm[plot]'.

    Parameters
    ----------
    model : GaussianMixture or path
        Fitted, or the path (URL) of a model file.
    data : whatever `open_source` takes, or a Source, optional
        Read in one pass, on the active Dask client if there is one: for the density behind the components, how
        sure the most likely component of the rows is, and their log-likelihood.
    path : path, default="report.html"
        Of the report, or its URL in an object store. Replaced if it is there.
    sample_weight : like data, shape (n,), optional
    checkpoint : path, optional
        The directory (or URL) of the fit's checkpoints, for the seconds that its iterations took: a model file,
        which is the same for the same fit, leaves them out.

    Returns
    -------
    path
        That of the report, as it was given.

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    InvalidParameter
        The folder of `path` cannot be written to, or weights are given without data.
    DgmmError
        The model or the data cannot be used, or the file cannot be written.
    """
    # Nobody has to install matplotlib for the rest.
    from dgmm.plot.given import model_of
    from dgmm.reporting.page import page, write

    found = model_of(model)
    _check_writable(path)
    if data is None and sample_weight is not None:
        msg = "sample_weight is given without data; pass the rows that it belongs to"
        raise InvalidParameter(msg)
    if checkpoint is not None:
        found = replace(found, trace=timed_trace(checkpoint, found.trace))
    name = split_name(model)[1] if isinstance(model, str | os.PathLike) else "model.dgmm"
    source = None if data is None else open_source(data)
    weights = None if source is None or sample_weight is None else open_weights(sample_weight, source)
    write(path, page(found, name, source, weights).html)
    return path


def _check_writable(path: Address) -> None:
    try:
        file_at(path)[0].check_writable()
    except StoreError:  # which says what to do
        raise
    except OSError as error:
        msg = f"path is {os.fspath(path)!r}: {error}"
        raise InvalidParameter(msg) from error
