"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
from dask.utils import format_bytes, parse_bytes

from dgmm.clusters import existing
from dgmm.clusters.config import load_cluster, parse_setting
from dgmm.clusters.schema import Cluster, Local, LocalWorkers
from dgmm.clusters.start import client_of, renewals
from dgmm.data.address import Address, is_url, plain
from dgmm.data.opening import open_convertible, open_source, open_weights
from dgmm.data.reading import MissingChunks
from dgmm.data.source import Missing, Source
from dgmm.engine.folder import file_at
from dgmm.engine.scheduling import client_when_needed
from dgmm.errors import StoreError

Command = Callable[..., None]


class AddressType(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse URLs with a password."""
        return plain(value)


class FileAddressType(AddressType):
    """The same of a file."""

    _path = click.Path(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse folders too."""
        text = super().convert(value, param, ctx)
        return text if is_url(text) else str(self._path.convert(text, param, ctx))


data_argument = click.argument("data")
model_option = click.option(
    "--model",
    "model_file",
    metavar="FILE",
    required=True,
    type=FileAddressType(),
    help="Model file that `dgmm fit` wrote.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON object to standard output.")


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names between commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split it."""
        found = tuple(filter(None, map(str.strip, value.split(","))))
        if not found:
            self.fail("there is no name; expected some, with commas between them", param, ctx)
        return found


@dataclass(frozen=True)
class Reading:
    """How a command reads its data: the options of `open_source`.

    Attributes
    ----------
    variables, feature_dims : tuple of str
        Of a grid or a table.
    missing : {'error', 'drop'} or None
    missing_chunks : {'error', 'fill'}
    """

    variables: tuple[str, ...] | None
    feature_dims: tuple[str, ...] | None
    missing: Missing | None
    missing_chunks: MissingChunks

    def open(self, data: str) -> Source:
        """The data at an address."""
        return open_source(data, **vars(self))

    def open_convertible(self, data: str) -> Source:
        """The data at an address, be they of a kind that has to be converted first."""
        return open_convertible(data, **vars(self))

    def weights(self, address: str | None, source: Source) -> Source | None:
        """The sample weights of the rows of `source`, if there are some."""
        return None if address is None else open_weights(address, source, missing_chunks=self.missing_chunks)


def reading_options(command: Command) -> Command:
    """Add the options of `Reading`; the command gets them as `reading`."""

    @click.option(
        "--variables", "--columns", type=Names(), multiple=True, metavar="NAME,...",
        help="Those of a grid, or columns of a table, that are the features, in this order.  [default: all]",
    )  # fmt: skip
    @click.option(
        "--feature-dim", "feature_dims", type=Names(), multiple=True, metavar="DIM",
        help="Dimension of a grid along which each value is a feature.",
    )  # fmt: skip
    @click.option(
        "--missing", type=click.Choice(["error", "drop"]),
        help="Rows with a missing value are an error, or are left out.  [default: error; of a grid: drop]",
    )  # fmt: skip
    @click.option(
        "--missing-chunks", type=click.Choice(["error", "fill"]), default="error", show_default=True,
        help="What to make of chunks that a Zarr array does not store.",
    )  # fmt: skip
    @functools.wraps(command)
    def with_reading(
        *args: Any,
        variables: Sequence[tuple[str, ...]],
        feature_dims: Sequence[tuple[str, ...]],
        missing: Missing | None,
        missing_chunks: MissingChunks,
        **kwargs: Any,
    ) -> None:
        reading = Reading(sum(variables, ()) or None, sum(feature_dims, ()) or None, missing, missing_chunks)
        command(*args, reading=reading, **kwargs)

    return with_reading


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


class _Placed(Protocol):
    """Rows, to be read or to be drawn."""

    @property
    def local(self) -> bool:
        """Whether this process needs no help with them."""


@dataclass(frozen=True)
class Where:
    """Where a command computes.

    Attributes
    ----------
    cluster : Cluster
        What is started, or joined, once there is something to compute.
    """

    cluster: Cluster

    @contextlib.contextmanager
    def client(self, work: _Placed) -> Iterator[None]:
        """Meanwhile what is computed is computed on the cluster; rows in this process's memory need none."""
        if self.cluster.kind == "mpi":
            # All ranks run the same command: what follows is for one of them.
            with self._started():
                yield
        elif work.local:
            yield
        else:
            with client_when_needed(self._started, renewals(self.cluster)):
                yield

    @contextlib.contextmanager
    def _started(self) -> Iterator[Any]:
        with client_of(self.cluster) as client:
            log(describe_client(client, self.cluster))
            yield client


def describe_client(client: Any, cluster: Cluster) -> str:
    """Kind, workers, address and dashboard of the cluster that a client belongs to."""
    from dgmm.engine.watch import Watch

    workers = Watch(client).workers().values()
    memory = format_bytes(min((w["memory_limit"] for w in workers), default=0))
    dashboard = client.dashboard_link
    if getattr(cluster, "dashboard", "").startswith("127.0.0.1:"):
        # It listens there alone, and Dask names the scheduler's host.
        dashboard = re.sub(r"//[^/]*:", "//127.0.0.1:", dashboard)
    there = f"{len(workers)} worker(s) of {memory}" if workers else "no worker yet"
    return f"{cluster.kind} cluster: {there} at {client.scheduler.address}, dashboard {dashboard}"


def _described(
    workers: int | None,
    memory_limit: int | None,
    scheduler: str | None,
    cluster_file: Path | None,
    settings: Sequence[str],
) -> Cluster:
    """What the options say, before anything starts."""
    given = {
        "--cluster": cluster_file is not None,
        "--scheduler": scheduler is not None,
        "--workers and --memory-limit": workers is not None or memory_limit is not None,
    }
    if sum(given.values()) > 1:
        msg = (
            "--scheduler names a cluster that runs already, --cluster describes one to be started, --workers and "
            "--memory-limit describe processes of this machine: give one of them. What a cluster file says is "
            "replaced by --set, as in --set workers.count=20."
        )
        raise click.UsageError(msg)
    if settings and cluster_file is None:
        msg = "--set replaces what a cluster file says: give --cluster FILE too"
        raise click.UsageError(msg)
    if cluster_file is not None:
        return load_cluster(cluster_file, dict(map(parse_setting, settings)))
    if scheduler is not None:
        return existing.at(scheduler)
    return Local(kind="local", workers=LocalWorkers(count=workers, memory=memory_limit))


set_option = click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="In place of what the cluster file says."
)


