"""The command that makes a model again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dgmm.engine.model import Model
from dgmm.engine.origin import Choice
from dgmm.estimator import GaussianMixture

_DEFAULTS = {name: p.default for name, p in inspect.signature(GaussianMixture).parameters.items()}
# Parameters that are options of `dgmm fit`, and of them those that `dgmm select` lacks.
_SETTINGS = (
    "n_init", "n_finalists", "init_params", "sample_size", "tol", "max_iter", "max_passes", "reg_covar",
    "reg_relative", "standardize", "accelerate",
)  # fmt: skip
_OF_ONE = ("n_finalists", "accelerate")
_WIDTH = 80
_GIVEN = {"weights": "weights_init", "means": "means_init", "covariances": "precisions_init"}


def command(model: Model, name: str) -> str:
    """A line for a shell, or lines of Python where one will not do: rows, weights or a start from memory, commas.

    Parameters
    ----------
    model : Model
    name : str
        Of the model file that it is to write.

    Returns
    -------
    str
        Empty of a model that was not fitted by dgmm.
    """
    origin = model.origin
    if not model.n_rows or "seed" not in model.settings:
        return ""
    if not origin.data or origin.weights == "" or origin.given or not _sayable(origin.opened_with):
        return "\n".join(_python(model, name))
    return _lines(list(_words(model, name)))


def _sayable(opened_with: Mapping[str, Any]) -> bool:
    """Whether names survive an option that has commas between them."""
    names = [name for value in opened_with.values() if isinstance(value, list) for name in value]
    return all(name and name == name.strip() and "," not in name for name in names)


def _changed(model: Model) -> dict[str, Any]:
    """Settings that are not the default."""
    of_one = () if model.origin.choice is None else _OF_ONE
    found = {name: model.settings[name] for name in _SETTINGS if name in model.settings and name not in of_one}
    return {name: value for name, value in found.items() if value != _DEFAULTS[name]}


def _words(model: Model, name: str) -> Iterator[str]:
    origin, choice = model.origin, model.origin.choice
    yield from ("dgmm", "fit" if choice is None else "select", origin.data)
    yield from _flags(origin.opened_with)
    if origin.weights:
        yield from ("--weights", origin.weights)
    if choice is None:
        parameters = model.parameters
        yield from ("-k", str(parameters.n_components), "--covariance-type", parameters.covariance.name)
    else:
        yield from ("--components", _ranges(_sizes(choice)), "--covariance-types", ",".join(_kinds(choice)))
        yield from ("--criterion", choice.criterion)
        yield from ("--holdout", str(choice.holdout)) if choice.holdout else ()
    yield from _flags(_changed(model))
    yield from ("--seed", str(model.settings["seed"]), "--model", name)


def _lines(words: Sequence[str]) -> str:
    """Words for a shell, an option a line where there are many."""
    options = [i for i, word in enumerate(words) if word.startswith("-")]
    parts = [shlex.join(words[first:last]) for first, last in pairwise([0, *options, len(words)])]
    whole = " ".join(parts)
    return whole if len(whole) <= _WIDTH else " \\\n  ".join(parts)


def _flags(named: Mapping[str, Any]) -> Iterator[str]:
    """Parameters as options of the command line."""
    for name, value in named.items():
        option = "feature-dim" if name == "feature_dims" else name.replace("_", "-")
        yield f"--no-{option}" if value is False else f"--{option}"
        if not isinstance(value, bool):
            yield ",".join(value) if isinstance(value, list) else str(value)


def _python(model: Model, name: str) -> Iterator[str]:
    origin, choice, parameters = model.origin, model.origin.choice, model.parameters
    rows = _call("dgmm.open_source", [repr(origin.data)], _spelled(origin.opened_with)) if origin.data else "rows"
    weights = (
        {} if origin.weights is None else {"sample_weight": repr(origin.weights) if origin.weights else "weights"}
    )
    settings = _spelled(_changed(model)) | {_GIVEN[part]: "..." for part in origin.given}
    settings["random_state"] = repr(model.settings["seed"])
    yield "import dgmm"
    yield ""
    if choice is None:
        kind = {"covariance_type": repr(parameters.covariance.name)}
        yield "model = " + _call("dgmm.GaussianMixture", [str(parameters.n_components)], kind | settings)
        yield _call("model.fit", [rows], weights)
        yield f"model.save({name!r})"
    else:
        contest = _spelled({"criterion": choice.criterion, "holdout": choice.holdout}) | weights | settings
        yield "found = " + _call("dgmm.select", [rows, repr(_sizes(choice)), repr(_kinds(choice))], contest)
        yield f"found.best.save({name!r})"


def _call(function: str, positional: Sequence[str], named: Mapping[str, str]) -> str:
    return f"{function}({', '.join([*positional, *(f'{name}={value}' for name, value in named.items())])})"


def _spelled(named: Mapping[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in named.items()}


def _sizes(choice: Choice) -> list[int]:
    return list(dict.fromkeys(entry.n_components for entry in choice.table))


def _kinds(choice: Choice) -> list[str]:
    return list(dict.fromkeys(entry.covariance_type for entry in choice.table))


def _ranges(sizes: Sequence[int]) -> str:
    """As in 1..4,6,8..9."""
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][-1] == size - 1:
            runs[-1].append(size)
        else:
            runs.append([size])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
