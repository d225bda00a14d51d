"""Errors on data that are hard on the arithmetic, and how often published optima are reached.

    python benchmarks/numerics.py [--only table] [--only optima] [--seeds 20]

table: for each kind of input the largest error over the covariance types (spherical with one unit alone), next to
what it has to stay below. Errors are relative to the largest entry of the array in question.
optima: for each case in tests/ground_truth the log-likelihood of n_init=50 with reg_covar=0 beside the known one,
and of how many seeds the default fit (n_init=1) ends within 0.02 of it, with split-and-merge moves and without;
the others ended at a saddle or another optimum.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.errors import DgmmWarning

TYPES = ("full", "tied", "diag", "spherical")
TRUTH = Path(__file__).parents[1] / "tests" / "ground_truth"
MEANS = np.array([[0.0, 0.0, 0.0], [9.0, -3.0, 5.0], [-4.0, 8.0, 7.0]])
Row = tuple[str, str, float, float]


def clusters(n: int = 600) -> np.ndarray:
    """Three clusters of unit width; multiples of 2^-10, so that offsets are exact."""
    rows = MEANS[np.arange(n) % 3] + np.random.default_rng(0).standard_normal((n, 3))
    return np.round(rows * 1024) / 1024


def fitted(rows: Any, name: str, k: int = 3, weights: Any = None, **options: Any) -> GaussianMixture:
    """A quiet fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DgmmWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(k, covariance_type=name, **{"random_state": 0, **options})
        return model.fit(rows, sample_weight=weights)


def error(found: Any, expected: Any) -> float:
    """Relative to the largest entry."""
    return float(np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected)))


def apart(found: GaussianMixture, expected: GaussianMixture) -> float:
    """The largest error of weights, means and covariances, components in the same order."""
    names = ("weights_", "means_", "covariances_")
    return max(error(getattr(found, name), getattr(expected, name)) for name in names)


def given_start(rows: np.ndarray, name: str, k: int = 3) -> dict[str, Any]:
    """A complete start, and few iterations from it."""
    start = fitted(rows, name, k, max_iter=1)
    return {
        "weights_init": start.weights_ / start.weights_.sum(),
        "means_init": start.means_,
        "precisions_init": start.precisions_,
        "max_iter": 5,
        "tol": 0.0,
    }


def offsets() -> Iterator[Row]:
    rows = clusters()
    for offset in (1e3, 1e6, 1e8, 1.7e9):
        pairs = [(fitted(rows + offset, name), fitted(rows, name)) for name in TYPES]
        assert all(np.array_equal(far.predict(rows + offset), near.predict(rows)) for far, near in pairs)
        worst = max(error(far.covariances_, near.covariances_) for far, near in pairs)
        yield "offset", f"{offset:g}, float64: covariances", worst, 1e-6


def units() -> Iterator[Row]:
    rows, scale = clusters(), np.array([1e-12, 1.0, 1e12])
    for relative in (0.0, 1e-6):
        worst = 0.0
        for name in TYPES:
            unit = np.full(3, 1e12) if name == "spherical" else scale
            options = {"reg_covar": 0, "reg_relative": relative}
            near, far = fitted(rows, name, **options), fitted(rows * unit, name, **options)
            squared = {"full": np.outer(unit, unit), "tied": np.outer(unit, unit), "diag": unit**2}.get(
                name, unit[0] ** 2
            )
            worst = max(
                worst, error(far.means_ / unit, near.means_), error(far.covariances_ / squared, near.covariances_)
            )
        yield "units", f"1e-12, 1, 1e12, reg_relative={relative:g}", worst, 1e-8


def repeats() -> Iterator[Row]:
    rows = clusters(60)
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, 60)
    copies, absent, scaled = 0.0, 0.0, 0.0
    for name in TYPES:
        start = given_start(rows, name)
        heavy = fitted(rows, name, weights=np.full(60, 1000.0), **start)
        copies = max(copies, apart(fitted(np.repeat(rows, 1000, axis=0), name, **start), heavy))
        weighted = fitted(rows, name, weights=counts.astype(float), **start)
        absent = max(absent, apart(fitted(np.repeat(rows, counts, axis=0), name, **start), weighted))
        scaled = max(scaled, apart(fitted(rows, name, weights=counts * 1e12, **start), weighted))
    yield "weights", "1000 copies of each row; a weight of 1000", copies, 1e-12
    yield "", "weights 0 to 3; that many copies", absent, 1e-12
    yield "", "the same weights times 1e12", scaled, 1e-12