def cluster_options(command: Command) -> Command:
    """Add --workers, --memory-limit, --scheduler, --cluster and --set; the command gets them as `where`."""

    @click.option("--workers", type=click.IntRange(min=1), help="Processes here.  [default: one a core]")
    @click.option("--memory-limit", type=Size(), help="Of each of them.  [default: its share of what is allowed]")
    @click.option("--scheduler", metavar="ADDR|FILE", help="Use the cluster of this Dask scheduler instead.")
    @click.option(
        "--cluster", "cluster_file", metavar="FILE", type=click.Path(path_type=Path),
        help="Use a cluster that a YAML file describes (see cluster-configs/).",
    )  # fmt: skip
    @set_option
    @functools.wraps(command)
    def with_cluster(
        *args: Any,
        workers: int | None,
        memory_limit: int | None,
        scheduler: str | None,
        cluster_file: Path | None,
        settings: Sequence[str],
        **kwargs: Any,
    ) -> None:
        where = Where(_described(workers, memory_limit, scheduler, cluster_file, settings))
        command(*args, where=where, **kwargs)

    return with_cluster


def check_writable(address: Address, option: str) -> None:
    """Refuse a file or folder that could not be created, before work is spent on it."""
    text = plain(address)
    folder, _ = file_at(text if is_url(text) else Path(text).absolute())
    try:
        folder.check_writable()
    except StoreError:  # which says what to do
        raise
    except OSError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def check_output(address: Address, option: str) -> None:
    """The same for a folder of Zarr, which finds out itself whether it can be written to an object store."""
    if not is_url(plain(address)):
        check_writable(address, option)


def log(text: str) -> None:
    """Tell the person, not the next program in a pipe."""
    click.echo(text, err=True)
