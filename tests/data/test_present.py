"""Rows that miss no value, closed up; and some columns of a source."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import gather

from dgmm import open_source
from dgmm.data.chosen_columns import ChosenColumns
from dgmm.data.present import PresentSource
from dgmm.errors import InvalidData, InvalidParameter

N = 600


def with_holes(share, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, 3))
    rows[rng.random(N) < share, rng.integers(3)] = np.nan
    return rows


def present(rows, bounds):
    source = open_source(rows, missing="drop").rows(np.array(bounds))
    counts = [int((~np.isnan(rows[a:b]).any(axis=1)).sum()) for a, b in pairwise(bounds)]
    return PresentSource(source, counts)


def cuts(n):
    return st.lists(st.integers(1, n - 1), max_size=8).map(lambda inner: [0, *sorted(set(inner)), n])


@settings(max_examples=40)
@given(data=st.data(), share=st.floats(0, 0.98), seed=st.integers(0, 100), stored=cuts(N), step=st.integers(1, 4))
def test_they_are_the_rows_without_the_others(data, share, seed, stored, step):
    rows = with_holes(share, seed)
    expected = rows[~np.isnan(rows).any(axis=1)]
    source = present(rows, stored)
    np.testing.assert_array_equal(gather(source, step), expected)
    if len(expected) > 1:
        np.testing.assert_array_equal(
            gather(source.rows(np.array(data.draw(cuts(len(expected))))), step), expected
        )


def test_a_part_pickles_without_the_rest():
    rows = with_holes(0.3)
    source = present(rows, list(range(0, N + 1, 100)))
    part = source.rows(source.bounds[2:4])
    assert len(pickle.dumps(part)) < 100 * 24 + 4000
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(part)).read(*source.bounds[2:4].tolist()),
        gather(source)[source.bounds[2] : source.bounds[3]],
    )


def test_what_changed_since_the_count_is_noticed():
    rows = with_holes(0.3)
    source = present(rows, [0, 300, N])
    rows[310] = np.nan if not np.isnan(rows[310]).any() else 1
    with pytest.raises(InvalidData, match="rows 300:600 of array have changed since"):
        gather(source)


def test_none_left():
    with pytest.raises(InvalidData, match="each of the 600 rows of array has a missing value"):
        present(np.full((N, 3), np.nan), [0, N])


@settings(max_examples=20)
@given(bounds=cuts(N), columns=st.permutations("abc"))
def test_columns_of_a_source(bounds, columns, tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(N, 3))
    array = zarr.create_array(tmp_path_factory.mktemp("x") / "x.zarr", data=rows, chunks=(70, 3))
    source = open_source(array)
    source.feature_names = ("a", "b", "c")
    wanted = columns[:2]
    some = ChosenColumns(source, wanted).rows(np.array(bounds))
    assert (some.feature_names, some.n_features) == (tuple(wanted), 2)
    np.testing.assert_array_equal(gather(some), rows[:, ["abc".index(name) for name in wanted]])
    assert f"feature {'abc'.index(wanted[1])} ({wanted[1]})" in some.locate(3, 1)
    assert some.fingerprint() != ChosenColumns(source, wanted[::-1]).fingerprint()
    np.testing.assert_array_equal(gather(some.sibling(columns[2]))[:, 0], rows[:, "abc".index(columns[2])])
    assert some.sibling("d") is None
    with pytest.raises(InvalidParameter, match="no column 'd'"):
        ChosenColumns(source, ["d"])
