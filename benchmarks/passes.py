"""Passes over the data and the log-likelihood they lead to, beside scikit-learn; why the sample has its size.

    python benchmarks/passes.py [--only separated flights] [--rows 1000000] [--seeds 1] [--sklearn]
    python benchmarks/passes.py --sample-sizes [5000 50000]
    python benchmarks/passes.py --starts [--rows 50000]

Data: the six mixtures of benchmarks/mixtures.py, and the flights of `dgmm demo`; full covariances. scikit-learn's
algorithm runs on dgmm's E-step (benchmarks/sklearn_algorithm.py), since scikit-learn itself takes hours; the same
run compares both on the first 20,000 rows. `--sklearn` runs scikit-learn itself on all rows.

Of scikit-learn a pass is one E-step with its M-step, or the first M-step. Each iteration of k-means reads the data
too, and is counted apart. Not counted: k-means++ seeding, and scikit-learn's last E-step, which labels the rows.
Of dgmm a pass is what `n_passes_` counts: the scan, and each iteration over all rows. Log-likelihoods are those of
the final parameters, per row, from one more pass that nobody is charged with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

import mixtures
import numpy as np
from sklearn_algorithm import TOL, Emulated, best, real, seconds_an_iteration
from starts import table as table_of_starts

from dgmm import GaussianMixture
from dgmm.demo import flights_file, read_flights
from dgmm.engine.fit import Event, Iterated
from dgmm.engine.run import Silence
from dgmm.mixture.parameters import Parameters

NAMES = [*mixtures.MIXTURES, "flights"]
SAMPLE_SIZES = [5_000, 10_000, 20_000, 50_000, 100_000, 200_000]
VERIFIED_ROWS = 20_000
N_INIT = 10
MARGIN = 1e-4
# As `dgmm demo` has them. Rows are standardised: its reg_relative is then reg_covar, which scikit-learn has too.
FLIGHTS_COMPONENTS, FLIGHTS_REG = 7, 1e-3


@dataclass(frozen=True, eq=False)
class Data:
    """Rows, and what is known of them."""

    name: str
    rows: np.ndarray
    n_components: int
    truth: Parameters | None = None
    reg_covar: float = 1e-6

    def __str__(self) -> str:
        n, d = self.rows.shape
        return f"{self.name}: {n:,} x {d}, K={self.n_components}"


def load(name: str, n_rows: int) -> Data:
    """The rows of a name; of the flights at most as many as there are."""
    if name != "flights":
        rows, truth = mixtures.generate(name, n_rows, seed=0)
        return Data(name, rows, truth.n_components, truth)
    rows = np.random.default_rng(0).permutation(read_flights(flights_file()).astype(np.float64))[:n_rows]
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return Data(name, rows, FLIGHTS_COMPONENTS, reg_covar=FLIGHTS_REG)


class SearchClock(Silence):
    """Says when the first full pass began."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds = 0.0

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Iterated):
            self.seconds = time.perf_counter() - self._began


@dataclass(frozen=True)
class Found:
    """What a fit found, and what it took."""

    passes: int
    log_likelihood: float
    seconds: float
    lloyd: int | None = 0
    search_seconds: float | None = None


def ours(data: Data, n_init: int, seed: int, sample_size: int | None = None) -> Found:
    """A fit of dgmm."""
    model = GaussianMixture(
        data.n_components, reg_covar=data.reg_covar, n_init=n_init, sample_size=sample_size, random_state=seed
    )
    clock, began = SearchClock(), time.perf_counter()
    model.fit(data.rows, observer=clock)
    seconds = time.perf_counter() - began
    return Found(model.n_passes_, model.score(data.rows), seconds, search_seconds=clock.seconds)


def sklearn_itself(data: Data, n_init: int, seed: int) -> Found:
    """A fit of scikit-learn."""
    began = time.perf_counter()
    model = real(data.rows, data.n_components, data.reg_covar, n_init, seed)
    return Found(model.passes, model.score(data.rows), time.perf_counter() - began, lloyd=None)


