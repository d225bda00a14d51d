"""Mixtures of the cells of a grid, end to end: the rows' own fit, whatever the grid is stored in."""

import json

import numpy as np
import pytest
import xarray
import zarr
from commands import in_process

import dgmm
from dgmm import GaussianMixture, open_source
from dgmm.engine.look import look
from dgmm.engine.slices import Slice

WHAT = {"variables": ("temp", "ssh"), "feature_dims": "depth"}


def ocean(times=12, seed=0):
    """Two regimes, warm and cold, in a third of whose cells there is land."""
    rng = np.random.default_rng(seed)
    lat, lon = np.linspace(-75, 75, 16), np.arange(24) * 15.0
    land = rng.random((16, 24)) < 1 / 3
    warm = (np.abs(lat) < 35)[None, :, None] & np.ones((times, 1, 24), bool)
    temp = np.where(warm[:, None], 25.0, 5.0) + rng.normal(0, 2, (times, 3, 16, 24))
    ssh = np.where(warm, 0.5, -0.5) + rng.normal(0, 0.2, (times, 16, 24))
    temp[:, :, land] = np.nan
    ssh[:, land] = np.nan
    ssh[3, 2:5] = np.nan  # and clouds
    return xarray.Dataset(
        {"temp": (("time", "depth", "lat", "lon"), temp), "ssh": (("time", "lat", "lon"), ssh)},
        {"time": np.arange(times), "depth": [0.0, 50.0, 100.0], "lat": lat, "lon": lon},
    )


def rows_of(dataset):
    levels = dataset["temp"].transpose("time", "lat", "lon", "depth").values
    return np.concatenate([levels, dataset["ssh"].values[..., None]], axis=-1).reshape(-1, 4)


def stored(dataset, folder, chunk=4):
    encoding = {"temp": {"chunks": (chunk, 3, 8, 12)}, "ssh": {"chunks": (chunk, 16, 12)}}
    dataset.to_zarr(folder / f"ocean-{chunk}.zarr", consolidated=False, encoding=encoding)
    return folder / f"ocean-{chunk}.zarr"


@pytest.fixture
def small_boxes(monkeypatch):
    monkeypatch.setattr("dgmm.data.grid.BOX_BYTES", 1)


@pytest.mark.parametrize("kind", ["memory", "dask", "zarr"])
def test_the_fit_is_that_of_the_rows(kind, tmp_path, small_boxes):
    dataset = ocean()
    rows = rows_of(dataset)
    present = ~np.isnan(rows).any(axis=1)
    data = {"memory": dataset, "dask": dataset.chunk({"time": 5, "lon": 7}), "zarr": stored(dataset, tmp_path)}[
        kind
    ]
    source = open_source(data, **WHAT)
    assert source.n_blocks > 1
    settings = {"n_components": 2, "random_state": 0, "sample_size": 500}
    ours = GaussianMixture(**settings).fit(source)
    theirs = GaussianMixture(**settings).fit(open_source(rows, missing="drop"))
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)
    assert ours.n_missing_ == theirs.n_missing_ == (~present).sum()
    assert list(ours.feature_names_in_) == ["temp[depth=0]", "temp[depth=50]", "temp[depth=100]", "ssh"]


def test_chunks_do_not_matter(tmp_path, small_boxes):
    found = [
        GaussianMixture(2, random_state=0, sample_size=500).fit(
            open_source(stored(ocean(), tmp_path, chunk), **WHAT)
        )
        for chunk in (1, 5)
    ]
    np.testing.assert_allclose(found[0].means_, found[1].means_, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("kind", ["memory", "dask", "zarr"])
def test_results_are_on_the_grid(kind, tmp_path, small_boxes):
    dataset = ocean()
    data = {"memory": dataset, "dask": dataset.chunk({"time": 5, "lon": 7}), "zarr": stored(dataset, tmp_path)}[
        kind
    ]
    source = open_source(data, **WHAT)
    mixture = GaussianMixture(2, random_state=0).fit(source)
    rows = rows_of(dataset)
    absent = np.isnan(rows).any(axis=1).reshape(12, 16, 24)
    labels, density = mixture.predict(source), mixture.score_samples(source)
    posterior = mixture.predict_proba(source)
    for found in (labels, density, posterior.isel(component=0)):
        assert found.dims == ("time", "lat", "lon")
        xarray.testing.assert_equal(found["lat"], dataset["lat"])
        assert set(found.coords) == {"time", "lat", "lon"}
        assert (found.chunks is None) == (kind == "memory")
        np.testing.assert_array_equal(found.isnull(), absent)
    whole = rows[~absent.ravel()]
    np.testing.assert_array_equal(labels.values[~absent], mixture.predict(whole))
    np.testing.assert_allclose(density.values[~absent], mixture.score_samples(whole))
    np.testing.assert_allclose(posterior.values[~absent], mixture.predict_proba(whole), atol=1e-12)
    assert posterior.dims == ("time", "lat", "lon", "component")
    np.testing.assert_allclose(mixture.score(source), mixture.score(whole))


def test_other_variables_are_refused(tmp_path):
    dataset = ocean()
    mixture = GaussianMixture(2, random_state=0).fit(open_source(dataset, **WHAT))
    with pytest.raises(dgmm.errors.InvalidData, match="feature 0 called 'ssh', but the model was fitted to 'temp"):
        mixture.predict(open_source(dataset, variables=("ssh", "temp"), feature_dims="depth"))


def test_areas_weigh_the_cells(small_boxes):
    dataset = ocean()
    area = np.cos(np.deg2rad(dataset["lat"]))
    rows = rows_of(dataset)
    weights = area.broadcast_like(dataset["ssh"]).transpose("time", "lat", "lon").values.ravel()
    settings = {"n_components": 2, "random_state": 0}
    ours = GaussianMixture(**settings).fit(open_source(dataset, **WHAT), sample_weight=area)
    theirs = GaussianMixture(**settings).fit(open_source(rows, missing="drop"), sample_weight=weights)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, rtol=1e-9)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-9)


