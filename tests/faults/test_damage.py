"""Every damage to a file is found, and a file that was made to deceive raises our errors only, fast and small.

Damaged are the golden files: a change of the format comes with new ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import tell
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm.cli.info import info
from dgmm.engine import archive, record
from dgmm.engine.model import Model
from dgmm.errors import CorruptFile, DgmmError, DgmmWarning, FileError

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())[-1]
FILES = sorted(
    path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.suffix in {".npz", ".dgmm"}
)
FEW = ("fit/iteration-000004.npz", "full.dgmm")
SIZES = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in FILES]


def kind_of(name: str) -> str:
    return "model" if name.endswith(".dgmm") else "checkpoint"


def is_found(content: bytes, kind: str) -> bool:
    try:
        archive.unpack(content, kind, "f")
    except CorruptFile:
        return True
    return False


@pytest.mark.parametrize("name", SIZES)
def test_every_flipped_bit_is_found(name):
    content, kind = bytearray((GOLDEN / name).read_bytes()), kind_of(name)
    archive.unpack(bytes(content), kind, "f")
    for position in range(len(content)):
        for bit in range(8):
            content[position] ^= 1 << bit
            assert is_found(bytes(content), kind), f"bit {bit} of byte {position}"
            content[position] ^= 1 << bit
    tell(f"a flipped bit of {name}", 8 * len(content), 8 * len(content))


@pytest.mark.parametrize("name", SIZES)
def test_every_truncation_and_every_addition_is_found(name):
    content, kind = (GOLDEN / name).read_bytes(), kind_of(name)
    for size in range(len(content)):
        assert is_found(content[:size], kind), f"the first {size} bytes"
        for damaged in (content[len(content) - size :], content[:size] + bytes(len(content) - size)):
            with pytest.raises(FileError):
                archive.unpack(damaged, kind, "f")
    with pytest.raises(CorruptFile, match=f"f is damaged: its {len(content) + 1} bytes"):
        archive.unpack(content + b"\0", kind, "f")
    tell(f"a truncation of {name}, with zeros after it or not", 2 * len(content), 2 * len(content))


def members(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(GOLDEN / name) as file:
        return {member: file.read(member) for member in file.namelist()}


def resealed(body: bytes) -> bytes:
    """With a checksum that holds."""
    return body + b"sha256:" + archive.digest(body).encode()


def packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content)
        file.comment = bytes(71)
    return resealed(buffer.getvalue()[:-71])


NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 10**12, 2**63, 1e308])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.sampled_from(["full", "tied", "O", "V0"])
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something is in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, below in inside for place in places(below, (*above, key)))][bool(not above) :]


def mutated_header(draw: Callable[..., Any], text: bytes) -> bytes:
    """A header with entries that are others, or gone."""
    header = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(places(header)))
        inner = header
        for key in above:
            inner = inner[key]
        if draw(st.booleans()):
            inner[last] = draw(VALUES)
        else:
            del inner[last]
        if not places(header):
            break
    return json.dumps(header).encode()


DTYPES = st.sampled_from(
    ["<f8", "<f4", ">f8", "<i8", "|b1", "<c16", "<U3", "|S0", "|V0", "<M8[s]", "|O", [("a", "<f8")]]
)
SHAPES = st.lists(st.integers(0, 3) | st.sampled_from([-1, 2**40, 10**18]), max_size=3).map(tuple)


def mutated_array(draw: Callable[..., Any], content: bytes) -> bytes:
    """An array of another type or shape, or with other values, in as many bytes or more."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if draw(st.booleans()):
        values = array.ravel().copy()
        other = draw(st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1e300, 5e-324]))
        with np.errstate(over="ignore"):  # of float32
            values[draw(st.integers(0, max(0, values.size - 1))) : None : 3] = other
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, values.reshape(array.shape) if draw(st.booleans()) else values)
        return buffer.getvalue()
    header = {"descr": draw(DTYPES), "fortran_order": draw(st.booleans()), "shape": draw(SHAPES)}
    text = repr(header).encode() + b"\n"
    return (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + draw(st.sampled_from([b"", array.tobytes()]))
    )


