"""Reads and checks a cluster's YAML file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dgmm.clusters.schema import KINDS, SHELL_KEYS, Batch, Cluster, Part
from dgmm.errors import InvalidClusterFile

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})"
)
_TAGS = ("temporary", "files")


class _Loader(yaml.SafeLoader):
    """Without numbers to the base of 60: 12:00 would be 720, and 04:00 text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"[-+]?(0|[1-9][0-9_]*)$") if tag.endswith(":int") else pattern)
        for tag, pattern in resolvers
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_cluster(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Cluster:
    """Read a cluster file.

    ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` are environment variables, ``$$`` is a dollar sign. In the
    `prologue` and the `scratch` folder of batch jobs they are left to the shell of the job.

    Parameters
    ----------
    path : path
    overrides : mapping, optional
        Values in place of the file's: by dotted key (``workers.count``), or in nested mappings.

    Returns
    -------
    Cluster

    Raises
    ------
    InvalidClusterFile
        Naming the file, the key, and what is valid there.
    """
    values = _read(Path(path))
    for key, value in (overrides or {}).items():
        _put(values, key.split("."), value, key)
    where = f"{path} with what was set" if overrides else str(path)
    kind = values.get("kind")
    if kind not in KINDS:
        msg = f"{where}: {_no_kind(values)}"
        raise InvalidClusterFile(msg)
    model = KINDS[kind]
    shell = SHELL_KEYS if issubclass(model, Batch) else ()
    expanded = _expand(values, where, "", shell)
    try:
        return model.model_validate(expanded)
    except ValidationError as error:
        found = "; ".join(dict.fromkeys(_explain(detail, model) for detail in error.errors()))
        msg = f"{where}: {found}"
        raise InvalidClusterFile(msg) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``workers.count=20``; the value is YAML.

    Raises
    ------
    InvalidClusterFile
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        msg = f"{text!r} sets nothing; expected KEY=VALUE, such as workers.count=20"
        raise InvalidClusterFile(msg)
    try:
        return key, _parse(value)
    except yaml.YAMLError:
        msg = f"{key}: {value!r} is not YAML; put text with special characters in quotes"
        raise InvalidClusterFile(msg) from None


def _parse(text: str) -> Any:
    """Read YAML as `yaml.safe_load` does, but for numbers to the base of 60."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _parse(path.read_text())
    except FileNotFoundError:
        msg = f"there is no cluster file {path}; the repository's cluster-configs/ has one for each kind"
        raise InvalidClusterFile(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the cluster file {path} cannot be read: {error}"
        raise InvalidClusterFile(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {error}"
        raise InvalidClusterFile(msg) from None
    if not isinstance(values, dict):
        msg = f"{path} holds {_said(values)}; expected keys and values, such as 'kind: slurm'"
        raise InvalidClusterFile(msg)
    return values


def _put(values: dict[str, Any], keys: list[str], value: Any, whole: str) -> None:
    """Set a value deep in nested mappings; a mapping is merged with what is there."""
    first, *rest = keys
    if rest:
        inner = values.setdefault(first, {})
        if not isinstance(inner, dict):
            msg = f"{whole} cannot be set: {first} holds {_said(inner)}, not keys and values"
            raise InvalidClusterFile(msg)
        _put(inner, rest, value, whole)
    elif isinstance(value, Mapping) and isinstance(values.get(first), dict):
        for key, part in value.items():
            _put(values[first], [str(key)], part, f"{whole}.{key}")
    elif value is None:
        values.pop(first, None)
    else:
        values[first] = value


def _expand(value: Any, where: str, key: str, shell: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, where, f"{key}.{k}" if key else str(k), shell) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(part, where, key, shell) for part in value]
    if not isinstance(value, str) or key in shell:
        return value

    def variable(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["plain"] or match["name"]
        found = os.environ.get(name, match["default"])
        if found is None:
            msg = (
                f"{where}: {key} names the environment variable {name}, which is not set; set it, or give a "
                f"default as in ${{{name}:-value}}"
            )
            raise InvalidClusterFile(msg)
        return found

    return _VARIABLE.sub(variable, value)


def _no_kind(values: dict[str, Any]) -> str:
    expected = f"expected one of {', '.join(KINDS)}"
    if "kind" not in values:
        near = difflib.get_close_matches("kind", map(str, values), 1)
        return f"kind is missing{f' (found {near[0]!r})' if near else ''}; {expected}"
    return f"kind is {values['kind']!r}; {expected}{_near(values['kind'], KINDS)}"


def _near(word: object, known: Any) -> str:
    near = difflib.get_close_matches(str(word), list(map(str, known)), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _explain(detail: ErrorDetails, model: type[Part]) -> str:
    """One error of the file: the key, what was found, what is expected."""
    place = [part for part in detail["loc"] if part not in _TAGS]
    key = ".".join(map(str, place))
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        parent = _part_at(model, place[:-1])
        known = list(parent.model_fields) if parent else []
        return f"unknown key {key}{_near(place[-1], known)}; known here: {', '.join(known)}"
    if kind == "missing":
        return f"{key} is missing: {_described(model, place)}"
    reason = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return f"{key}: {reason}" if key else reason
    quote = "; put it in quotes" if kind == "string_type" and isinstance(found, int | float) else ""
    return f"{key} is {_said(found)}; expected {reason}{quote}"


def _parts(annotation: Any) -> Iterator[type[Part]]:
    """The mappings that a field's type allows."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _part_at(model: type[Part], place: list[int | str]) -> type[Part] | None:
    found: type[Part] | None = model
    for name in place:
        if found is not None and isinstance(name, str):
            field = found.model_fields.get(name)
            found = next(_parts(field.annotation), None) if field else None
    return found


def _described(model: type[Part], place: list[int | str]) -> str:
    parent = _part_at(model, place[:-1])
    field = parent.model_fields.get(str(place[-1])) if parent else None
    if field is None:
        return "expected a value"
    inner = next(_parts(field.annotation), None)
    return field.description or f"expected {', '.join(inner.model_fields) if inner else 'a value'}"


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
