"""The report: the model's own numbers, escaped, in one file that asks for nothing; and the command that it gives.

tests/test_report_in_browser.py looks at it in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from commands import in_process
from webpages import Page

import dgmm
import dgmm.engine.search
from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.model import Model
from dgmm.errors import CheckpointMismatch, InvalidParameter, ShapeMismatch, SourceNotFound
from dgmm.reporting.command import command

HOSTILE = '</title><script>alert(1)</script><img src=x onerror=alert(2)> & "$\\frac{1}{2}$" \'\x00'
NAMES = [HOSTILE, "salinity", "oxygen"]
N = 3000


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(6)
    label = rng.choice(3, N, p=[0.5, 0.3, 0.2])
    return rng.standard_normal((N, 3)) + 6.0 * np.eye(3)[label]


@pytest.fixture(scope="module")
def frame(rows):
    return pd.DataFrame(rows, columns=NAMES)


@pytest.fixture(scope="module")
def mixture(frame):
    return GaussianMixture(3, random_state=0).fit(frame)


@pytest.fixture(scope="module")
def stored(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(500, 3))
    zarr.create_array(folder / "w.zarr", data=np.random.default_rng(1).uniform(0.5, 2, N), chunks=(700,))
    return folder


def written(*arguments, path, **named) -> Page:
    assert dgmm.report(*arguments, path=path, **named) == path
    return Page(path.read_text())


def facts(page: Page) -> dict[str, str]:
    """Names and values of the lists, as they are read."""
    return dict(re.findall(r"\x02(.*?)\x03(.*?)\x04", page.marked))


def pictures(page: Page) -> list[str]:
    """The SVG of each image."""
    found = []
    for image in page.of("img"):
        kind, content = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        found.append(base64.b64decode(content).decode())
    return found


# --- what it says --------------------------------------------------------------------------------------------


def test_the_tables_numbers_are_the_models(mixture, frame, tmp_path):
    page = written(mixture, frame, path=tmp_path / "r.html")
    (table,) = page.tables
    assert table[0] == ["component", "weight", "rows", *NAMES]
    order = np.argsort(-mixture.weights_)
    assert [line[0] for line in table[1:]] == [str(k) for k in order]
    values = np.array([float(cell["data-value"]) for cell in page.of("td")]).reshape(3, 5)
    np.testing.assert_array_equal(values[:, 0], mixture.weights_[order])
    np.testing.assert_array_equal(values[:, 1], np.bincount(mixture.predict(frame), minlength=3)[order])
    np.testing.assert_array_equal(values[:, 2:], mixture.means_[order])
    for line, k in zip(table[1:], order, strict=True):
        for text, mean, deviation in zip(
            line[3:], mixture.means_[k], np.sqrt(np.diag(mixture.covariances_[k])), strict=True
        ):
            shown = [float(part.replace(",", "")) for part in text.split(" ± ")]
            np.testing.assert_allclose(shown, [mean, deviation], atol=deviation / 10)


def test_what_was_fitted_and_how(mixture, frame, tmp_path):
    found = facts(written(mixture, frame, path=tmp_path / "r.html"))
    assert found["components"] == "3 (full covariances)"
    assert found["features"] == "3"
    assert found["passes over the data"] == str(mixture.n_passes_)
    assert found["convergence"] == f"converged after {mixture.n_iter_} iterations"
    assert float(found["seconds"].split()[0]) >= 0
    assert found["seed"] == "0"
    assert found["tol"] == "1e-05"
    assert float(found["mean log-likelihood"]) == pytest.approx(mixture.score(frame), rel=1e-8)
    bic, aic = (float(part.replace(",", "")) for part in found["BIC, AIC (lower is better)"].split(", "))
    assert bic == pytest.approx(mixture.bic(frame), abs=0.06)
    assert aic == pytest.approx(mixture.aic(frame), abs=0.06)
    sure = mixture.predict_proba(frame).max(axis=1)
    assert found["rows with a component of 90% or more"] == f"{(sure >= 0.9).mean():.1%}"


def test_a_file_says_where_its_rows_and_weights_are(stored, tmp_path):
    data, weights = str(stored / "x.zarr"), str(stored / "w.zarr")
    GaussianMixture(2, random_state=0).fit(data, sample_weight=weights).save(tmp_path / "m")
    found = facts(written(tmp_path / "m", path=tmp_path / "r.html"))
    assert found["data"] == data
    assert found["fingerprint of the data"] == open_source(data).fingerprint()
    assert found["sample weights"].startswith(weights)
    assert found["rows"] == "3,000 (float64)"
    assert "seconds" not in found


def test_a_checkpoint_adds_the_seconds(rows, tmp_path):
    options = {"random_state": 0, "sample_size": 500}
    GaussianMixture(3, **options).fit(rows, checkpoint=tmp_path / "ck").save(tmp_path / "m")
    page = written(tmp_path / "m", path=tmp_path / "r.html", checkpoint=tmp_path / "ck")
    assert "for these iterations" in facts(page)["seconds"]
    GaussianMixture(2, **options).fit(rows).save(tmp_path / "other")
    with pytest.raises(CheckpointMismatch, match="does not hold the iterations"):
        dgmm.report(tmp_path / "other", path=tmp_path / "r.html", checkpoint=tmp_path / "ck")
    with pytest.raises(SourceNotFound, match="without checkpoints"):
        dgmm.report(tmp_path / "m", path=tmp_path / "r.html", checkpoint=tmp_path / "nothing")


def test_weights_count_in_the_density_and_the_likelihood(stored, tmp_path):
    data, weights = str(stored / "x.zarr"), str(stored / "w.zarr")
    mixture = GaussianMixture(3, random_state=0).fit(data, sample_weight=weights)
    found = facts(written(mixture, data, path=tmp_path / "r.html", sample_weight=weights))
    rows, w = zarr.open_array(data)[:], zarr.open_array(weights)[:]
    assert float(found["mean log-likelihood"]) == pytest.approx(mixture.score(rows, sample_weight=w), rel=1e-8)


def test_a_selection_shows_its_candidates(rows, tmp_path):
    found = dgmm.select(rows, (2, 3, 4), "diag", random_state=0, tol=1e-3)
    page = written(found.best, path=tmp_path / "r.html")
    assert facts(page)["chosen by"] == "bic, from 3 candidates"
    assert any("chosen: 3 components, diag" in image["alt"] for image in page.of("img"))


def test_one_pass_over_the_data_and_none_without(mixture, frame, tmp_path, monkeypatch):
    passes, run = [], dgmm.engine.passes.Passes.run
    monkeypatch.setattr(dgmm.engine.passes.Passes, "run", lambda self, work: passes.append(1) or run(self, work))
    dgmm.report(mixture, frame, tmp_path / "r.html")
    assert len(passes) == 1
    dgmm.report(mixture, path=tmp_path / "r.html")
    assert len(passes) == 1


# --- what deserves a look ------------------------------------------------------------------------------------


def remarks(page: Page) -> str:
    return " ".join(page.lists)


def test_a_sound_fit_has_no_remarks(mixture, frame, tmp_path):
    assert remarks(written(mixture, frame, path=tmp_path / "r.html")) == ""


def test_a_fit_that_did_not_converge(rows, tmp_path):
    with pytest.warns(match="did not converge"):
        mixture = GaussianMixture(3, random_state=0, max_iter=1, tol=0).fit(rows)
    assert "EM did not converge in 1 iterations" in remarks(written(mixture, path=tmp_path / "r.html"))


def test_components_on_few_rows_and_outliers(tmp_path):
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.normal(size=(900, 2)), rng.normal(30, 1, (20, 2)), np.full((2, 2), 1e5)])
    with pytest.warns(match=r"rest on|hold outliers"):
        mixture = GaussianMixture(3, random_state=0).fit(rows)
    text = remarks(written(mixture, rows, path=tmp_path / "r.html"))
    (few,) = np.flatnonzero(np.abs(mixture.weights_ - 20 / 922) < 0.005)
    (far,) = np.flatnonzero(mixture.weights_ < 0.005)
    assert f"Component {few} rests on fewer rows than 10 for each of the 5 parameters" in text
    assert re.search(rf"Components \[{far}\] (rest on|hold outliers)", text)


def test_nearly_equal_components_and_a_given_start(rows, tmp_path):
    start = {"weights_init": [0.5, 0.5], "means_init": [[0, 0, 0], [0, 0, 0.001]]}
    with pytest.warns(match="did not converge"):
        mixture = GaussianMixture(2, precisions_init=[np.eye(3)] * 2, max_iter=1, random_state=0, **start).fit(
            rows
        )
    text = remarks(written(mixture, path=tmp_path / "r.html"))
    assert "Components 0 and 1 are nearly equal" in text
    assert "The start was given (weights, means, covariances)" in text


def test_other_data_than_those_that_were_fitted(stored, rows, tmp_path):
    mixture = GaussianMixture(3, random_state=0).fit(str(stored / "x.zarr"))
    zarr.create_array(tmp_path / "y.zarr", data=rows + 3, chunks=(500, 3))
    text = remarks(written(mixture, str(tmp_path / "y.zarr"), path=tmp_path / "r.html"))
    assert "the fingerprint differs" in text
    assert "of the rows lie outside of a picture" in text
    same = remarks(written(mixture, str(stored / "x.zarr"), path=tmp_path / "r.html"))
    assert same == ""


def test_a_component_that_no_row_belongs_to(mixture, frame, tmp_path):
    k = int(np.argmin(mixture.weights_))
    own = frame[mixture.predict(frame) != k]
    assert f"Component {k} is the most likely one of no row" in remarks(
        written(mixture, own, path=tmp_path / "r.html")
    )


def test_a_mixture_from_elsewhere(tmp_path):
    from sklearn.mixture import GaussianMixture as Theirs

    theirs = Theirs(2, random_state=0).fit(np.random.default_rng(0).standard_normal((60, 1)))
    page = written(GaussianMixture.from_sklearn(theirs), path=tmp_path / "r.html")
    assert "was not fitted by dgmm" in remarks(page)
    assert "To make it again" not in page.text


# --- the file ------------------------------------------------------------------------------------------------


def test_it_asks_for_nothing_and_forbids_to(mixture, frame, tmp_path):
    page = written(mixture, frame, path=tmp_path / "r.html")
    assert page.references == []
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    for svg in pictures(page):
        assert not re.findall(r"(?:href|src)=\"(?!data:|#)", svg)
        assert "<script" not in svg


def test_hostile_names_are_text(mixture, frame, tmp_path):
    page = written(mixture, frame, path=tmp_path / "r.html")
    assert HOSTILE in page.tables[0][0]
    assert len(page.of("script")) == 1
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert len(page.of("img")) == len(pictures(page))
    for svg in pictures(page):
        root = ET.fromstring(svg)
        assert not [e for e in root.iter() if e.tag.endswith(("script", "foreignObject"))]
    shown = [svg for svg in pictures(page) if "alert(1)" in svg]
    assert shown, "the name is an axis' title"
    assert all("&lt;script&gt;alert(1)" in svg for svg in shown)


def test_pictures_have_texts_for_those_who_do_not_see_them(mixture, frame, tmp_path):
    page = written(mixture, frame, path=tmp_path / "r.html")
    texts = [image["alt"] for image in page.of("img")]
    assert len(texts) == len(set(texts)) == 3 + 2
    assert all(len(text) > 20 for text in texts)


def test_the_same_but_for_the_time(mixture, frame, tmp_path, monkeypatch):
    def timeless(path):
        return re.sub(r"<time.*?</time>", "", path.read_text())

    dgmm.report(mixture, frame, tmp_path / "a.html")
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "text.color": "red", "axes.facecolor": "blue", "svg.hashsalt": "x"}):
        dgmm.report(mixture, frame, tmp_path / "b.html")
        assert mpl.rcParams["font.size"] == 30, "the user's style is left as it was"
    assert timeless(tmp_path / "a.html") == timeless(tmp_path / "b.html")
    assert (tmp_path / "a.html").read_text().count("<time") == 1


@pytest.mark.slow
def test_no_backend_is_chosen_for_the_user(mixture, tmp_path):
    mixture.save(tmp_path / "m")
    code = (
        "import sys, dgmm; dgmm.report(sys.argv[1], path=sys.argv[2]);"
        "print('matplotlib.pyplot' in sys.modules, sys.modules['matplotlib'].get_backend(auto_select=False))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m", tmp_path / "r.html"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "None"]


def test_a_table_of_very_many_cells_leaves_features_out(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr("dgmm.reporting.facts._CELLS", 6)
    page = written(mixture, path=tmp_path / "r.html")
    assert page.tables[0][0] == ["component", "weight", *NAMES[:2]]
    assert "1 more features: dgmm info --json has all" in page.text


def test_a_single_feature_and_a_single_component(tmp_path):
    rows = np.random.default_rng(4).standard_normal((500, 1))
    page = written(GaussianMixture(1, random_state=0).fit(rows), rows, path=tmp_path / "r.html")
    assert facts(page)["components"] == "1 (full covariances)"
    assert len(page.of("img")) >= 1


def test_what_cannot_be_reported_leaves_the_earlier_file(mixture, frame, tmp_path):
    (tmp_path / "r.html").write_text("earlier")
    with pytest.raises(ShapeMismatch):
        dgmm.report(mixture, frame.to_numpy()[:, :2], tmp_path / "r.html")
    with pytest.raises(SourceNotFound):
        dgmm.report(tmp_path / "none", path=tmp_path / "r.html")
    with pytest.raises(InvalidParameter, match="without data"):
        dgmm.report(mixture, path=tmp_path / "r.html", sample_weight=np.ones(N))
    assert (tmp_path / "r.html").read_text() == "earlier"
    with pytest.raises(InvalidParameter, match=r"path is .*/nowhere does not exist; create it"):
        dgmm.report(mixture, frame, tmp_path / "nowhere/r.html")


# --- the command that makes it again -------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The arguments of dgmm that a shell makes of a command."""
    script = "dgmm() { printf '%s\\0' \"$@\"; }; " + text
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def assert_same_bits(one: Path, other: Path) -> None:
    """All but `random_state`, which says whether the seed was given or drawn."""
    first, second = Model.load(one), Model.load(other)
    for model in (first, second):
        model.settings.pop("random_state", None)
    assert first.pack() == second.pack()


