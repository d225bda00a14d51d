"""Runs the command and turns whatever ends it into a message and an exit code."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from importlib import import_module
from typing import Any

import click
import dask

from dgmm import __version__
from dgmm.errors import DgmmError, Interrupted, InvalidInput

FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 75
# What matters to somebody who watches a command: workers that die, or are about to, for lack of memory.
_LOG_LEVELS = {
    "distributed": "error",
    "distributed.client": "critical",  # a scheduler that is lost is an error of ours
    "distributed.worker": "critical",  # what a task raises comes to the driver
    "distributed.nanny": "warning",
    "distributed.nanny.memory": "warning",
    "distributed.worker.memory": "warning",
}
_COMMANDS = (
    *("fit", "select", "predict", "score", "sample", "convert"),
    *("info", "compare", "report", "cluster", "demo"),
)


class _Commands(click.Group):
    """Imports a command once it is asked for: scikit-learn, which not all need, takes a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"dgmm.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dgmm")
def dgmm() -> None:
    """Gaussian mixtures for data that does not fit in memory.

    Exit codes: 0 success; 1 failure; 2 bad usage or input; 75 stopped by a signal (Ctrl-C, SIGTERM, SIGUSR1)
    with the state on disk: the same command goes on.
    """


def run() -> int:
    """Run the command line and return its exit code."""
    # What libraries write for us, here and in workers that we start, is never for all to change.
    os.umask(os.umask(0) | stat.S_IWOTH)
    warnings.showwarning = _show_warning
    dask.config.update_defaults({"logging": _LOG_LEVELS})
    try:
        # Without standalone mode a signal's exception and all errors come here.
        return dgmm.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BAD_INPUT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Interrupted as error:
        click.echo(f"Interrupted: {error}", err=True)
        return INTERRUPTED
    except DgmmError as error:
        click.echo(f"Error: {_one_line(error)}", err=True)
        return BAD_INPUT if isinstance(error, InvalidInput) else FAILURE


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(f"{clear}Warning: {_one_line(message)}", err=True)
