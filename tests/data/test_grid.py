"""Variables on a grid as rows: whatever they are stored in, the rows are xarray's own, each chunk read once."""

import collections
import pickle
import sys

import dask
import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dgmm import GaussianMixture, open_source
from dgmm.data.opening import open_weights
from dgmm.data.source import iter_blocks
from dgmm.errors import (
    InvalidData,
    InvalidParameter,
    InvalidWeights,
    MissingChunks,
    MissingExtra,
    NonFiniteData,
    ShapeMismatch,
    UnsupportedDtype,
)

DIMS = ("time", "depth", "lat", "lon")


def ocean(missing=0.3, sizes=(6, 3, 8, 10), seed=0):
    """Temperatures on levels, a surface height, and a depth of the sea floor; some cells are land."""
    rng = np.random.default_rng(seed)
    t, d, y, x = sizes
    land = rng.random((y, x)) < missing
    temp = rng.normal(10, 3, sizes).astype("f4")
    temp[:, :, land] = np.nan
    ssh = np.where(land, np.nan, rng.normal(size=(t, y, x))).astype("f4")
    floor = np.where(land, np.nan, rng.random((y, x)) * 4000).astype("f4")
    coords = {
        "time": np.arange("2001-01", f"200{1 + t // 12}-{1 + t % 12:02}", dtype="M8[M]").astype("M8[ns]"),
        "depth": [5.0, 10.0, 20.5][:d],
        "lat": np.linspace(-70, 70, y),
        "lon": np.arange(x) * 36.0,
    }
    variables = {"temp": (DIMS, temp), "ssh": (("time", "lat", "lon"), ssh), "floor": (("lat", "lon"), floor)}
    return xarray.Dataset(variables, coords)


def expected(dataset, variables, feature_dims=("depth",)):
    """Rows in C order of time, lat, lon, as NumPy makes them."""
    columns, sizes = [], [dataset.sizes[dim] for dim in ("time", "lat", "lon")]
    for name in variables:
        whole = dataset[name].transpose(*feature_dims, "time", "lat", "lon", missing_dims="ignore").values
        if "depth" not in dataset[name].dims:
            whole = whole[None]
        whole = np.broadcast_to(whole if whole.ndim == 4 else whole[:, None], (len(whole), *sizes))
        columns += [level.ravel() for level in whole]
    return np.stack(columns, axis=1)


def gather(source):
    """All rows and their numbers, as leaf tasks see them."""
    received = [dask.delayed(source.block_input(b, b + 1)) for b in range(source.n_blocks)]
    leaf = dask.delayed(lambda parts: list(iter_blocks(parts)), pure=False)
    blocks = [b for bs in dask.compute(*map(leaf, received), scheduler="synchronous") for b in bs]
    assert [block.first for block in blocks] == source.bounds[:-1].tolist()
    numbers = np.concatenate([block.row_numbers() for block in blocks])
    order = np.argsort(numbers)
    return numbers[order], np.concatenate([block.rows for block in blocks])[order]


def in_memory(dataset, folder):
    return dataset


def with_dask(dataset, folder):
    return dataset.chunk({"time": 4, "lat": 3, "lon": (2, 7, 1)})


def stored(dataset, folder, zarr_format=3, **encoding):
    chunks = {"temp": (2, 3, 4, 5), "ssh": (3, 8, 5), "floor": (8, 10)}
    encoding = {name: {"chunks": c, **encoding.get(name, {})} for name, c in chunks.items() if name in dataset}
    path = folder / "ocean.zarr"
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=encoding)
    return path


def stored_as_2(dataset, folder):
    return stored(dataset, folder, zarr_format=2)


def as_group(dataset, folder):
    return zarr.open_group(stored(dataset, folder), mode="r")


def opened(dataset, folder):
    return xarray.open_dataset(stored(dataset, folder), engine="zarr", consolidated=False)


def opened_with_dask(dataset, folder):
    return xarray.open_zarr(stored(dataset, folder), consolidated=False)


def netcdf(dataset, folder):
    dataset.to_netcdf(folder / "ocean.nc", engine="h5netcdf")
    return folder / "ocean.nc"