def test_a_checkpoint_of_lazy_variables_knows_their_content(tmp_path):
    dataset = ocean()
    path = stored(dataset, tmp_path)
    mixture = GaussianMixture(2, random_state=0)
    mixture.fit(open_source(xarray.open_zarr(path, consolidated=False), **WHAT), checkpoint=tmp_path / "c")
    again = GaussianMixture(2, random_state=0)
    again.fit(open_source(xarray.open_zarr(path, consolidated=False), **WHAT), checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(again.means_, mixture.means_)
    zarr.open_array(path / "temp", mode="r+")[0, 0, 0] = 7.0
    changed = open_source(xarray.open_zarr(path, consolidated=False), **WHAT)
    with pytest.raises(dgmm.errors.CheckpointMismatch, match="the data changed"):
        GaussianMixture(2, random_state=0).fit(changed, checkpoint=tmp_path / "c")


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    path, model = stored(ocean(), tmp_path), tmp_path / "m.dgmm"
    area = np.cos(np.deg2rad(ocean()["lat"])).to_dataset(name="area")
    area.to_zarr(tmp_path / "area.zarr", consolidated=False)

    def run(*words, code=0):
        assert in_process(monkeypatch, *words, local=True) == code
        return capsys.readouterr()

    what = ("--variables", "temp,ssh", "--feature-dim", "depth")
    fit = ("fit", path, *what, "-k", 2, "--model", model, "--seed", 0, "--json")
    fitted = run(*fit)
    assert "rows with a missing value left out" in fitted.err
    ours = GaussianMixture(2, random_state=0).fit(open_source(ocean(), **WHAT))
    np.testing.assert_allclose(json.loads(fitted.out)["means"], ours.means_, rtol=1e-9)
    assert "temp[depth=50]" in run("info", model).out
    weighted = GaussianMixture(2, random_state=0).fit(open_source(ocean(), **WHAT), sample_weight=area["area"])
    found = json.loads(run(*fit, "--weights", tmp_path / "area.zarr").out)
    np.testing.assert_allclose(found["weights"], weighted.weights_, rtol=1e-9)
    scored = json.loads(run("score", path, *what, "--model", model, "--json").out)
    assert scored["n"] == ours._model.n_rows
    for wrong, text in (
        (("--variables", "tmep,ssh", "--feature-dim", "depth"), "did you mean 'temp'"),
        ((), "Choose those that are features with variables=[...] (--variables a,b)"),
        (("--variables", ","), "there is no name"),
    ):
        refused = run("fit", path, *wrong, "-k", 2, "--model", model, code=2)
        assert text in refused.err


def test_results_on_disk_are_a_dataset_of_the_grid(tmp_path, monkeypatch, capsys, small_boxes):
    path, model, out = stored(ocean(), tmp_path), tmp_path / "m.dgmm", tmp_path / "regimes.zarr"
    mixture = GaussianMixture(2, random_state=0).fit(open_source(path, **WHAT))
    mixture.save(model)
    source = open_source(path, **WHAT)
    wanted = ("--labels", "--responsibilities", "--log-density", "--top", 1, "--anomaly-quantile", 0.01)
    words = ("predict", path, "--variables", "temp,ssh", "--feature-dim", "depth", "--model", model, "--out", out)

    def run(code=0):
        assert in_process(monkeypatch, *words, *wanted, "--json", local=True) == code
        return json.loads(capsys.readouterr().out)

    assert run()["rows_written"] == source.n_rows
    found = xarray.open_zarr(out, consolidated=False)
    assert found["labels"].dims == found["log_density"].dims == ("time", "lat", "lon")
    assert found["responsibilities"].dims == ("time", "lat", "lon", "component")
    for name in ("time", "lat", "lon"):
        xarray.testing.assert_equal(found[name].variable, ocean()[name].variable)
    assert found["labels"].chunksizes == {"time": (4,) * 3, "lat": (16,), "lon": (12, 12)}
    np.testing.assert_array_equal(found["labels"], mixture.predict(source))
    np.testing.assert_array_equal(found["log_density"], mixture.score_samples(source))
    np.testing.assert_array_equal(found["responsibilities"], mixture.predict_proba(source))
    np.testing.assert_array_equal(found["labels"].isnull(), ocean()["ssh"].isnull())
    flagged = found["anomalies"].values
    assert not flagged[found["labels"].isnull().values].any()
    np.testing.assert_array_equal(flagged, found["log_density"].values < found.attrs["anomalies"]["threshold"])

    (out / "labels/c/1/0/1").unlink()  # as a kill leaves it
    zarr.open_group(out, mode="r+").attrs["complete"] = False
    assert run()["rows_written"] == 4 * 16 * 12
    np.testing.assert_array_equal(xarray.open_zarr(out, consolidated=False)["labels"], mixture.predict(source))
    assert run()["rows_written"] == 0


def test_a_grid_is_no_table_of_results(tmp_path, monkeypatch, capsys):
    path, model = stored(ocean(), tmp_path), tmp_path / "m.dgmm"
    GaussianMixture(2, random_state=0).fit(open_source(path, **WHAT)).save(model)
    what = ("--variables", "temp,ssh", "--feature-dim", "depth", "--model", model)
    assert in_process(monkeypatch, "predict", path, *what, "--out", tmp_path / "o.parquet", local=True) == 2
    assert "go to a Zarr group" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


def test_cells_that_are_missing_can_be_an_error():
    source = open_source(ocean(), **WHAT, missing="error")
    with pytest.raises(dgmm.errors.NonFiniteData, match=r"NaN \(temp\[depth=0\] at time=0, lat=.*missing='drop'"):
        GaussianMixture(2).fit(source)


@pytest.mark.parametrize("named", [True, False])
def test_a_report_has_a_map(named, tmp_path, small_boxes):
    """Of the first time, in any order of the dimensions if attributes tell which is which."""
    dataset = ocean().transpose("lon", "lat", "time", "depth") if named else ocean()
    if named:
        dataset["lat"].attrs["units"], dataset["lon"].attrs["axis"] = "degrees_north", "X"
    source = open_source(dataset.chunk({"time": 5}), **WHAT)
    mixture = GaussianMixture(2, random_state=0).fit(source)
    chosen = Slice.of(source)
    cells = look(source, None, mixture._model, [], chosen=chosen).cells
    first = open_source(ocean().isel(time=[0]), **WHAT)
    for values, expected in (
        (cells.labels, mixture.predict(first)),
        (cells.probabilities, mixture.predict_proba(first).max("component")),
    ):
        drawn = cells.drawn(values, chosen.shape)
        np.testing.assert_allclose(drawn, expected.isel(time=0).where(lambda x: x >= 0), rtol=1e-6)
    page = dgmm.report(mixture, source, tmp_path / "r.html").read_text()
    assert "Map of the most likely components over lat and lon at time 0" in page
    assert "How probable the most likely component of these cells is" in page


@pytest.mark.slow
def test_a_map_of_many_cells_is_thinned(tmp_path, monkeypatch, small_boxes):
    monkeypatch.setattr("dgmm.engine.slices._MOST", 7)
    source = open_source(ocean(), **WHAT)
    mixture = GaussianMixture(2, random_state=0).fit(source)
    chosen = Slice.of(source)
    assert chosen.shape == (6, 6)
    cells = look(source, None, mixture._model, [], chosen=chosen).cells
    labels = mixture.predict(
        open_source(ocean().isel(time=0, lat=slice(None, None, 3), lon=slice(None, None, 4)), **WHAT)
    )
    np.testing.assert_array_equal(cells.drawn(cells.labels, (6, 6)), labels.where(labels >= 0))
    assert "One cell in 3 x 4 is drawn" in dgmm.report(mixture, source, tmp_path / "r.html").read_text()


def test_tables_and_lines_have_no_map():
    assert Slice.of(open_source(np.zeros((5, 2)))) is None
    assert Slice.of(open_source(ocean().isel(lat=0, lon=0), **WHAT)) is None
    assert Slice.of(open_source(ocean().isel(lat=[0]), **WHAT)) is None