def one_component() -> Iterator[Row]:
    rows = clusters()
    covariance = np.cov(rows.T, bias=True)
    expected = {"full": covariance[None], "tied": covariance, "diag": np.diag(covariance)[None]}
    worst = 0.0
    for name in TYPES:
        model = fitted(rows, name, 1, reg_covar=0)
        found = expected.get(name, np.array([np.trace(covariance) / 3]))
        worst = max(worst, error(model.means_[0], rows.mean(axis=0)), error(model.covariances_, found))
    yield "K = 1", "numpy.mean, numpy.cov(bias=True)", worst, 1e-12


def outliers() -> Iterator[Row]:
    small = np.concatenate([clusters(), np.full((1, 3), 1e8)])
    large = clusters(1_000_000)
    large[123_456] = 1e8
    for label, rows in (("601 rows", small), ("1,000,000 rows, sample of 50,000", large)):
        worst = 0.0
        for name in TYPES:
            means = fitted(rows, name, 4).means_
            others = np.array(sorted(means[np.abs(means).max(axis=1) < 1e6], key=lambda mean: mean[0]))
            alone = fitted(rows[np.abs(rows).max(axis=1) < 1e6], name).means_
            worst = max(worst, error(others, np.array(sorted(alone, key=lambda mean: mean[0]))))
        yield "an outlier at 1e8", f"{label}, K + 1: means of the others", worst, 1e-2


def many_features() -> Iterator[Row]:
    for d in (500, 2000):
        rows = np.random.default_rng(0).standard_normal((5000, d)) + 4 * (np.arange(5000) % 2)[:, None]
        worst = 0.0
        for name in TYPES if d == 500 else ("diag", "spherical"):
            model = fitted(rows, name, 2, max_iter=1)
            for size in (1.0, 1e6):
                assert np.isfinite(model.score_samples(rows[:500] * size)).all()
                worst = max(worst, float(np.abs(model.predict_proba(rows[:500] * size).sum(axis=1) - 1).max()))
        yield f"D = {d}", "sum of responsibilities less 1, where densities underflow too", worst, 1e-12


def table() -> None:
    """Print the errors."""
    parts: tuple[Callable[[], Iterator[Row]], ...] = (
        offsets, units, repeats, one_component, outliers, many_features,
    )  # fmt: skip
    print(f"{'input':20}{'':60}{'largest error':>14}{'below':>8}")
    for part in parts:
        for what, how, found, limit in part():
            mark = "" if found <= limit else "  MISSED"
            print(f"{what:20}{how:60}{found:14.1e}{limit:8.0e}{mark}", flush=True)


def optima(n_seeds: int) -> None:
    """Print which published optima are reached."""
    print(f"{'case':22}{'known':>13}{'n_init=50':>13}{'default fit reaches it':>25}{'without moves':>16}")
    for case, known in json.loads((TRUTH / "ground_truth.json").read_text()).items():
        rows = np.loadtxt(TRUTH / known["data"], delimiter=",", ndmin=2)
        kind, k = known["covariance_type"], known["n_components"]
        best = fitted(rows, kind, k, n_init=50, reg_covar=0).score(rows) * len(rows)
        reached = []
        # Given weights turn moves off.
        for given in ({}, {"weights_init": np.full(k, 1 / k)}):
            ends = [fitted(rows, kind, k, random_state=seed, **given).score(rows) for seed in range(n_seeds)]
            reached.append(sum(abs(end * len(rows) - known["log_likelihood"]) < 0.02 for end in ends))
        shares = f"{reached[0]:19} of {n_seeds}{reached[1]:10} of {n_seeds}"
        print(f"{case:22}{known['log_likelihood']:13.4f}{best:13.4f}{shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["table", "optima"])
    parser.add_argument("--seeds", type=int, default=20, help="of the default fits")
    arguments = parser.parse_args()
    if arguments.only != "optima":
        table()
    if arguments.only != "table":
        optima(arguments.seeds)


if __name__ == "__main__":
    main()