KINDS = [in_memory, with_dask, stored, stored_as_2, as_group, opened, opened_with_dask, netcdf]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variables", [("temp",), ("ssh", "temp"), ("floor", "temp", "ssh"), ("ssh",)])
def test_rows_are_those_of_xarray(kind, variables, tmp_path):
    dataset = ocean()
    dims = ("depth",) if "temp" in variables else ()
    source = open_source(kind(dataset, tmp_path), variables=variables, feature_dims=dims)
    rows = expected(dataset, variables)
    assert (source.n_rows, source.n_features, source.dtype) == (*rows.shape, np.float32)
    assert source.missing == "drop"
    present = ~np.isnan(rows).any(axis=1)
    assert 0 < present.sum() < len(rows)
    numbers, found = gather(source)
    np.testing.assert_array_equal(numbers, np.flatnonzero(present))
    np.testing.assert_array_equal(found, rows[present])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_chunks_and_any_order_of_dimensions(data):
    dataset = ocean()
    order = data.draw(st.permutations(DIMS))
    chunks = {dim: data.draw(st.integers(1, dataset.sizes[dim])) for dim in DIMS}
    features = data.draw(st.lists(st.sampled_from(DIMS), unique=True, max_size=3))
    variable = dataset["temp"].transpose(*order)
    samples = [dim for dim in order if dim not in features]
    cells = int(np.prod([variable.sizes[dim] for dim in samples]))
    rows = variable.transpose(*samples, *features).values.reshape(cells, -1)
    for form in (variable, variable.chunk(chunks)):
        source = open_source(form, feature_dims=features, missing="error")
        numbers, found = gather(source)
        np.testing.assert_array_equal(numbers, np.arange(len(rows)))
        np.testing.assert_array_equal(found, rows)


def test_names_of_features(tmp_path):
    source = open_source(stored(ocean(), tmp_path), variables=("ssh", "temp"), feature_dims="depth")
    assert source.feature_names == ("ssh", "temp[depth=5]", "temp[depth=10]", "temp[depth=20.5]")
    bare = ocean().drop_vars("depth")
    assert open_source(bare, variables="temp", feature_dims="depth").feature_names[1] == "temp[depth=1]"
    assert open_source(bare["ssh"], feature_dims=()).feature_names == ("ssh",)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_values_are_decoded(zarr_format, tmp_path):
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 10.0, "_FillValue": -32768}
    dataset = ocean()
    path = stored(dataset, tmp_path, zarr_format, temp=packed)
    source = open_source(path, variables="temp", feature_dims="depth")
    rows = expected(dataset, ["temp"])
    present = ~np.isnan(rows).any(axis=1)
    numbers, found = gather(source)
    np.testing.assert_array_equal(numbers, np.flatnonzero(present))
    np.testing.assert_allclose(found, rows[present], atol=0.0051)
    assert np.ptp(found) > 5


def test_each_chunk_is_read_once_a_pass(tmp_path, monkeypatch):
    source = open_source(stored(ocean(), tmp_path), variables=("temp", "ssh"), feature_dims="depth")
    assert source.n_blocks == 1  # all of it is small
    source.boxes = type(source.boxes)(source.boxes.grid, (6, 8, 5))  # whole chunks of both
    source.bounds = source.boxes.bounds
    reads, get = collections.Counter(), zarr.storage.LocalStore.get

    async def counted(self, key, *args, **kwargs):
        reads[key] += "/c/" in key
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    gather(source)
    chunks = {key: n for key, n in reads.items() if n}
    assert set(chunks.values()) == {1}
    assert sorted(k.split("/c/")[0] for k in chunks) == ["ssh"] * 4 + ["temp"] * 12


def test_boxes_suit_the_chunks_of_all_variables(tmp_path, monkeypatch):
    monkeypatch.setattr("dgmm.data.grid.BOX_BYTES", 1)
    source = open_source(stored(ocean(), tmp_path), variables=("temp", "ssh"), feature_dims="depth")
    assert source.boxes.steps == (6, 8, 5)
    assert source.read_bytes > 6 * 8 * 5 * 4 * 4