def sklearn_algorithm(data: Data, n_init: int, seed: int) -> tuple[Found, Found, str]:
    """scikit-learn's algorithm with `n_init` starts, with one, and what scikit-learn itself would have taken."""
    emulated = Emulated(data.rows, data.n_components, data.reg_covar)
    starts = emulated.fit(n_init, seed)
    found = [
        Found(
            sum(start.passes for start in some),
            emulated.log_likelihood(best(some).parameters),
            sum(start.seconds for start in some),
            sum(start.lloyd for start in some),
        )
        for some in (starts, starts[:1])
    ]
    each = seconds_an_iteration(data.rows, starts[0].parameters.to_data(emulated.frame))
    whole = each * found[0].passes + sum(start.lloyd_seconds for start in starts)
    text = f"scikit-learn itself: {each:.2f} s an iteration, so about {whole:,.0f} s for its {n_init} starts"
    return found[0], found[1], text


def verify(data: Data, seed: int) -> str:
    """scikit-learn itself and its algorithm on the E-step of dgmm, on the first rows."""
    rows = data.rows[:VERIFIED_ROWS]
    starts = Emulated(rows, data.n_components, data.reg_covar).fit(2, seed)
    theirs = real(rows, data.n_components, data.reg_covar, 2, seed)
    difference = best(starts).lower_bound - theirs.lower_bound_
    same = (best(starts).n_iter, sum(start.passes for start in starts)) == (theirs.n_iter_, theirs.passes)
    return (
        f"emulation on {len(rows):,} rows, 2 starts: n_iter_ {best(starts).n_iter}, theirs {theirs.n_iter_}, "
        f"lower_bound_ {difference:+.1e}: {'verified' if same and abs(difference) < 1e-6 else 'FAILED'}"
    )


@dataclass
class Goals:
    """What the last lines say."""

    below: list[str] = field(default_factory=list)
    ratios: list[tuple[float, str]] = field(default_factory=list)
    ratios_with_lloyd: list[tuple[float, str]] = field(default_factory=list)
    default_passes: list[int] = field(default_factory=list)
    n_compared: int = 0

    def add(self, where: str, found: dict[str, Found]) -> None:
        """The four fits of some data with a seed."""
        a, d = found["a"], found["d"]
        self.n_compared += 1
        self.default_passes.append(found["c"].passes)
        self.ratios.append((d.passes / a.passes, where))
        if a.lloyd is not None:
            self.ratios_with_lloyd.append((d.passes / (a.passes + a.lloyd), where))
        if d.log_likelihood < a.log_likelihood - MARGIN:
            self.below.append(f"{where}: (d) {d.log_likelihood:.7f}, (a) {a.log_likelihood:.7f}")

    def show(self) -> None:
        count = f"{len(self.below)} of {self.n_compared}"
        print(f"\n(d) below (a) by more than {MARGIN:g} a row: {count}", *self.below, sep="\n  ")
        each = ", ".join(f"{where} {ratio:.3f}" for ratio, where in self.ratios)
        print(f"largest passes(d) / passes(a): {max(self.ratios)[0]:.3f} ({max(self.ratios)[1]}); all: {each}")
        if self.ratios_with_lloyd:
            worst = max(self.ratios_with_lloyd)
            print(f"  with the iterations of k-means counted as passes of (a): {worst[0]:.3f} ({worst[1]})")
        print(
            f"passes of (c): median {statistics.median(self.default_passes):g}, {self.default_passes}", flush=True
        )


