"""Tables of text: every line a row, found by an index and parsed piece by piece."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import gather

from dgmm import open_source
from dgmm.data import csv as module
from dgmm.data import csv_index
from dgmm.data.opening import open_convertible
from dgmm.data.source import iter_blocks
from dgmm.errors import InvalidData, InvalidParameter, ShapeMismatch, SourceNotFound, UnsupportedDtype

N = 2000
ROWS = np.random.default_rng(0).normal(size=(N, 3)) * [1, 1e5, 1e-7]
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"])


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(csv_index, "PIECE_BYTES", 300)
    monkeypatch.setattr(module, "BLOCK_BYTES", 100 * 24)


PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def wrote(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(path, **options):
    return gather(open_convertible(str(path), **options))


def test_a_fit_says_to_convert_first(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InvalidData, match=rf"dgmm convert {tmp_path}/t.csv OUT.zarr"):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_as_they_were_written(delimiter, header, end, tmp_path, small_pieces):
    FRAME.to_csv(tmp_path / "t.csv", index=False, sep=delimiter, header=header, lineterminator=end)
    source = open_convertible(str(tmp_path / "t.csv"))
    assert (source.n_rows, source.feature_names) == (N, ("a", "b", "c") if header else ())
    assert not source.local
    assert np.diff(source.bounds).max() <= 100
    np.testing.assert_array_equal(gather(source), ROWS)


@settings(max_examples=15)
@given(
    cuts=st.lists(st.integers(1, N - 1), max_size=6),
    piece=st.integers(200, 20_000),
    text=st.sampled_from(["plain", "no last line end", "blank lines at the end", "byte order mark", "quotes"]),
    packed=st.sampled_from(sorted(PACKED)),
)
def test_any_pieces_and_bounds(cuts, piece, text, packed, tmp_path):
    content = FRAME.to_csv(index=False, quoting=1 if text == "quotes" else 0).encode()
    content = {
        "no last line end": content[:-1],
        "blank lines at the end": content + b"\n\r\n\n",
        "byte order mark": b"\xef\xbb\xbf" + content,
    }.get(text, content)
    path = wrote(tmp_path / f"t.csv{packed}", PACKED[packed](content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_index, "PIECE_BYTES", piece)
        source = open_convertible(str(path))
        assert source.feature_names == ("a", "b", "c")
        np.testing.assert_array_equal(gather(source), ROWS)
        np.testing.assert_array_equal(gather(source.rows(np.array([0, *sorted(set(cuts)), N]))), ROWS)


def test_what_numpy_writes(tmp_path):
    np.savetxt(tmp_path / "t.txt", ROWS)
    np.testing.assert_allclose(values(tmp_path / "t.txt"), ROWS, rtol=1e-15)
    np.savetxt(tmp_path / "t.tsv", ROWS, header="a\tb\tc", delimiter="\t")
    assert open_convertible(str(tmp_path / "t.tsv")).feature_names == ("a", "b", "c")


def test_missing_values_are_nan(tmp_path):
    text = "a,b\n1,\nNA,2\nNaN, 3\n nan,NULL\n+4,-5e3\n1e400,-inf\n"
    expected = [[1, np.nan], [np.nan, 2], [np.nan, 3], [np.nan, np.nan], [4, -5000], [np.inf, -np.inf]]
    np.testing.assert_array_equal(values(wrote(tmp_path / "t.csv", text)), expected)
    np.testing.assert_array_equal(
        values(wrote(tmp_path / "t.csv", "a\tb\n1\t\n\t\n")), [[1, np.nan], [np.nan] * 2]
    )


def test_chosen_columns_and_others(tmp_path, small_pieces):
    FRAME.assign(name="x, y", day="2020-01-01").to_csv(tmp_path / "t.csv", index=False)
    source = open_convertible(str(tmp_path / "t.csv"), variables=["c", "a"])
    assert source.feature_names == ("c", "a")
    np.testing.assert_array_equal(gather(source), ROWS[:, [2, 0]])
    with pytest.raises(UnsupportedDtype, match=r"2 of 5 columns .*: name \('x, y' in line 2\), day \('2020"):
        open_convertible(str(tmp_path / "t.csv"))
    with pytest.raises(InvalidParameter, match="no column 'd'"):
        open_convertible(str(tmp_path / "t.csv"), variables=["d"])
    FRAME.to_csv(tmp_path / "t.csv")
    with pytest.raises(InvalidParameter, match=r"Column 1 of .* has no name .*pandas"):
        open_convertible(str(tmp_path / "t.csv"))
    assert values(tmp_path / "t.csv", variables="a").shape == (N, 1)
    FRAME.to_csv(tmp_path / "t.csv", index=False, header=False)
    with pytest.raises(InvalidParameter, match="has no header"):
        open_convertible(str(tmp_path / "t.csv"), variables=["a"])
    wrote(tmp_path / "t.csv", "a,a\n1,2\n")
    with pytest.raises(InvalidParameter, match="2 columns called 'a'"):
        open_convertible(str(tmp_path / "t.csv"))


def test_lines_longer_than_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_index, "PIECE_BYTES", 10_000)
    rows = np.random.default_rng(0).normal(size=(20, 3000))
    pd.DataFrame(rows).add_prefix("column ").to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(values(tmp_path / "t.csv"), rows)


def test_a_folder_and_a_pattern(tmp_path):
    (tmp_path / "t").mkdir()
    for number, (start, stop) in enumerate([(0, 700), (700, 701), (701, N)]):
        FRAME[start:stop].to_csv(tmp_path / "t" / f"{number}.csv", index=False)
    for address in (tmp_path / "t", f"{tmp_path}/t/*.csv"):
        np.testing.assert_array_equal(values(address), ROWS)
    source = open_convertible(str(tmp_path / "t"))
    assert source.locate(702, 1) == f"line 3 of {tmp_path}/t/2.csv, row 702, feature 1 (b)"
    FRAME[["a", "c", "b"]].to_csv(tmp_path / "t" / "3.csv", index=False)
    with pytest.raises(InvalidData, match=r"0.csv has 3 columns .*called a, b, c, but .*3.csv has .*a, c, b"):
        open_convertible(str(tmp_path / "t"))
    with pytest.raises(SourceNotFound):
        open_convertible(f"{tmp_path}/*.csv")
    (tmp_path / "notes").mkdir()
    wrote(tmp_path / "notes" / "README.txt", "what it is")
    with pytest.raises(InvalidData, match=r"a folder with 1 entries \(README.txt\)"):
        open_convertible(str(tmp_path / "notes"))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("1,x,3", r"Line {n} of .*t.csv has 'x' in column b; expected a number"),
        ("1,2_000,3", r"Line {n} of .* has '2_000' in column b"),
        ("1,2", r"Line {n} of .* has 2 fields between ',', expected 3"),
        ("1,2,3,4", r"Line {n} of .* has 4 fields"),
        ("", r"Line {n} of .* is blank"),
        ("\r", r"Line {n} of .* is blank"),
        ('1,"2\n",3', r"Line {n} of .* breaks within quotes"),
    ],
)
@pytest.mark.parametrize("at", [100, N - 1])
def test_a_line_that_is_no_row_is_named(line, text, at, tmp_path, small_pieces):
    lines = FRAME.to_csv(index=False).splitlines()
    path = wrote(tmp_path / "t.csv", "\n".join([*lines[:at], line, *lines[at:]]) + "\n")
    with pytest.raises(InvalidData, match=text.format(n=at + 1)):
        values(path)
    wrote(path, "\n".join([*lines[1:at], line, *lines[at:]]) + "\n")
    with pytest.raises(InvalidData, match=text.format(n=at).replace("column b", "column number 2")):
        values(path)


def test_a_value_in_the_first_piece_that_is_no_number(tmp_path):
    path = wrote(tmp_path / "t.csv", "a,b\n1,2\n3,x\n")
    for variables in (None, ["b"]):
        with pytest.raises(UnsupportedDtype, match=r"1 of 2 columns .*: b \('x' in line 3\)"):
            open_convertible(str(path), variables=variables)
    path = wrote(path, "1,2\n3,x\n")
    with pytest.raises(UnsupportedDtype, match=r"number 2 \('x' in line 2\)"):
        open_convertible(str(path))


def test_what_is_no_table(tmp_path):
    for content, error, text in (
        ("", InvalidData, "is empty"),
        ("\n1,2\n", InvalidData, "begins with a blank line"),
        ("a,b\n", ShapeMismatch, "0 sample"),
        (FRAME.to_csv().encode("utf-16"), InvalidData, "null bytes"),
        ("1,5;2,5\n3,5;4,5\n", UnsupportedDtype, r"5;2 \('5;4' in line 2\)"),  # decimal commas
    ):
        with pytest.raises(error, match=text):
            open_convertible(str(wrote(tmp_path / "t.csv", content)))
    wrote(tmp_path / "t.csv.zst", b"\x28\xb5\x2f\xfd")
    with pytest.raises(InvalidData, match=r"another way than .gz, .bz2, .xz. Decompress it"):
        open_convertible(str(tmp_path / "t.csv.zst"))


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
def test_compressed_text(packed, tmp_path, small_pieces):
    content = FRAME.to_csv(index=False).encode()
    path = wrote(tmp_path / f"t.CSV{packed}", PACKED[packed](content))
    with pytest.raises(InvalidData, match="Convert it once"):
        open_source(path)
    source = open_convertible(str(path))
    assert source.fingerprint() == open_convertible(str(path)).fingerprint()
    # Each task reaches its blocks from the beginning of the file: better few of them.
    assert source.n_blocks <= source.run_length < 2 * source.n_blocks
    assert source.rows(np.array([0, 500, 1500, N])).run_length == 4
    assert source.locate(17, 1) == f"line 19 of {path}, row 17, feature 1 (b)"
    np.testing.assert_array_equal(source.read(1200, 1300), ROWS[1200:1300])
    (tmp_path / "t").mkdir()
    for number, (start, stop) in enumerate([(0, 700), (700, N)]):
        part = FRAME[start:stop].to_csv(index=False).encode()
        wrote(tmp_path / "t" / f"{number}.csv{packed if number else ''}", PACKED[packed](part) if number else part)
    wrote(tmp_path / "t" / f"2.csv{packed}", PACKED[packed](b"a,b,c\n"))
    np.testing.assert_array_equal(values(tmp_path / "t"), ROWS)
    np.testing.assert_array_equal(values(f"{tmp_path}/t/*.csv*"), ROWS)
    assert open_convertible(str(tmp_path / "t")).run_length < source.run_length


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("fault", ["cut", "altered", "not compressed"])
def test_damaged_compressed_text_is_named(packed, fault, tmp_path):
    content = FRAME.to_csv(index=False).encode()
    stored = bytearray(PACKED[packed](content))
    if fault == "cut":
        del stored[-20:]
    elif fault == "altered":
        stored[len(stored) // 2] ^= 1
    else:
        stored = bytearray(content)
    path = wrote(tmp_path / f"t.csv{packed}", bytes(stored))
    with pytest.raises(InvalidData, match=rf"t.csv{packed} cannot be decompressed: .* restore it"):
        open_convertible(str(path))


def test_text_in_other_encodings_may_stand_in_other_columns(tmp_path):
    path = wrote(tmp_path / "t.csv", "a,n\n1,Z\xfcrich\n2,Bern\n".encode("latin-1"))
    np.testing.assert_array_equal(values(path, variables="a"), [[1], [2]])


def test_quotes_may_hold_delimiters_and_quotes(tmp_path, small_pieces):
    names = ['"', "a,b", 'say ""x""', ""] * (N // 4)
    FRAME.assign(name=names).to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(values(tmp_path / "t.csv", variables=["a", "b", "c"]), ROWS)


def test_no_more_text_than_planned_is_parsed_at_once(tmp_path, monkeypatch, small_pieces):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    source = open_convertible(str(tmp_path / "t.csv"))
    parsed, sizes = module.CsvSource._parsed, []

    def recording(self, text, *args, **kwargs):
        sizes.append(len(text))
        return parsed(self, text, *args, **kwargs)

    monkeypatch.setattr(module.CsvSource, "_parsed", recording)
    for bounds in (source.bounds, np.arange(0, N + 1, 500)):
        sizes.clear()
        other = source.rows(bounds)
        np.testing.assert_array_equal(gather(other), ROWS)
        assert 0 < 3 * max(sizes) < other.read_bytes < 50 * 500 * 24


def test_a_leaf_carries_its_own_pieces_alone(tmp_path, monkeypatch, small_pieces):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    source = open_convertible("t.csv")
    part = pickle.dumps(source.block_input(3, 4))
    assert len(part) < 2500
    monkeypatch.chdir("/")
    (block,) = iter_blocks(pickle.loads(part))
    np.testing.assert_array_equal(block.rows, ROWS[block.first : block.first + block.length])


def test_a_change_is_noticed_and_tells_in_the_fingerprint(tmp_path):
    path = tmp_path / "t.csv"
    FRAME.to_csv(path, index=False)
    source = open_convertible(str(path))
    assert open_convertible(str(path), variables=["b", "a", "c"]).fingerprint() != source.fingerprint()
    FRAME.to_csv(path, index=False, mode="a", header=False)
    assert open_convertible(str(path)).fingerprint() != source.fingerprint()
    with pytest.raises(InvalidData, match="has changed since it was opened"):
        gather(source)