def test_workers_get_no_coordinates(tmp_path):
    dataset = ocean(sizes=(6, 3, 8, 500))
    source = open_source(stored(dataset, tmp_path), variables="temp", feature_dims="depth")
    sent = pickle.dumps(source.block_input(0, 1))
    assert len(sent) < 10_000
    (block,) = iter_blocks(pickle.loads(sent))
    np.testing.assert_array_equal(block.rows, gather(source)[1][: len(block.rows)])


# --- what is stored ------------------------------------------------------------------------------------------


def fingerprint(path, **kwargs):
    return open_source(path, **{"variables": ("temp",), "feature_dims": "depth", **kwargs}).fingerprint()


def test_the_fingerprint_is_of_what_is_read(tmp_path):
    path = stored(ocean(), tmp_path)
    before = fingerprint(path)
    assert fingerprint(path) == before == fingerprint(zarr.open_group(path, mode="r"))
    assert fingerprint(path, variables=("temp", "ssh")) != before
    zarr.open_array(path / "ssh", mode="r+")[0] = 7
    assert fingerprint(path) == before
    zarr.open_group(path, mode="r+")["temp"].attrs["units"] = "K"
    assert fingerprint(path) == before
    zarr.open_group(path, mode="r+")["temp"].attrs["scale_factor"] = 2.0
    assert fingerprint(path) != (scaled := before)
    zarr.open_array(path / "temp", mode="r+")[0, 0, 0, 0] = 7
    assert fingerprint(path) not in (before, scaled)


def test_fingerprints_of_values_in_memory():
    one, other = ocean(seed=1), ocean(seed=2)
    kwargs = {"variables": "temp", "feature_dims": "depth"}
    assert open_source(one, **kwargs).fingerprint() == open_source(one.copy(deep=True), **kwargs).fingerprint()
    assert open_source(one, **kwargs).fingerprint() != open_source(other, **kwargs).fingerprint()


@pytest.mark.parametrize("kind", [in_memory, stored, netcdf, with_dask, opened])
def test_what_tells_the_rows(kind, tmp_path):
    source = open_source(kind(ocean(), tmp_path), variables="temp", feature_dims="depth")
    assert source.identified is (kind not in (with_dask, opened))


def test_chunks_that_are_not_stored(tmp_path):
    packed = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768}
    path = stored(ocean(), tmp_path, temp=packed)
    (path / "temp/c/1/0/1/1").unlink()
    with pytest.raises(MissingChunks, match=r"1 of 12 chunks of .*ocean.zarr/temp are not stored .*c/1/0/1/1"):
        open_source(path, variables="temp", feature_dims="depth")
    _, rows = gather(open_source(path, variables="temp", feature_dims="depth", missing_chunks="fill"))
    assert (rows == 0).any()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_land_are_not_stored(zarr_format, tmp_path):
    dataset = ocean()
    dataset["temp"][:, :, 4:, 5:] = np.nan
    path = stored(dataset, tmp_path, zarr_format)
    key = {2: "temp/0.0.1.1", 3: "temp/c/0/0/1/1"}[zarr_format]
    assert not (path / key).exists()
    rows = expected(dataset, ["temp"])
    numbers, _ = gather(open_source(path, variables="temp", feature_dims="depth"))
    np.testing.assert_array_equal(numbers, np.flatnonzero(~np.isnan(rows).any(axis=1)))


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, InvalidData, r"different dimensions: .*temp\(time, depth, lat, lon\)"),
        ({"variables": "tmp"}, InvalidParameter, "no variable 'tmp'; did you mean 'temp'"),
        ({"variables": "lat"}, InvalidParameter, "'lat' is a coordinate"),
        (
            {"variables": "temp", "feature_dims": "dept"},
            InvalidParameter,
            "'dept'; did you mean 'depth'",
        ),
        ({"variables": "temp", "feature_dims": DIMS}, ShapeMismatch, "has no cells"),
        ({"variables": ("temp", "spectrum")}, UnsupportedDtype, "variable spectrum"),
    ],
)
def test_what_cannot_be_rows_is_said(kwargs, error, text, tmp_path):
    dataset = ocean()
    if "spectrum" in kwargs.get("variables", ""):
        dataset["spectrum"] = ("lat", np.ones(8, complex))
    for form in (dataset, stored(dataset, tmp_path)):
        with pytest.raises(error, match=text):
            open_source(form, **kwargs)


