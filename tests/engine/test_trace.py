"""What a fit says of its iterations: history_, n_passes_, `dgmm info`, and the range that the scan finds."""

from __future__ import annotations

import json
import warnings

import dask.array as da
import numpy as np
import pytest
from cases import TYPES, mixture
from commands import in_process
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

import dgmm.engine.settings
from dgmm import GaussianMixture, load
from dgmm.data.opening import open_source, open_weights
from dgmm.engine.events import Iterated
from dgmm.engine.passes import Passes
from dgmm.engine.run import Silence
from dgmm.engine.sampled import Run
from dgmm.engine.scan import scan
from dgmm.engine.threads import LocalScheduler
from dgmm.engine.trace import Step, pack_trace, unpack_trace
from dgmm.mixture.em import EMState

FIELDS = ("log_likelihood", "gain", "seconds", "rows_per_second", "smallest_weight", "smallest_eigenvalue")
D, N = 2, 3000


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 1e3])
    return rng.permutation(mixture("full", 3, D, rng, spread=2.0).sample(N, rng)[0]) * scale


@pytest.fixture
def small_sample(monkeypatch):
    monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1)  # 1000 rows


class States(Silence):
    """The best finalist after each pass."""

    def __init__(self):
        self.seen: list[Run] = []

    def on_event(self, event):
        if isinstance(event, Iterated):
            self.seen.append(event.best)


