"""Pictures: what is drawn are the model's and the data's own numbers; no picture is compared."""

from __future__ import annotations

import subprocess
import sys

import cftime
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import zarr

import dgmm
import dgmm.engine.search
from dgmm import GaussianMixture
from dgmm.engine.certainty import CELLS
from dgmm.errors import InvalidParameter, ShapeMismatch, SourceNotFound

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse

from dgmm import plot
from dgmm.plot.colours import _lab, colours

N = 6000
NAMES = ["north", "east", "$up$ <b>", "down"]


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def rows():
    """Three components, apart in the second and the last feature alone."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((N, 4)) @ np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.3, 1]])
    label = rng.choice(3, N, p=[0.6, 0.3, 0.1])
    rows[:, 1] += 7.0 * (label == 1)
    rows[:, 3] += 7.0 * (label == 2)
    return rows


@pytest.fixture(scope="module")
def mixture(rows):
    return GaussianMixture(3, random_state=0).fit(pd.DataFrame(rows, columns=NAMES))


def ellipses(ax):
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def limits(ax):
    return ax.get_xlim(), ax.get_ylim()


def drawn_counts(ax):
    """What the shades stand for, with x along the first dimension."""
    (image,) = ax.images
    return np.ma.filled(image.get_array(), 0).T


# --- components ----------------------------------------------------------------------------------------------


def test_ellipses_are_those_of_the_eigenvectors(mixture):
    ax = plot.components(mixture, features=("east", "north"))
    found, palette = ellipses(ax), colours(3)
    assert len(found) == 2 * 3
    pair = [1, 0]
    for k in range(3):
        own = [e for e in found if to_hex(e.get_edgecolor()) == palette[k]]
        covariance = mixture.covariances_[k][np.ix_(pair, pair)]
        values, vectors = np.linalg.eigh(covariance)
        for ellipse, sigma in zip(sorted(own, key=lambda e: e.width), (1, 2), strict=True):
            np.testing.assert_allclose(ellipse.center, mixture.means_[k, pair])
            assert ellipse.width == pytest.approx(2 * sigma * np.sqrt(values[1]))
            assert ellipse.height == pytest.approx(2 * sigma * np.sqrt(values[0]))
            # Its long axis is the eigenvector, and its rim lies at a Mahalanobis distance of sigma.
            along = np.array([np.cos(np.radians(ellipse.angle)), np.sin(np.radians(ellipse.angle))])
            assert abs(along @ vectors[:, 1]) == pytest.approx(1)
            rim = (
                ellipse.get_patch_transform().transform(ellipse.get_path().vertices[::3]) - mixture.means_[k, pair]
            )
            distance = np.sqrt(np.einsum("ni,ij,nj->n", rim, np.linalg.inv(covariance), rim))
            np.testing.assert_allclose(distance, sigma, rtol=1e-3)


def test_heavier_components_have_stronger_lines(mixture):
    found, palette = ellipses(plot.components(mixture)), colours(3)
    widths = [max(e.get_linewidth() for e in found if to_hex(e.get_edgecolor()) == palette[k]) for k in range(3)]
    assert list(np.argsort(widths)) == list(np.argsort(mixture.weights_))


def test_the_pair_in_which_components_are_apart_is_drawn_and_numbered(mixture):
    ax = plot.components(mixture)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east", "down")
    numbers = {text.get_text(): text.xy for text in ax.texts}
    assert set(numbers) == {"0", "1", "2"}
    for k in range(3):
        np.testing.assert_allclose(numbers[str(k)], mixture.means_[k, [1, 3]])


def test_the_shades_are_numpys_histogram_and_the_title_says_what_is_outside(mixture, rows, tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=rows, chunks=(1000, 4))
    from_disk = plot.components(mixture, tmp_path / "x.zarr")
    from_memory = plot.components(mixture, rows)
    counts = drawn_counts(from_disk)
    x, y = (
        np.linspace(*ends, n + 1)
        for ends, n in zip((from_disk.get_xlim(), from_disk.get_ylim()), counts.shape, strict=True)
    )
    expected, _, _ = np.histogram2d(rows[:, 1], rows[:, 3], bins=[x, y])
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(counts, drawn_counts(from_memory))
    assert from_disk.get_title() == f"outside: {1 - expected.sum() / N:.2%} of the rows"
    assert not from_disk.collections, "no scatter of rows"


def test_without_data_the_mixtures_own_density_is_drawn(mixture):
    ax = plot.components(mixture, features=(3, 1))
    (image,) = ax.images
    values = np.ma.filled(image.get_array(), 0)
    area = np.prod(
        [np.ptp(limits) / n for limits, n in zip((ax.get_xlim(), ax.get_ylim()), values.T.shape, strict=True)]
    )
    assert 0.99 < values.sum() * area < 1.0
    assert "own density" in ax.get_title()


def test_components_that_are_not_in_the_picture_are_named():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.standard_normal((40_000, 2)), rng.normal(500, 1, (20, 2))])
    mixture = GaussianMixture(2, random_state=0).fit(rows)
    (far,) = np.flatnonzero(mixture.weights_ < 0.01)
    assert plot.components(mixture, rows).get_title().endswith(f"of the rows, component {far}")
    assert plot.components(mixture).get_title() == f"the mixture's own density; outside: component {far}"


def test_one_feature_gives_curves(rows):
    mixture = GaussianMixture(2, random_state=0).fit(rows[:, [1]])
    ax = plot.components(mixture, rows[:, [1]])
    total, *parts = [line.get_xydata() for line in ax.lines]
    assert len(parts) == 2
    np.testing.assert_allclose(total[:, 1], sum(part[:, 1] for part in parts), rtol=1e-9)
    expected = np.exp(mixture.score_samples(total[:, [0]]))
    np.testing.assert_allclose(total[:, 1], expected, rtol=1e-6)
    (bars,) = ax.patches
    values, edges, _ = bars.get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(
        np.mean((rows[:, 1] >= edges[0]) & (rows[:, 1] < edges[-1]))
    )


def test_pairs_share_one_pass(mixture, rows, monkeypatch):
    passes = []
    run = dgmm.engine.passes.Passes.run
    monkeypatch.setattr(dgmm.engine.passes.Passes, "run", lambda self, work: passes.append(1) or run(self, work))
    figure = plot.component_pairs(mixture, rows, pairs=[("north", "east"), (1, 3), ("down", 0)])
    assert len(passes) == 1
    shown = [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes]
    assert shown == [("north", "east"), ("east", "down"), ("down", "north")]
    assert len(plot.component_pairs(mixture, pairs=np.int64(4)).axes) == 4
    for nothing in (0, []):
        with pytest.raises(InvalidParameter, match="one pair"):
            plot.component_pairs(mixture, pairs=nothing)


def test_names_are_not_taken_for_formulas(mixture, tmp_path):
    ax = plot.components(mixture, features=("$up$ <b>", "east"))
    ax.figure.savefig(tmp_path / "x.svg")
    assert "<!-- $up$ &lt;b&gt; -->" in (tmp_path / "x.svg").read_text()


def test_users_axes_are_used_and_their_backend_is_left(mixture):
    _, given = plt.subplots()
    assert plot.components(mixture, ax=given) is given
    assert plot.convergence(mixture, ax=given) is given
    code = (
        "import matplotlib; matplotlib.use('svg'); import numpy as np, dgmm, dgmm.plot;"
        "m = dgmm.GaussianMixture(1, random_state=0).fit(np.arange(20.0).reshape(-1, 2));"
        "dgmm.plot.components(m); print(matplotlib.get_backend())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "svg"


@pytest.mark.parametrize("features", ["west", ("east", "east"), (0, 1, 2), (0, 4), 2.5, ()])
def test_features_that_are_not_there_are_named(mixture, features):
    with pytest.raises(InvalidParameter, match=r"feature|pair"):
        plot.components(mixture, features=features)


def test_what_is_no_model_is_refused(tmp_path, rows):
    with pytest.raises(InvalidParameter, match="expected a fitted GaussianMixture"):
        plot.components(rows)
    with pytest.raises(SourceNotFound):
        plot.components(tmp_path / "none")


def test_a_model_file_is_drawn_like_the_model(mixture, tmp_path):
    mixture.save(tmp_path / "m")
    one, other = plot.components(tmp_path / "m"), plot.components(mixture)
    for ellipse, same in zip(ellipses(one), ellipses(other), strict=True):
        np.testing.assert_array_equal(ellipse.get_center(), same.get_center())


def test_many_components_are_numbered_where_there_is_room(rows):
    many = GaussianMixture(30, covariance_type="diag", random_state=0, max_iter=3, tol=1e-2)
    with pytest.warns(match="did not converge"):
        many.fit(rows)
    ax = plot.components(many)
    assert len(ellipses(ax)) == 60
    size = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    places = np.array([text.xy for text in ax.texts]) / size
    near = np.abs(places[:, None] - places).max(axis=2) + np.eye(len(places))
    assert near.min() > 0.04
    assert ax.texts[0].get_text() == str(np.argmax(many.weights_)), "the heaviest has its number"


# --- colours -------------------------------------------------------------------------------------------------


def test_colours_differ_and_stand_out_from_white_and_black():
    palette = colours(60)
    assert len(set(palette)) == 60
    assert colours(200)[:60] == palette
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in palette]) / 255
    lab = _lab(rgb)
    assert np.all((lab[:, 0] > 40) & (lab[:, 0] < 76))
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1e3 * np.eye(60)
    assert apart[:20, :20].min() > 25
    assert apart.min() > 12


DEUTERANOPIA = [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]
PROTANOPIA = [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("blind", [DEUTERANOPIA, PROTANOPIA])
def test_the_first_colours_are_apart_for_the_colour_blind(blind):
    """Deuteranopia and protanopia as Viénot, Brettel & Mollon 1999 simulate them (Color Res. Appl. 24)."""
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours(6)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    seen = np.clip(linear @ (np.linalg.inv(lms) @ blind @ lms).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    apart = np.linalg.norm(_lab(seen)[:, None] - _lab(seen), axis=2) + 1e3 * np.eye(6)
    assert apart[:3, :3].min() > 45
    assert apart.min() > 15


# --- convergence ---------------------------------------------------------------------------------------------


def test_convergence_is_the_history(mixture, tmp_path):
    mixture.save(tmp_path / "m")
    for fit in (mixture, str(tmp_path / "m")):
        (line,) = plot.convergence(fit).lines
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, mixture.n_iter_ + 1))
        np.testing.assert_array_equal(line.get_ydata(), mixture.history_["log_likelihood"])


def test_a_fit_that_did_not_converge_says_so(rows):
    with pytest.warns(match="did not converge"):
        mixture = GaussianMixture(3, random_state=0, max_iter=2, tol=0).fit(rows)
    assert plot.convergence(mixture).get_title() == "not converged"


def test_a_checkpoint_shows_its_finalists_or_its_runs(rows, tmp_path):
    options = {"random_state": 0, "n_init": 3, "n_finalists": 2, "sample_size": 500}
    fit = GaussianMixture(3, **options).fit(rows, checkpoint=tmp_path / "all")
    ax = plot.convergence(tmp_path / "all")
    assert ax.get_title() == "on all rows"
    best = max(ax.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(best.get_ydata(), fit.lower_bounds_)
    assert len(ax.lines) == 2
    GaussianMixture(3, random_state=0, n_init=3).fit(rows, checkpoint=tmp_path / "sample")
    ax = plot.convergence(tmp_path / "sample")
    assert ax.get_title() == "runs on the sample"
    assert len(ax.lines) >= 3
    with pytest.raises(SourceNotFound, match="without checkpoints"):
        plot.convergence(tmp_path)


# --- criteria ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def selection(rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)
        return dgmm.select(
            rows, range(1, 6), ("full", "diag"), random_state=0, n_init=2, sample_size=1000, tol=1e-4
        )


@pytest.mark.parametrize("criterion", [None, "aic", "icl"])
def test_criteria_are_the_tables(selection, criterion):
    ax = plot.criteria(selection, criterion)
    name = criterion or "bic"
    lowest = min(getattr(entry, name) for entry in selection.table)
    lines = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 1]
    assert len(lines) == 2
    for line, kind in zip(lines, ("full", "diag"), strict=True):
        own = [entry for entry in selection.table if entry.covariance_type == kind]
        np.testing.assert_array_equal(line.get_xdata(), [entry.n_components for entry in own])
        np.testing.assert_allclose(line.get_ydata(), [getattr(entry, name) - lowest for entry in own])
    (ring,) = [line for line in ax.lines if line.get_markersize() == 13]
    assert list(ring.get_xdata()) == [selection.best.n_components] == [3]


def test_dropped_candidates_are_hollow(selection):
    dropped = {(e.n_components, e.covariance_type) for e in selection.table if e.dropped}
    assert dropped, "too few rows to drop any candidate"
    ax = plot.criteria(selection)
    paper = to_hex(ax.get_facecolor())
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1 and line.get_markersize() == 5]
    hollow = [line for line in marks if to_hex(line.get_markerfacecolor()) == paper]
    assert len(marks) == len(selection.table)
    assert len(hollow) == len(dropped)
    assert any("dropped" in text.get_text() for text in ax.get_legend().get_texts())


def test_the_chosen_models_file_has_the_table_too(selection, tmp_path):
    selection.best.save(tmp_path / "best")
    one, other = plot.criteria(selection), plot.criteria(tmp_path / "best")
    assert [line.get_xydata().tolist() for line in one.lines] == [
        line.get_xydata().tolist() for line in other.lines
    ]


def test_criteria_that_are_not_there_are_refused(selection, mixture):
    with pytest.raises(InvalidParameter, match="held out no rows"):
        plot.criteria(selection, "holdout")
    with pytest.raises(InvalidParameter, match="must be one of bic"):
        plot.criteria(selection, "dic")
    with pytest.raises(InvalidParameter, match="not chosen by `select`"):
        plot.criteria(mixture)


def test_held_out_rows_are_drawn_as_they_are(rows):
    found = dgmm.select(rows[:600], (1, 2, 3), "diag", criterion="holdout", random_state=0, tol=1e-3)
    ax = plot.criteria(found)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [entry.held_out for entry in found.table])
    assert ax.get_yscale() == "linear"


# --- certainty -----------------------------------------------------------------------------------------------


def test_bars_are_shares_of_the_rows_of_each_component(mixture, rows):
    frame = pd.DataFrame(rows, columns=NAMES)
    ax = plot.certainty(mixture, frame)
    r = mixture.predict_proba(frame)
    sure, label = r.max(axis=1), r.argmax(axis=1)
    order = np.argsort(-np.bincount(label, minlength=3))
    assert [t.get_text().split()[0] for t in ax.get_yticklabels()] == [str(k) for k in order]
    for container, (low, high) in zip(ax.containers, [(0, 0.5), (0.5, 0.9), (0.9, 0.99), (0.99, 2)], strict=True):
        for bar, k in zip(container, order, strict=True):
            expected = np.mean((sure[label == k] >= low) & (sure[label == k] < high))
            assert bar.get_width() == pytest.approx(100 * expected)
    assert f"{(sure >= 0.9).mean():.1%}" in ax.get_title()


def test_many_components_share_the_last_bar():
    from dgmm.engine.certainty import Certainty
    from dgmm.engine.likelihood import Score
    from dgmm.plot.responsibilities import draw_certainty

    counts = np.zeros((40, CELLS), dtype=np.int64)
    counts[:, -1] = np.arange(40) + 1
    _, ax = plt.subplots()
    draw_certainty(ax, Certainty(counts, Score(0.0, 820.0, 820)))
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels) == 31
    assert labels[0].startswith("39 ")
    assert labels[-1] == f"10 others  ({sum(range(1, 11)) / 820:.1%})"


# --- maps ----------------------------------------------------------------------------------------------------


def grid():
    import xarray as xr

    labels = np.array([[0.0, 1, 2, np.nan], [2, 2, -1, 0], [1, 1, 0, 0]])
    lat = ("lat", [60.0, 50.0, 40.0], {"units": "degrees_north"})
    return xr.DataArray(labels, dims=("lat", "lon"), coords={"lat": lat, "lon": [0.0, 10.0, 20.0, 30.0]})


def cells(ax):
    (mesh,) = ax.collections
    return mesh, np.ma.asarray(mesh.get_array())


def test_missing_cells_of_a_map_are_blank():
    ax = plot.label_map(grid())
    mesh, values = cells(ax)
    np.testing.assert_array_equal(np.ma.getmaskarray(values), [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    shades = mesh.to_rgba(values).reshape(-1, 4)
    assert shades[3, 3] == 0, "no colour at all"
    assert [to_hex(shade) for shade in shades[:3]] == colours(3)


def test_a_map_has_the_grids_coordinates_and_a_discrete_colour_bar():
    ax = plot.label_map(grid(), n_components=5)
    mesh, _ = cells(ax)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose((corners[:-1, :-1] + corners[1:, 1:])[0, :, 0] / 2, [0, 10, 20, 30])
    np.testing.assert_allclose((corners[:-1, :-1] + corners[1:, 1:])[:, 0, 1] / 2, [60, 50, 40])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lon", "lat (degrees_north)")
    bar = ax.figure.axes[1]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0", "1", "2", "3", "4"]
    assert mesh.norm.N == 6


@pytest.mark.parametrize(
    "times",
    [
        np.array([cftime.Datetime360Day(2000, 2, day) for day in (28, 29, 30)]),
        np.arange(3) * np.timedelta64(1, "D"),
        np.array(["2000-01-01", "NaT", "2000-01-03"], "M8[ns]"),
        np.array([0, np.nan, 2]),
    ],
)
def test_coordinates_that_cannot_be_drawn_are_numbers_of_cells(times):
    ax = plot.label_map(grid().rename(lat="time").assign_coords(time=("time", times, {"units": "days"})))
    corners = cells(ax)[0].get_coordinates()
    np.testing.assert_allclose((corners[:-1, :-1] + corners[1:, 1:])[:, 0, 1] / 2, [0, 1, 2])
    assert ax.get_ylabel() == "time"
    with pytest.raises(InvalidParameter, match=r"cannot be drawn; expected numbers or dates, none missing"):
        plot.label_map(grid(), y=times)


def test_arrays_have_coordinates_given():
    labels = np.ma.masked_equal([[0, 1], [1, 9]], 9)
    x, y = np.meshgrid([1.0, 2.0], [5.0, 7.0])
    ax = plot.label_map(labels, x=x, y=y)
    assert cells(ax)[1].mask.tolist() == [[False, False], [False, True]]
    assert plot.label_map(labels.data).get_xlabel() == ""
    for shape, wrong in (((2,), {"x": [1.0, 2.0, 3.0]}), ((2, 2), {"y": np.zeros((3, 3))})):
        with pytest.raises(ShapeMismatch, match="do not fit"):
            plot.label_map(np.zeros((2, 2)), **wrong)
        assert shape
    with pytest.raises(ShapeMismatch, match="choose one time"):
        plot.label_map(np.zeros((2, 2, 2)))
    with pytest.raises(InvalidParameter, match="no coordinate 'depth'; it has lat, lon"):
        plot.label_map(grid(), x="depth")


def test_the_probability_of_the_most_likely_component():
    responsibilities = np.array([[[0.2, 0.8], [0.6, 0.4]], [[np.nan, np.nan], [0.5, 0.5]]])
    ax = plot.probability_map(responsibilities)
    mesh, values = cells(ax)
    np.testing.assert_array_equal(values.mask, [[False, False], [True, False]])
    np.testing.assert_allclose(values.compressed(), [0.8, 0.6, 0.5])
    assert mesh.get_clim() == (0, 1)
    np.testing.assert_allclose(cells(plot.probability_map(grid() / 2))[1].compressed().max(), 1.0)


def test_without_matplotlib_the_extra_is_named(tmp_path):
    code = (
        "import sys, importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else f(name, *a)\n"
        "import dgmm\n"
        "try:\n    dgmm.plot\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "MissingExtra pictures need the package matplotlib; pip install 'dgmm[plot]'"
