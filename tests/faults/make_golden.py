"""Writes the files that later versions have to load, and what they hold as people can read it.

    python tests/faults/make_golden.py FOLDER

For a new schema: into tests/faults/golden/schema-N. What is there is never written again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import dgmm
from dgmm import GaussianMixture
from dgmm.engine import record
from dgmm.engine.model import Model
from dgmm.engine.run import Observer
from dgmm.engine.sampled import Run

TYPES = ("full", "tied", "diag", "spherical")
CHECKPOINTS = ("fit", "accelerated", "selection")
ITERATIONS = 4
SEED, SAMPLE = 5, 100


def rows_of(folder: Path) -> np.ndarray:
    return np.load(folder / "rows.npy")


def fit(
    rows: np.ndarray,
    checkpoint: Path | None,
    kind: str = "full",
    max_iter: int = ITERATIONS,
    observer: Observer | None = None,
    **settings: Any,
) -> GaussianMixture:
    """The fit of a golden file; with another `max_iter` it goes on from a golden checkpoint."""
    shared = {"tol": 0, "random_state": SEED, "sample_size": SAMPLE, "accelerate": False}
    model = GaussianMixture(2, covariance_type=kind, max_iter=max_iter, **(shared | settings))
    return model.fit(rows, checkpoint=checkpoint, observer=observer)


def facts_of_model(model: Model) -> dict[str, Any]:
    """All that a model file holds; floats as they print, which is exact."""
    return {
        "parameters": _listed(vars(model.parameters)),
        "frame": _listed(vars(model.frame)),
        "dtype": model.dtype.name,
        "radius_squared": model.radius_squared,
        "converged": model.converged,
        "log_likelihoods": list(model.history),
        "n_passes": model.n_passes,
        "n_rows": model.n_rows,
        "n_missing": model.n_missing,
        "weight": model.weight,
        "feature_names": list(model.feature_names),
        "settings": model.settings,
        "data": model.origin.data,
    }


def facts_of_checkpoint(directory: Path) -> dict[str, Any]:
    """What a checkpoint's folder holds, as far as a fit goes on from it."""
    identity, progress = record.read(directory)
    scan = progress.scan
    return {
        "identity": identity,
        "scan": {**_listed(vars(scan)), "frame": _listed(vars(scan.frame))},
        "runs": {name: _facts_of_run(run) for name, run in progress.runs.items()},
        "finalists": {name: _facts_of_run(run) for name, run in progress.finalists.items()},
        "criteria": {name: vars(found) for name, found in progress.judged.criteria.items()}
        if progress.judged
        else {},
    }


def _facts_of_run(run: Run) -> dict[str, Any]:
    memory = run.state.acceleration
    return {
        "parameters": _listed(vars(run.state.parameters)),
        "log_likelihoods": list(run.state.history),
        "failed": run.failed,
        "collapsed": list(run.collapsed),
        "acceleration": memory and _listed(vars(memory)),
    }


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of them: arrays as lists, and numbers and texts."""
    arrays = {name: value.tolist() for name, value in values.items() if isinstance(value, np.ndarray)}
    return arrays | {name: value for name, value in values.items() if isinstance(value, int | float | str)}


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([rng.normal(0, 1, (120, 2)), rng.normal(3, 2, (80, 2))])
    rng.shuffle(rows)
    np.save(folder / "rows.npy", rows.astype("f4"))
    rows = rows_of(folder)
    warnings.simplefilter("ignore", ConvergenceWarning)
    facts: dict[str, Any] = {"models": {}, "checkpoints": {}}
    for kind in TYPES:
        model = fit(rows, None, kind)
        model.save(folder / f"{kind}.dgmm")
        stored = facts_of_model(Model.load(folder / f"{kind}.dgmm"))
        predicted = {"labels": model.predict(rows).tolist(), "log_densities": model.score_samples(rows).tolist()}
        facts["models"][kind] = {"stored": stored, "predicted": predicted}
    fit(rows, folder / "fit", n_init=2)
    fit(rows, folder / "accelerated", accelerate=True)
    dgmm.select(
        rows, [1, 2], ("full", "diag"), checkpoint=folder / "selection",
        random_state=SEED, sample_size=SAMPLE, tol=0, max_iter=ITERATIONS,
    )  # fmt: skip
    for owner in folder.glob("*/owner-*.json"):
        # Whose machine made the files is nobody's business.
        whole = json.loads(owner.read_text()) | {"host": "golden", "boot": ""}
        owner.write_text(json.dumps(whole, sort_keys=True))
    for name in CHECKPOINTS:
        facts["checkpoints"][name] = facts_of_checkpoint(folder / name)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder / "fit", copy, dirs_exist_ok=True)
        gone_on = fit(rows, Path(copy), max_iter=ITERATIONS + 2, n_init=2)
    facts["log_likelihoods_two_iterations_later"] = list(gone_on.lower_bounds_)
    (folder / "expected.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