@st.composite
def deceiving(draw: Callable[..., Any], names: list[str]) -> tuple[str, bytes]:
    """The name of a golden file, and what it could be replaced with by somebody who knows the format."""
    name = draw(st.sampled_from(names))
    how = draw(st.sampled_from(["header", "header", "array", "member", "bytes"]))
    parts = members(name)
    if how == "bytes":
        body = bytearray((GOLDEN / name).read_bytes()[:-71])
        for _ in range(draw(st.integers(1, 4))):
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
        return name, resealed(bytes(body))
    if how == "header":
        parts["header.json"] = mutated_header(draw, parts["header.json"])
    else:
        member = draw(st.sampled_from(sorted(parts.keys() - {"header.json"}) or ["header.json"]))
        if how == "member" or member == "header.json":
            del parts[member]
        else:
            parts[member] = mutated_array(draw, parts[member])
    return name, packed(parts)


def bounded(size: int, read: Callable[[], Any]) -> None:
    """Read something; only an error of ours may come of it, within a second and a multiple of its size."""
    most = 64 * size + 2**22  # an E-step's buffers
    peak, seconds = cost(read)
    if (
        peak >= most
    ):  # the interpreter's table of interned names doubles now and then: what a file costs, it costs again
        peak, seconds = cost(read)
    assert peak < most
    assert seconds < 1


def cost(read: Callable[[], Any]) -> tuple[int, float]:
    """Bytes at the peak and seconds that reading something takes."""
    began = time.process_time()
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DgmmWarning)
            read()
    except DgmmError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, time.process_time() - began


def shown(path: Path) -> None:
    """What ``dgmm info`` says, to people and to programs."""
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        for options in ([], ["--json"]):
            info.main([str(path), *options], standalone_mode=False)


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """What is imported when first needed is not memory that a file takes."""
    for path in (GOLDEN / "fit", GOLDEN / "selection", GOLDEN / "full.dgmm"):
        shown(path)


EXAMPLES = [50, pytest.param(1_000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.long)]


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_deceiving_model_raises_our_errors_only(tmp_path, examples):
    rows = np.load(GOLDEN / "rows.npy").astype(float)
    path = tmp_path / "model.dgmm"

    def read() -> None:
        model = Model.load(path)
        with np.errstate(all="ignore"):  # absurd numbers have absurd densities, which harm nobody
            model.in_data_units()
            list(model.e_step().posterior(rows))
        shown(path)

    @settings(max_examples=examples)
    @given(deceiving([name for name in FILES if kind_of(name) == "model"]))
    def deceive(of):
        path.write_bytes(of[1])
        bounded(len(of[1]), read)

    deceive()
    tell("a model file made to deceive", examples, examples)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_deceiving_checkpoint_raises_our_errors_only(tmp_path, examples):
    for name in ("fit", "accelerated", "selection"):
        shutil.copytree(GOLDEN / name, tmp_path / name)

    @settings(max_examples=examples)
    @given(deceiving([name for name in FILES if kind_of(name) == "checkpoint"]))
    def deceive(of):
        path = tmp_path / of[0]
        sound = path.read_bytes()
        path.write_bytes(of[1])
        try:
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            bounded(size, lambda: record.read(path.parent))
            bounded(size, lambda: shown(path.parent))
        finally:
            path.write_bytes(sound)

    deceive()
    tell("a checkpoint file made to deceive", examples, examples)


OTHERS = (None, [], {}, "x", -1, 0.5)


@pytest.mark.parametrize("name", ["fit", "selection"])
def test_an_identity_that_all_files_agree_on_may_be_wrong_too(tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    content = {path: members(f"{name}/{path.name}") for path in folder.glob("*.npz")}
    sound = json.loads(next(iter(content.values()))["header.json"])["identity"]
    refused = set()
    for key in sound:
        without = {other: value for other, value in sound.items() if other != key}
        for identity in (without, *({**without, key: value} for value in OTHERS)):
            for path, parts in content.items():
                header = json.loads(parts["header.json"]) | {"identity": identity}
                path.write_bytes(packed(parts | {"header.json": json.dumps(header).encode()}))
            try:
                shown(folder)
            except CorruptFile:
                refused.add(key)
    assert refused >= {"n_init", "seed"} | ({"candidates", "criterion", "holdout"} & sound.keys())
    assert refused >= {"n_components", "covariance_type"} & sound.keys()


def test_an_empty_identity_is_none(tmp_path):
    folder = tmp_path / "fit"
    folder.mkdir()
    parts = members("fit/scan.npz")
    header = json.loads(parts["header.json"]) | {"identity": {}}
    (folder / "scan.npz").write_bytes(packed(parts | {"header.json": json.dumps(header).encode()}))
    with pytest.raises(CorruptFile, match=r"whose n_init, seed, n_components, covariance_type no fit has.*remove"):
        shown(folder)