def run_again(text: str, name: Path, monkeypatch) -> None:
    """Write the model file of a report's command under another name."""
    words = words_of(text)
    assert words[-2:] == ["--model", "m"]
    assert in_process(monkeypatch, *words[:-1], name, local=True) == 0


@pytest.mark.parametrize(
    "options",
    [
        "-k 3",  # the seed is drawn
        "-k 2 --covariance-type tied --n-init 2 --n-finalists 2 --no-accelerate --tol 1e-4 --sample-size 700",
        "-k 2 --weights w.zarr --reg-covar 0.001 --reg-relative 0.01 --init-params kmeans --max-passes 40",
        "-k 2 --missing drop --max-iter 200 --standardize --covariance-type spherical",
    ],
)
def test_the_command_of_a_fit_gives_the_same_bits(options, stored, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(stored)
    made, again = tmp_path / "m", tmp_path / "again"
    assert in_process(monkeypatch, "fit", "x.zarr", *options.split(), "--model", made, local=True) == 0
    model = Model.load(made)
    text = command(model, "m")
    run_again(text, again, monkeypatch)
    assert_same_bits(again, made)
    assert text in Page(Path(dgmm.report(made, path=tmp_path / "r.html")).read_text()).code
    capsys.readouterr()


def test_the_command_of_a_grid_gives_the_same_bits(rows, monkeypatch, tmp_path, capsys):
    import xarray as xr

    monkeypatch.chdir(tmp_path)
    cells = rows[:2400].reshape(40, 60, 3).copy()
    cells[:5, :9] = np.nan
    grid = xr.Dataset({"temp": (("lat", "lon", "depth"), cells), "ice": (("lat", "lon"), cells[..., 0])})
    grid.to_zarr("grid.zarr", consolidated=False)
    made, again = tmp_path / "m", tmp_path / "again"
    options = ("--variables", "temp", "--feature-dim", "depth", "-k", 2)
    assert in_process(monkeypatch, "fit", "grid.zarr", *options, "--model", made, local=True) == 0
    found = command(Model.load(made), "m")
    assert "--feature-dim depth" in found
    run_again(found, again, monkeypatch)
    assert_same_bits(again, made)
    page = Page(Path(dgmm.report(made, path="r.html")).read_text())
    assert facts(page)["rows"] == f"{2400 - 45:,}, 45 with missing values left out (float64)"
    capsys.readouterr()


@pytest.mark.parametrize("options", ["--criterion aic", "--criterion holdout --holdout 0.2 --n-init 2 --tol 1e-3"])
def test_the_command_of_a_selection_gives_the_same_bits(options, stored, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(stored)
    monkeypatch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)
    made, again = tmp_path / "m", tmp_path / "again"
    candidates = ["--components", "1..3,5", "--covariance-types", "diag,spherical"]
    call = ("select", "x.zarr", *candidates, *options.split(), "--model", made)
    assert in_process(monkeypatch, *call, local=True) == 0
    text = command(Model.load(made), "m")
    assert "1..3,5" in words_of(text)
    run_again(text, again, monkeypatch)
    assert_same_bits(again, made)
    capsys.readouterr()


@pytest.mark.parametrize("data", ["x.zarr", None])
def test_lines_of_python_give_the_same_model(data, stored, rows, monkeypatch, tmp_path):
    monkeypatch.chdir(stored)
    weights = np.linspace(1, 2, N)
    settings = {"covariance_type": "diag", "n_init": 2, "tol": 1e-4}
    mixture = GaussianMixture(2, random_state=7, **settings).fit(data or rows, sample_weight=weights)
    mixture.save(tmp_path / "m")
    text = command(Model.load(tmp_path / "m"), str(tmp_path / "again"))
    scope = {"rows": rows, "weights": weights}
    exec(text, scope)
    assert_same_bits(tmp_path / "again", tmp_path / "m")


def test_names_with_commas_are_no_options(rows, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(rows, columns=["a,b", "c", "d"]).to_parquet("t.parquet")
    mixture = GaussianMixture(2, random_state=0).fit(dgmm.open_source("t.parquet", variables=["a,b", "c"]))
    mixture.save("m")
    exec(command(mixture._model, "again"), {})
    assert_same_bits(Path("again"), Path("m"))


def test_python_for_a_selection_and_a_given_start(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(dgmm.engine.search, "_ROUNDS_PER_COMPONENT", 0)
    found = dgmm.select(rows, (1, 2), ("diag", "tied"), random_state=1, tol=1e-3)
    found.best.save(tmp_path / "m")
    scope = {"rows": rows}
    exec(command(found.best._model, str(tmp_path / "again")), scope)
    assert_same_bits(tmp_path / "again", tmp_path / "m")
    given = GaussianMixture(1, means_init=[[0.0, 0, 0]], random_state=0).fit(rows)
    assert "means_init=..." in command(given._model, "m")


def test_addresses_are_quoted_for_the_shell(rows, monkeypatch, tmp_path):
    folder = tmp_path / "it's $HOME; rm"
    folder.mkdir()
    zarr.create_array(folder / "x.zarr", data=rows, chunks=(500, 3))
    mixture = GaussianMixture(1, random_state=0).fit(folder / "x.zarr")
    assert words_of(command(mixture._model, "m"))[1] == str(folder / "x.zarr")
