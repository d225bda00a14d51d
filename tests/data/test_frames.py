"""Tables in memory and data frames of Dask: columns become features, and keep their names."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import gather

from dgmm import GaussianMixture, open_source
from dgmm.data.opening import open_weights
from dgmm.errors import InvalidData, InvalidParameter, NonFiniteData, UnsupportedDtype

N = 400
ROWS = np.random.default_rng(0).normal(size=(N, 3)) + np.repeat([[0], [6]], N // 2, axis=0)
FRAME = pd.DataFrame({**dict(zip("abc", ROWS.T, strict=True)), "name": "x", "w": np.arange(N) / N})


def as_pandas(frame):
    return frame


def as_polars(frame):
    return pl.DataFrame({name: frame[name].to_numpy() for name in frame})


def as_arrow(frame):
    return pa.table({name: pa.array(frame[name].to_numpy(), from_pandas=True) for name in frame})


def as_dask(frame):
    return dd.from_pandas(frame, npartitions=7)


def unknown_partitions(frame):
    """Of lengths that are known once they are computed, some of them 0."""
    frame = pd.concat([frame.assign(kept=True), frame.assign(kept=False)[:50]])
    parts = dd.from_pandas(frame.reset_index(drop=True), npartitions=23)
    return parts[parts["kept"]].drop(columns="kept")


KINDS = [as_pandas, as_polars, as_arrow, as_dask, unknown_partitions]


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_columns_are_the_features_in_their_order(kind):
    source = open_source(kind(FRAME), variables=["c", "a"])
    assert source.feature_names == ("c", "a")
    np.testing.assert_array_equal(gather(source), ROWS[:, [2, 0]])
    assert open_source(kind(FRAME[["a"]])).feature_names == ("a",)
    np.testing.assert_array_equal(gather(open_source(kind(FRAME), variables="b")), ROWS[:, [1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("variables", "error", "text"),
    [
        (["a", "wind"], InvalidParameter, "has no column 'wind'.* There are: a, b, c, name, w"),
        (["a", "nam"], InvalidParameter, "did you mean 'name'"),
        ([], InvalidParameter, "expected a name"),
        (["a", "a"], InvalidParameter, "'a' twice"),
        ([3], InvalidParameter, "expected a name"),
        (["a", "name"], UnsupportedDtype, "no (real )?numbers"),
        (None, UnsupportedDtype, "no (real )?numbers"),
    ],
)
def test_other_columns_are_refused(kind, variables, error, text):
    with pytest.raises(error, match=text):
        open_source(kind(FRAME), variables=variables)


@pytest.mark.parametrize("kind", KINDS)
def test_which_columns_are_no_numbers_is_said(kind):
    with pytest.raises(
        UnsupportedDtype, match=r"1 of 5 columns .*: name \((?i:str|object).*\)\. Choose .* \(--variables"
    ):
        open_source(kind(FRAME))
    for date, called in (
        (pd.Timestamp("2026-01-01"), "datetime|timestamp"),
        (pd.Timedelta("1h"), "timedelta|dur"),
    ):
        dated = kind(FRAME[["a"]].assign(b=2, when=date))
        with pytest.raises(UnsupportedDtype, match=rf"1 of 3 columns .*: when \((?i:{called})"):
            open_source(dated)


def test_complex_columns_are_refused():
    with pytest.raises(UnsupportedDtype, match=r"1 of 1 columns .* Convert them"):
        open_source(as_dask(FRAME[["a"]].astype(complex)))


@pytest.mark.parametrize("kind", [as_pandas, as_dask])
@pytest.mark.parametrize("dtype", ["Int64", "Float32", "boolean", "int64[pyarrow]"])
def test_missing_values_of_pandas_own_dtypes_are_missing(kind, dtype):
    values = pd.array([0, 1, None, 1] * 10, dtype=dtype)
    source = open_source(kind(pd.DataFrame({"a": values, "b": np.arange(40.0)})), missing="drop")
    with pytest.raises(NonFiniteData, match=r"row \d+, feature 0 \(a\)"):
        GaussianMixture(1).fit(open_source(source, missing="error"))
    assert GaussianMixture(1, random_state=0).fit(source).n_missing_ == 10


def test_float32_stays():
    frame = FRAME[["a", "b"]].astype("f4")
    for kind in KINDS:
        assert open_source(kind(frame)).dtype == np.float32
        assert open_source(kind(frame.assign(c=1))).dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_names_reach_the_model_and_are_checked(kind):
    table = kind(FRAME[["a", "b", "c"]])
    model = GaussianMixture(2, random_state=0).fit(open_source(table, missing="drop"))
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    labels = np.asarray(model.predict(table))
    np.testing.assert_array_equal(labels, model.predict(FRAME[["a", "b", "c"]]))
    with pytest.raises(InvalidData, match="feature 0 called 'b'"):
        model.predict(open_source(table, variables=["b", "a", "c"]))


def test_dask_weights_of_the_same_partitions():
    frame = unknown_partitions(FRAME)
    source = open_source(frame, variables=["a", "b"])
    weights = open_weights(frame["w"], source)
    assert weights.bounds.tolist() == source.bounds.tolist()
    np.testing.assert_array_equal(gather(weights)[:, 0], FRAME["w"])
    with pytest.raises(UnsupportedDtype):
        open_weights(frame["name"], source)


@settings(max_examples=5)
@given(parts=st.integers(1, 40), kept=st.integers(0, 2**20))
def test_a_fit_does_not_depend_on_partitions(parts, kept):
    """Of any lengths, some of them 0, unknown until they are computed."""
    start = {"weights_init": [0.5, 0.5], "means_init": [[0] * 3, [6] * 3], "precisions_init": [np.eye(3)] * 2}
    frame = FRAME[["a", "b", "c"]].assign(kept=np.random.default_rng(kept).random(N) < 0.7)
    frame.loc[:3, "kept"] = True
    filtered = dd.from_pandas(frame, npartitions=parts)
    filtered = filtered[filtered["kept"]].drop(columns="kept")
    rows = ROWS[frame["kept"]]
    found, expected = (
        GaussianMixture(2, random_state=0, sample_size=100, **start).fit(data) for data in (filtered, rows)
    )
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10)


def test_a_table_has_no_dimensions():
    for kind in KINDS:
        with pytest.raises(InvalidParameter, match="is a table: it has no dimension depth"):
            open_source(kind(FRAME), feature_dims="depth")
