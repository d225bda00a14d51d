"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from dask.utils import format_bytes, parse_bytes

from dgmm.data.source import Source
from dgmm.engine.cluster import check_scheduler, connect, local_cluster

Command = Callable[..., None]

data_argument = click.argument("data")
model_option = click.option(
    "--model",
    "model_file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Model file that `dgmm fit` wrote.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON object to standard output.")
missing_option = click.option(
    "--missing-chunks",
    type=click.Choice(["error", "fill"]),
    default="error",
    show_default=True,
    help="What to make of chunks that a Zarr array does not store.",
)


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, as in 4GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it as Dask does."""
        try:
            size = int(parse_bytes(value))
        except ValueError:
            self.fail(f"{value!r} is not a size; expected bytes such as 4GiB or 500MB", param, ctx)
        if size < 1:
            self.fail(f"{value!r} is not a size; it must be positive", param, ctx)
        return size


@dataclass(frozen=True)
class Where:
    """Where a command computes.

    Attributes
    ----------
    workers, memory_limit : int or None
        Of a cluster of this machine.
    scheduler : str or None
        Address or file of one that runs already.
    """

    workers: int | None = None
    memory_limit: int | None = None
    scheduler: str | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, before anything starts."""
        if self.scheduler is None:
            return
        if self.workers is not None or self.memory_limit is not None:
            msg = (
                "--scheduler names a cluster that runs already; --workers and --memory-limit describe one to be "
                "started here. Give one or the other."
            )
            raise click.UsageError(msg)
        check_scheduler(self.scheduler)

    @contextlib.contextmanager
    def client(self, source: Source) -> Iterator[None]:
        """The cluster's client is the active one meanwhile; rows in this process's memory need none."""
        if source.local:
            yield
            return
        found = connect(self.scheduler) if self.scheduler else local_cluster(self.workers, self.memory_limit)
        with found as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            memory = format_bytes(min((w["memory_limit"] for w in workers), default=0))
            kind = f"cluster at {client.scheduler.address}" if self.scheduler else "local cluster"
            log(f"{kind}: {len(workers)} worker(s) of {memory}, dashboard {client.dashboard_link}")
            yield


def cluster_options(command: Command) -> Command:
    """Add --workers, --memory-limit and --scheduler; the command gets them as `where`."""

    @click.option("--workers", type=click.IntRange(min=1), help="Processes here.  [default: one a core]")
    @click.option("--memory-limit", type=Size(), help="Of each of them.  [default: its share of what is allowed]")
    @click.option("--scheduler", metavar="ADDR|FILE", help="Use the cluster of this Dask scheduler instead.")
    @functools.wraps(command)
    def with_cluster(
        *args: Any, workers: int | None, memory_limit: int | None, scheduler: str | None, **kwargs: Any
    ) -> None:
        where = Where(workers, memory_limit, scheduler)
        where.check()
        command(*args, where=where, **kwargs)

    return with_cluster


def check_writable(path: Path, option: str) -> None:
    """Refuse a file or folder that could not be created, before work is spent on it."""
    folder = path.absolute().parent
    if not folder.is_dir():
        msg = f"the folder {folder} does not exist; create it or choose another path"
        raise click.BadParameter(msg, param_hint=option)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"the folder {folder} is not writable; choose another path"
        raise click.BadParameter(msg, param_hint=option)


def check_output(path: str, option: str) -> None:
    """The same for an output that may be a URL."""
    if "://" not in path:
        check_writable(Path(path), option)


def log(text: str) -> None:
    """Tell the person, not the next program in a pipe."""
    click.echo(text, err=True)
