"""Files of every schema that there has been load with the values they were written with, for ever.

tests/faults/golden/schema-N was made by ``python tests/faults/make_golden.py tests/faults/golden/schema-N``, with
the first version that wrote schema N: models of all covariance types, and checkpoints of fits and of a selection.
expected.json says what they hold. That a later schema and a foreign file are refused is in tests/engine.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from make_golden import CHECKPOINTS, ITERATIONS, TYPES, facts_of_checkpoint, facts_of_model, fit, rows_of
from sklearn.exceptions import ConvergenceWarning

import dgmm
from dgmm.engine import archive
from dgmm.engine.events import Event, Iterated, Scanned, Searched
from dgmm.engine.model import Model
from dgmm.engine.run import Silence
from dgmm.errors import EnvironmentWarning

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())


@pytest.fixture(params=GOLDEN, ids=lambda folder: folder.name)
def golden(request):
    return request.param


def expected(golden: Path) -> dict:
    return json.loads((golden / "expected.json").read_text())


def test_this_version_s_schema_is_among_them():
    assert [folder.name for folder in GOLDEN] == [f"schema-{n}" for n in range(1, archive.SCHEMA + 1)]


@pytest.mark.parametrize("kind", TYPES)
def test_a_model_holds_what_it_held(golden, kind):
    facts = expected(golden)["models"][kind]
    assert facts_of_model(Model.load(golden / f"{kind}.dgmm")) == facts["stored"]
    model = dgmm.load(golden / f"{kind}.dgmm")
    rows = rows_of(golden)
    np.testing.assert_array_equal(model.predict(rows), facts["predicted"]["labels"])
    np.testing.assert_allclose(model.score_samples(rows), facts["predicted"]["log_densities"], rtol=1e-10)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_holds_what_it_held(golden, name):
    assert facts_of_checkpoint(golden / name) == expected(golden)["checkpoints"][name]


class Events(Silence):
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.seen.append(event)


def test_a_fit_goes_on_from_a_checkpoint(golden, tmp_path):
    shutil.copytree(golden / "fit", tmp_path / "fit")
    events = Events()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", EnvironmentWarning)  # written where it was written
        model = fit(rows_of(golden), tmp_path / "fit", n_init=2, max_iter=ITERATIONS + 2, observer=events)
    assert not [event for event in events.seen if isinstance(event, Scanned | Searched)]
    assert len([event for event in events.seen if isinstance(event, Iterated)]) == 2
    wanted = expected(golden)["log_likelihoods_two_iterations_later"]
    np.testing.assert_allclose(model.lower_bounds_, wanted, rtol=1e-10)
