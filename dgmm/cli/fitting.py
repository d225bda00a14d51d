"""What the commands that fit share: their options, and what a signal leaves."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import click

from dgmm.cli import signals
from dgmm.cli.options import AddressType, Command, log
from dgmm.cli.progress import FitLog
from dgmm.engine.checkpoint import Checkpoint
from dgmm.estimator import GaussianMixture
from dgmm.mixture.initialization import INIT_PARAMS

DEFAULTS = {name: p.default for name, p in inspect.signature(GaussianMixture).parameters.items()}


def setting(flag: str, name: str, help: str, **kind: Any) -> Callable[[Command], Command]:
    """Make an option of one of the class's parameters, with the class's default."""
    return click.option(flag, name, default=DEFAULTS[name], show_default=True, help=help, **kind)


_OPTIONS = (
    setting("--n-init", "n_init", "Starts tried on a sample.", type=click.IntRange(min=1)),
    setting("--init-params", "init_params", "How a start is drawn.", type=click.Choice(INIT_PARAMS)),
    click.option("--sample-size", type=click.IntRange(min=1), help="Rows of the sample.  [default: 50,000]"),
    setting("--tol", "tol", "What EM may still gain when it stops, per row.", type=click.FloatRange(min=0)),
    setting("--max-iter", "max_iter", "Iterations at most.", type=click.IntRange(min=0)),
    click.option("--max-passes", type=click.IntRange(min=1), help="Passes over the data at most."),
    setting("--reg-covar", "reg_covar", "Added to each variance.", type=click.FloatRange(min=0)),
    setting("--reg-relative", "reg_relative", "Added, times the data's variance.", type=click.FloatRange(min=0)),
    click.option("--standardize", is_flag=True, help="Fit in units of each feature's standard deviation."),
    click.option(
        "--seed", "random_state", type=click.IntRange(min=0), help="Of sample and starts.  [default: drawn]"
    ),
    click.option("--weights", metavar="DATA", help="One weight a row: an address, or a column of the table."),
    click.option("--checkpoint", metavar="DIR|URL", type=AddressType(), help="Makes it resumable."),
)


def fit_options(command: Command) -> Command:
    """Add the options of a fit, whatever the number of components and the covariance type."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


@contextlib.contextmanager
def resumable(checkpoint: str | None) -> Iterator[None]:
    """A signal leaves a resumable state if there is a checkpoint."""
    if checkpoint is None:
        try:
            yield
        except signals.StopRequested as stop:
            stop.advice = "With --checkpoint DIR it can go on where it was stopped."
            raise
    else:
        with signals.resumable(lambda: _on_disk(checkpoint)):
            yield


def say_if_complete(checkpoint: str | None, observer: FitLog) -> None:
    """Tell whoever submits a finished job again that there was nothing to do."""
    if checkpoint is not None and observer.idle:
        log(f"what {checkpoint} holds is complete already: nothing to compute")


def _on_disk(checkpoint: str) -> str:
    if Checkpoint.recorded_identity(checkpoint) is None:
        return f"The scan of the data had not ended, so {checkpoint} holds nothing yet."
    return f"What was found so far is in {checkpoint}."
