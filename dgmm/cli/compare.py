"""``dgmm compare``."""

from __future__ import annotations

from typing import Any

import click

from dgmm.cli.options import FileAddressType, check_writable, json_option
from dgmm.cli.table import aligned, finite, show
from dgmm.engine import archive
from dgmm.engine.model import Model
from dgmm.errors import ShapeMismatch
from dgmm.mixture.criteria import aic, bic

_CRITERIA = ("bic", "aic")
_COLUMNS = (
    ("K", "n_components", "d"), ("type", "covariance_type", "s"), ("log-likelihood", "log_likelihood", ".6f"),
    ("BIC", "bic", ".1f"), ("AIC", "aic", ".1f"), ("model", "path", "s"),
)  # fmt: skip


@click.command()
@click.argument("models", nargs=-1, required=True, type=FileAddressType())
@click.option(
    "--criterion", type=click.Choice(_CRITERIA), default="bic", show_default=True, help="Lower is better."
)
@click.option(
    "--best", "best_file", metavar="OUT", type=FileAddressType(),
    help="Where a copy of the best model goes.",
)  # fmt: skip
@json_option
def compare(models: tuple[str, ...], criterion: str, best_file: str | None, *, as_json: bool) -> None:
    """Rank MODELS that were fitted to the same rows: those of a job array, say.

    The log-likelihood is what the last iteration of each fit found, so no pass over the data is needed.
    """
    if best_file is not None:
        check_writable(best_file, "--best")
    found = sorted((_judged(path) for path in models), key=lambda facts: (facts[criterion], facts["path"]))
    best, *others = found
    for facts in others:
        if facts["same"] != best["same"]:
            msg = (
                f"{facts['path']} was fitted to {facts['same']}, {best['path']} to {best['same']}: criteria "
                "compare only models of the same rows. Leave one of them out."
            )
            raise ShapeMismatch(msg)
    if best_file is not None:
        archive.write(best_file, archive.content(best["path"]))
    rows = [[title for title, _, _ in _COLUMNS] + [""]]
    rows += [[format(facts[name], form) for _, name, form in _COLUMNS] + [facts["remark"]] for facts in found]
    copied = f"; copied to {best_file}" if best_file else ""
    lines = [*(line.rstrip() for line in aligned(rows)), "", f"lowest {criterion.upper()}: {best['path']}{copied}"]
    shown = [{name: finite(value) for name, value in facts.items() if name != "same"} for facts in found]
    show({"best": best["path"], "models": shown}, "\n".join(lines), as_json=as_json)


def _judged(path: str) -> dict[str, Any]:
    model = Model.load(path)
    parameters = model.parameters
    if not (model.history and model.weight):
        msg = f"{path} has no log-likelihood: it was made from another model, not fitted by dgmm"
        raise ShapeMismatch(msg)
    total = model.history[-1] * model.weight
    return {
        "path": path,
        "n_components": parameters.n_components,
        "covariance_type": parameters.covariance.name,
        "log_likelihood": model.history[-1],
        "bic": bic(total, parameters.n_parameters, model.weight),
        "aic": aic(total, parameters.n_parameters),
        "converged": model.converged,
        "seed": model.settings.get("seed"),
        "remark": "" if model.converged else "not converged",
        "same": f"{model.n_rows:,} rows of {parameters.n_features} features and total weight {model.weight:g}",
    }
