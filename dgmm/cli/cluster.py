"""``dgmm cluster check | run``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import dask
from dask.utils import format_bytes

from dgmm.cli.options import Reading, describe_client, json_option, log, reading_options, set_option
from dgmm.cli.table import show
from dgmm.clusters.config import load_cluster, parse_setting
from dgmm.clusters.schema import Cluster, Processes
from dgmm.clusters.start import client_of, describe
from dgmm.engine.keeping import Keeping
from dgmm.engine.memory import check_plan, fit_plan
from dgmm.engine.scheduler import Process
from dgmm.estimator import GaussianMixture
from dgmm.mixture.covariance import COVARIANCE_TYPES

_file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def cluster() -> None:
    """Try the file of a cluster: what it would submit, and whether it works."""


@cluster.command()
@_file_argument
@click.argument("data", required=False)
@click.option("-k", "--n-components", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--covariance-type", default="full", show_default=True, type=click.Choice(list(COVARIANCE_TYPES)))
@set_option
@reading_options
@json_option
def check(
    file: Path,
    data: str | None,
    n_components: int,
    covariance_type: str,
    settings: Sequence[str],
    reading: Reading,
    *,
    as_json: bool,
) -> None:
    """Print what the cluster of FILE would submit, without submitting it.

    With DATA, the memory that a fit of those rows needs is compared with what a worker has.
    """
    described = load_cluster(file, dict(map(parse_setting, settings)))
    available = _memory_per_thread(described)
    facts: dict[str, Any] = {"kind": described.kind, "submitted": describe(described), "thread_bytes": available}
    limit = "what its machine has" if available is None else format_bytes(available)
    lines = [f"{file}: a {described.kind} cluster", facts["submitted"], f"memory of a worker thread: {limit}"]
    if data is None:
        show(facts, "\n".join(lines), as_json=as_json)
    else:
        mixture = GaussianMixture(n_components, covariance_type=covariance_type)
        source, _ = mixture._open(reading.open(data))
        of_fit, _ = mixture._settings(source)
        sample_rows = of_fit.sample_rows(source)
        plan = fit_plan(source, None, [(of_fit.n_components, of_fit.covariance)], sample_rows)
        planned = check_plan(None, plan, source)
        workers, kept = described.workers, 0
        if isinstance(workers, Processes):
            kept = Keeping(source).plan([Process(workers.threads, workers.memory)], planned, sample_rows)
        facts |= {"data": data, "planned_bytes": planned, "kept_bytes": kept}
        lines.append(
            f"needed for {source.n_rows:,} x {source.n_features} rows of {data}, {n_components} components "
            f"({covariance_type}): {format_bytes(planned)}"
        )
        if kept:
            size = source.n_rows * source.n_features * source.dtype.itemsize
            lines.append(
                f"a worker keeps up to {format_bytes(kept)} of the data between passes, which are "
                f"{format_bytes(size)} once decoded"
            )
        show(facts, "\n".join(lines), as_json=as_json)
        check_plan(available, plan, source)


def _memory_per_thread(described: Cluster) -> int | None:
    workers = described.workers
    if not isinstance(workers, Processes) or workers.memory is None:
        return None
    return workers.memory // workers.threads


@cluster.command()
@_file_argument
@set_option
@json_option
def run(file: Path, settings: Sequence[str], *, as_json: bool) -> None:
    """Start the cluster of FILE, fit a few rows there, and end it: a smoke test.

    The rows are made by the workers, so no path has to be reachable from them.
    """
    described = load_cluster(file, dict(map(parse_setting, settings)))
    began = time.monotonic()
    with client_of(described) as client:
        log(f"started in {time.monotonic() - began:.1f} s, {describe_client(client, described)}")
        there = _fitted()
        workers = client.scheduler_info(n_workers=-1)["workers"]
        hosts = sorted({str(worker["host"]) for worker in workers.values()})
        joined = len(workers)
    seconds = time.monotonic() - began
    with dask.config.set(scheduler="synchronous"):
        same = _fitted() == there
    facts = {"workers": joined, "hosts": hosts, "same_bits": same, "seconds": round(seconds, 3)}
    bits = "the same bits as here" if same else "other bits than here: other processors or library versions"
    show(
        facts, f"works: {joined} worker(s) on {', '.join(hosts)}, {bits}, {seconds:.1f} s in all", as_json=as_json
    )


def _fitted() -> bytes:
    import dask.array as da

    noise = da.random.default_rng(0).standard_normal((20_000, 4), chunks=(2_500, 4))
    rows = noise + 6.0 * (da.arange(20_000, chunks=2_500) % 3)[:, None]
    mixture = GaussianMixture(3, random_state=0, sample_size=2_000).fit(rows)
    return bytes(mixture._model.parameters.covariances.tobytes())
