"""Imports run one way, and `import dgmm` is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dgmm

ROOT = Path(dgmm.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
# From the bottom up; a module may import from its own room and from those before it.
ROOMS = (
    *("errors", "mixture", "data", "engine", "clusters"),
    *("arguments", "interchange", "progress", "pages", "live", "summary", "fitted", "estimator"),
    *("selection", "plot", "reporting"),
)
LATER = ("cli", "demo", "__main__")  # what a person starts: may import everything


def room(name: str) -> int:
    parts = name.split(".")
    if len(parts) == 1:
        return 100  # the public names
    order = (*ROOMS, *LATER)
    assert parts[1] in order, f"{name} is in no room: add it to ROOMS where it belongs"
    return order.index(parts[1]) if parts[1] in ROOMS else 90


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path):
    """Every dgmm module that a file imports, inside functions too, and the line."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(
                    "."
                )
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, node.lineno


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_from_its_room_and_those_below(path):
    mine = room(module_name(path))
    for name, line in imports(path):
        if name.split(".")[0] != "dgmm" or mine == 100:
            continue
        if name == "dgmm.__version__" and mine == 90:
            continue
        assert room(name) <= mine, f"{path}:{line} imports {name}, which is above it"


FORBIDDEN = {
    "mixture": {"dask", "distributed", "zarr", "fsspec", "time", "datetime", "os", "pathlib", "io", "dgmm.data"},
    "data": {"distributed"},
}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_room_knows_only_what_it_is_for(path):
    parts = module_name(path).split(".")
    unwanted = FORBIDDEN.get(parts[1] if len(parts) > 1 else "", set())
    for name, line in imports(path):
        found = {name, *(name[:i] for i, c in enumerate(name) if c == ".")} & unwanted
        assert not found, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_the_data_room_reads_zarr_and_object_stores(path):
    parts = module_name(path).split(".")
    if "data" in parts[1:2] or parts[1:2] in (["cli"], ["demo"]):
        return
    for name, line in imports(path):
        assert name.split(".")[0] not in ("zarr", "obstore", "boto3"), f"{path}:{line} imports {name}"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import dgmm", ["distributed", "matplotlib", "sklearn", "pyarrow", "obstore"]),
        ("from dgmm import GaussianMixture, load", ["distributed", "matplotlib", "obstore"]),
        ("import dgmm.engine.sampled, dgmm.engine.likelihood", ["distributed", "sklearn"]),  # workers do
        ("import dgmm.selection", ["matplotlib"]),
        ("import dgmm.plot", ["matplotlib.pyplot", "xarray"]),
        (
            "import dgmm.cli.predict, dgmm.cli.score, dgmm.cli.info, dgmm.cli.sample",
            ["sklearn", "pyarrow", "obstore"],
        ),
    ],
)
def test_an_import_is_light(statement, unwanted):
    code = f"{statement}; import sys; print([m for m in {unwanted} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