def fitted(rows, name="full", observer=None, checkpoint=None, **changes):
    how = {"n_components": 3, "covariance_type": name, "random_state": 0, "max_iter": 5, "tol": 0.0, **changes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(**how).fit(rows, observer=observer, checkpoint=checkpoint)


# --- history_ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_the_history_is_that_of_the_parameters(rows, small_sample, name):
    states = States()
    model = fitted(rows, name, states)
    found = model.history_
    assert found.dtype.names == FIELDS
    assert len(found) == model.n_iter_ == len(states.seen) == 5
    assert found["log_likelihood"].tolist() == model.lower_bounds_
    for row, run in zip(found, states.seen, strict=True):
        parameters = run.state.parameters
        k, d = parameters.means.shape
        full = parameters.covariance.full(parameters.covariances, k, d)
        assert row["smallest_weight"] == parameters.weights.min()
        assert row["smallest_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(full).min(), rel=1e-10)
    assert found["smallest_weight"][-1] == model.weights_.min()


@pytest.mark.parametrize("complete", [False, True], ids=["passes", "sample"])
def test_gains_and_rates_follow_from_the_rest(rows, monkeypatch, complete):
    if not complete:
        monkeypatch.setattr(dgmm.engine.settings, "SAMPLE_ROWS", 1)
    found = fitted(rows).history_
    assert np.isnan(found["gain"][0])
    np.testing.assert_array_equal(found["gain"][1:], np.diff(found["log_likelihood"]))
    assert np.all(found["seconds"] > 0)
    np.testing.assert_array_equal(found["rows_per_second"], N / found["seconds"])


def test_eigenvalues_do_not_depend_on_the_units_of_the_data(rows):
    a, b = (fitted(rows * unit, reg_covar=0).history_["smallest_eigenvalue"] for unit in (1.0, 2.0**-20))
    np.testing.assert_allclose(a, b, rtol=1e-12)
    assert np.all((a > 1e-3) & (a < 10))


def test_a_model_file_knows_all_but_the_seconds(rows, tmp_path):
    model = fitted(rows)
    model.save(tmp_path / "m")
    found = load(tmp_path / "m").history_
    for field in FIELDS:
        if field in ("seconds", "rows_per_second"):
            assert np.isnan(found[field]).all()
        else:
            np.testing.assert_array_equal(found[field], model.history_[field])
    assert load(tmp_path / "m").n_passes_ == model.n_passes_


def test_a_fit_that_goes_on_remembers_what_it_took(rows, small_sample, tmp_path):
    first = fitted(rows, checkpoint=tmp_path, max_iter=3).history_
    again = fitted(rows, checkpoint=tmp_path, max_iter=5).history_
    assert again[:3].tobytes() == first.tobytes()
    assert len(again) == 5


def test_no_iterations_are_an_empty_history(rows, small_sample):
    model = fitted(rows, max_iter=0)
    assert model.history_.shape == (0,)
    assert model.history_.dtype.names == FIELDS


@given(st.lists(st.builds(Step, *[st.floats(allow_nan=False)] * 4), max_size=5).map(tuple))
def test_a_packed_trace_comes_back(trace):
    assert unpack_trace(pack_trace(trace)) == trace


@pytest.mark.parametrize("name", TYPES)
def test_a_step_is_of_the_state_that_it_ends_in(name):
    parameters = mixture(name, 4, 3, np.random.default_rng(1))
    step = Step.of(EMState(parameters, (-3.0, -2.0)), 0.5)
    assert (step.log_likelihood, step.smallest_weight, step.seconds) == (-2.0, parameters.weights.min(), 0.5)
    assert step.smallest_eigenvalue == parameters.covariance.smallest_eigenvalue(parameters.covariances)


# --- n_passes_ -----------------------------------------------------------------------------------------------


def test_the_scan_is_the_only_pass_where_the_sample_is_everything(rows):
    model = fitted(rows)
    assert (model.n_passes_, model.n_iter_) == (1, 5)


def test_every_full_iteration_is_a_pass(rows, small_sample):
    assert fitted(rows).n_passes_ == 6
    assert fitted(rows, max_iter=0).n_passes_ == 1
    given_start = {"weights_init": np.full(3, 1 / 3), "means_init": rows[:3], "precisions_init": [np.eye(D)] * 3}
    assert fitted(rows, **given_start).n_passes_ == 6
    assert fitted(rows, n_init=3, n_finalists=3).n_passes_ == 6


# --- dgmm info -----------------------------------------------------------------------------------------------


@pytest.fixture
def info(monkeypatch, capsys):
    def ask(path):
        """The text that a person reads, and what a program does."""
        answers = []
        for arguments in (("info", path), ("info", path, "--json")):
            assert in_process(monkeypatch, *arguments) == 0
            answers.append(capsys.readouterr().out)
        return answers[0], json.loads(answers[1])

    return ask


def expected_records(history):
    return [{name: None if np.isnan(row[name]) else float(row[name]) for name in FIELDS} for row in history]


def test_info_of_a_model_shows_its_iterations(rows, small_sample, tmp_path, info):
    model = fitted(rows)
    model.save(tmp_path / "m")
    text, facts = info(tmp_path / "m")
    assert facts["n_passes"] == 6
    assert facts["history"] == expected_records(load(tmp_path / "m").history_)
    assert "after 5 iterations and 6 passes over the data" in text
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if "smallest eigenvalue" in line)
    assert "seconds" not in lines[header]
    assert lines[header + 5].split()[:2] == ["5", f"{model.lower_bound_:.9g}"]


def test_info_of_a_checkpoint_shows_its_iterations_and_what_they_took(rows, small_sample, tmp_path, info):
    model = fitted(rows, checkpoint=tmp_path, n_init=2)
    text, facts = info(tmp_path)
    assert (facts["n_passes"], facts["iterations"]) == (6, 5)
    assert facts["history"] == expected_records(model.history_)
    assert facts["log_likelihood"] == model.lower_bound_
    assert {"start-0000-0", "start-0001-0"} <= set(facts["runs"])
    assert "rows per second" in text
    assert f"iterations on all rows: 5, log-likelihood {model.lower_bound_:.9g}" in text
    assert "start 2: " in text


def test_info_of_a_checkpoint_on_a_complete_sample(rows, tmp_path, info):
    model = fitted(rows, checkpoint=tmp_path)
    text, facts = info(tmp_path)
    assert (facts["n_passes"], facts["iterations"]) == (1, 0)
    assert facts["history"] == expected_records(model.history_)
    assert "the sample is all rows" in text


# --- the range of the data -----------------------------------------------------------------------------------


def scanned(rows, weights, chunk):
    source = open_source(da.from_array(rows, chunks=(chunk, rows.shape[1])))
    w = None if weights is None else open_weights(weights, source)
    return scan(Passes(source, w, LocalScheduler()), sample_rows=10, seed=0)


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 60), st.booleans(), st.integers(0, 2**32 - 1))
def test_low_and_high_are_those_of_the_rows_that_count(n, d, chunk, weighted, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)).astype(rng.choice([np.float32, np.float64]))
    weights = rng.integers(0, 2, n).astype(float) if weighted else None
    if weighted:
        weights[rng.integers(n)] = 1.0
    counted = rows if weights is None else rows[weights > 0]
    found = scanned(rows, weights, chunk)
    np.testing.assert_array_equal(found.low, counted.min(axis=0))
    np.testing.assert_array_equal(found.high, counted.max(axis=0))


def test_a_scan_survives_a_checkpoint(rows, small_sample, tmp_path):
    """A scan that was read back is the scan: the fit that goes on ends with the same bits."""
    whole = fitted(rows, reg_relative=1e-3)
    fitted(rows, checkpoint=tmp_path, reg_relative=1e-3, max_passes=3)
    assert fitted(rows, checkpoint=tmp_path, reg_relative=1e-3).lower_bounds_ == whole.lower_bounds_