def test_a_data_array_needs_its_features_said():
    with pytest.raises(InvalidParameter, match="temp is a DataArray with the dimensions time, depth, lat, lon"):
        open_source(ocean()["temp"])


@pytest.mark.parametrize("kwargs", [{"variables": "x"}, {"feature_dims": "depth"}])
def test_arrays_have_no_variables(kwargs, tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=np.ones((4, 2)))
    for data in (np.ones((4, 2)), tmp_path / "x.zarr"):
        with pytest.raises(InvalidParameter, match="neither variables nor dimensions"):
            open_source(data, **kwargs)


def test_without_xarray_the_extra_is_named(tmp_path, monkeypatch):
    path = stored(ocean(), tmp_path)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dgmm\[xarray\]'"):
        open_source(path)


def test_a_file_that_is_no_netcdf(tmp_path):
    (tmp_path / "x.nc").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidData, match=r"xarray cannot read .*x\.nc"):
        open_source(tmp_path / "x.nc")


def test_a_value_is_named_by_its_coordinates(tmp_path):
    dataset = ocean(missing=0)
    dataset["temp"][3, 1, 2, 4] = np.inf
    mixture = GaussianMixture(2)
    with pytest.raises(
        NonFiniteData, match=r"infinity \(temp\[depth=10\] at time=2001-04.*, lat=-30.0, lon=144.0"
    ):
        mixture.fit(open_source(stored(dataset, tmp_path), variables="temp", feature_dims="depth"))


# --- weights -------------------------------------------------------------------------------------------------


def area(dataset):
    return np.cos(np.deg2rad(dataset["lat"]))


@pytest.mark.parametrize("kind", [in_memory, with_dask, stored])
@pytest.mark.parametrize("form", ["by latitude", "of cells", "flat", "flat dask", "group", "array", "lazy"])
def test_weights_follow_the_cells(kind, form, tmp_path, monkeypatch):
    monkeypatch.setattr("dgmm.data.grid.BOX_BYTES", 2000)
    dataset = ocean()
    whole = area(dataset).broadcast_like(dataset["ssh"]).transpose("time", "lat", "lon").values
    if form == "by latitude":
        weights = area(dataset)
    elif form == "of cells":
        weights = whole
    elif form == "flat":
        weights = whole.ravel()
    elif form == "flat dask":
        weights = dask.array.from_array(whole.ravel(), chunks=77)
    elif form == "lazy":
        weights = area(dataset).chunk({"lat": 3})
    elif form == "group":
        area(dataset).to_dataset(name="area").to_zarr(tmp_path / "w.zarr", consolidated=False)
        weights = tmp_path / "w.zarr"
    else:
        zarr.create_array(tmp_path / "w.zarr", data=whole)
        weights = str(tmp_path / "w.zarr")
    source = open_source(kind(dataset, tmp_path), variables=("temp", "ssh"), feature_dims="depth")
    opened = open_weights(weights, source)
    np.testing.assert_array_equal(opened.bounds, source.bounds)
    _, values = gather(opened)
    np.testing.assert_allclose(values[:, 0], whole.ravel(), rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(5), "have the shape"),
        (xarray.DataArray(np.ones(8), dims="latitude"), "8 values along latitude"),
        (xarray.DataArray(np.ones(7), dims="lat"), "7 values along lat"),
        (xarray.DataArray(np.ones(8), dims="lat", coords={"lat": np.arange(8)}), "other coordinates along lat"),
        (xarray.Dataset({"a": ("lat", np.ones(8)), "b": ("lat", np.ones(8))}), "2 variables"),
    ],
)
def test_weights_of_another_grid_are_refused(weights, text):
    source = open_source(ocean(), variables="temp", feature_dims="depth")
    with pytest.raises(InvalidWeights, match=text):
        open_weights(weights, source)