def compare(data: Data, seed: int, n_starts: int, *, itself: bool) -> dict[str, Found]:
    """Fit in all four ways, and print each as it comes."""
    print(f"\n{data}, seed {seed}", flush=True)
    reference = float("nan")
    if data.truth is not None:
        emulated = Emulated(data.rows, data.n_components, data.reg_covar)
        reference = emulated.log_likelihood(data.truth.to_frame(emulated.frame))
        print(f"  {'generating model':38} {'':8} {'':8} {reference:14.7f}", flush=True)
    labels = {
        "a": f"scikit-learn, n_init={n_starts}",
        "b": "scikit-learn, n_init=1",
        "c": "dgmm, n_init=1",
        "d": f"dgmm, n_init={N_INIT}",
    }
    found: dict[str, Found] = {}

    def show(key: str, one: Found) -> None:
        found[key] = one
        lloyd = "?" if one.lloyd is None else str(one.lloyd)
        against = f"{one.log_likelihood - reference:+13.7f}" if data.truth is not None else f"{'':13}"
        search = "" if one.search_seconds is None else f"{one.search_seconds:9.1f}"
        emulated = "" if itself or key not in "ab" else " (emulated)"
        print(
            f"  ({key}) {labels[key] + emulated:34} {one.passes:8} {lloyd:>8} {one.log_likelihood:14.7f} "
            f"{against} {one.seconds:9.1f} {search}",
            flush=True,
        )

    show("c", ours(data, 1, seed))
    show("d", ours(data, N_INIT, seed))
    if itself:
        show("b", sklearn_itself(data, 1, seed))
        show("a", sklearn_itself(data, n_starts, seed))
    else:
        print(f"  {verify(data, seed)}", flush=True)
        many, one, text = sklearn_algorithm(data, n_starts, seed)
        show("b", one)
        show("a", many)
        print(f"  {text}", flush=True)
    return found


def sample_sizes(data: Data, sizes: list[int], seeds: range) -> None:
    """The default fit from samples of several sizes."""
    found = {size: [ours(data, 1, seed, size) for seed in seeds] for size in sizes}
    highest = max(one.log_likelihood for several in found.values() for one in several)
    print(f"\n{data}; best log-likelihood {highest:.7f}")
    print(f"  {'sample':>8} {'search s':>9} {'passes':>7} {'total s':>8} {'below best':>11} {'worst':>11}")
    for size, several in found.items():
        below = [highest - one.log_likelihood for one in several]
        print(
            f"  {size:8,} {statistics.median(one.search_seconds or 0 for one in several):9.2f} "
            f"{statistics.median(one.passes for one in several):7g} "
            f"{statistics.median(one.seconds for one in several):8.2f} {statistics.median(below):11.7f} "
            f"{max(below):11.7f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--rows", type=int, help="1,000,000; of --starts 50,000")
    parser.add_argument("--seeds", type=int, help="1; of --sample-sizes 3; of --starts 5")
    parser.add_argument("--sklearn", action="store_true", help="scikit-learn itself")
    parser.add_argument("--sklearn-starts", type=int, default=N_INIT, help="starts of scikit-learn in (a)")
    parser.add_argument("--sample-sizes", nargs="*", type=int, help="compare samples of these sizes")
    parser.add_argument("--starts", action="store_true", help="how often one start reaches the optimum")
    options = parser.parse_args()
    if options.starts:
        for name in options.only:
            data = load(name, options.rows or 50_000)
            table_of_starts(
                str(data), data.rows, data.n_components, data.truth, data.reg_covar, options.seeds or 5
            )
        return
    n_rows = options.rows or 1_000_000
    if options.sample_sizes is not None:
        print(
            "The default fit (n_init=1): medians over seeds; search s: scan and search, until the first full pass."
        )
        for name in options.only:
            sample_sizes(load(name, n_rows), options.sample_sizes or SAMPLE_SIZES, range(options.seeds or 3))
        return
    kind = "scikit-learn itself" if options.sklearn else "scikit-learn's algorithm on dgmm's E-step (emulated)"
    print(
        f"{kind}: its KMeans on the raw rows, tol {TOL:g}, at most 100 iterations, {options.sklearn_starts} starts"
    )
    print(
        f"{'':40} {'passes':>8} {'k-means':>8} {'log-likelihood':>14} {'- generating':>13} {'seconds':>9} search s"
    )
    goals = Goals()
    for name in options.only:
        data = load(name, n_rows)
        for seed in range(options.seeds or 1):
            goals.add(f"{name}, seed {seed}", compare(data, seed, options.sklearn_starts, itself=options.sklearn))
    goals.show()


if __name__ == "__main__":
    main()
