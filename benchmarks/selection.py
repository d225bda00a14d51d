"""`dgmm.select` where the answer is known, and beside separate fits of every candidate.

    python benchmarks/selection.py [--only chosen] [--rows 200000] [--seeds 10] [--sizes 1 20]
    python benchmarks/selection.py --only beside [--timed-rows 1000000] [--types full diag]

chosen: how often BIC chooses the generating number of components, ten of the mixture "separated", over seeds of
data and selection. beside: one selection, and one fit of `GaussianMixture` for each of its candidates with
the same settings: time, passes over the data, and which of them BIC would choose.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Sequence

import mixtures
from sklearn.exceptions import ConvergenceWarning

import dgmm

NAME = "separated"


def load() -> str:
    """What else the machine does."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


class Clock:
    """Time since it was made, and the processor's, which other work on the machine hardly changes."""

    def __init__(self, seconds: float = 0.0, cpu: float = 0.0) -> None:
        self._began = time.perf_counter(), time.process_time()
        self.seconds, self.cpu = seconds, cpu

    def stop(self) -> None:
        """Keep the time so far."""
        began, began_cpu = self._began
        self.seconds, self.cpu = time.perf_counter() - began, time.process_time() - began_cpu

    def __add__(self, other: Clock) -> Clock:
        return Clock(self.seconds + other.seconds, self.cpu + other.cpu)

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu:.1f} s CPU)"


def chosen(sizes: Sequence[int], n_rows: int, seeds: Sequence[int]) -> None:
    """Print the number of components that BIC chooses for each seed, and the table where it is wrong."""
    print(f"{NAME}: {n_rows:,} rows, full, K={sizes[0]}..{sizes[-1]}, chosen by BIC", flush=True)
    right = 0
    for seed in seeds:
        rows, truth = mixtures.generate(NAME, n_rows, seed)
        clock = Clock()
        found = dgmm.select(rows, sizes, "full", random_state=seed)
        clock.stop()
        same = found.best.n_components == truth.n_components
        right += same
        print(
            f"  seed {seed}: K={found.best.n_components} of {truth.n_components}, {found.n_passes} passes, "
            f"{sum(entry.dropped for entry in found.table)} dropped on the sample, {clock}, {load()}",
            flush=True,
        )
        if not same:
            print(found, flush=True)
    print(f"{right} of {len(seeds)}\n", flush=True)


def beside(sizes: Sequence[int], types: Sequence[str], n_rows: int, seed: int = 0) -> None:
    """Print what a selection takes, and what its candidates take one by one."""
    rows, _ = mixtures.generate(NAME, n_rows, seed)
    n, d = rows.shape
    print(f"{NAME}: {n:,} x {d}, K={sizes[0]}..{sizes[-1]}, {' and '.join(types)}", flush=True)
    together = Clock()
    found = dgmm.select(rows, sizes, types, random_state=seed)
    together.stop()
    print(f"{found}\nselect: {together}, {found.n_passes} passes, {load()}", flush=True)

    apart, passes, bics = Clock(), 0, {}
    for entry in found.table:
        k, kind = entry.n_components, entry.covariance_type
        clock = Clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            alone = dgmm.GaussianMixture(k, covariance_type=kind, random_state=seed).fit(rows)
        clock.stop()
        apart, passes = apart + clock, passes + alone.n_passes_
        bics[k, kind] = alone.bic(rows)
        print(
            f"  {k:3} {kind:9} alone: {clock}, {alone.n_passes_:4} passes, BIC {bics[k, kind]:.1f} "
            f"(select: {entry.bic:.1f}{', foreseen' if entry.dropped else ''}), {load()}",
            flush=True,
        )
    k, kind = min(bics, key=lambda candidate: bics[candidate])
    print(f"{len(bics)} separate fits: {apart}, {passes} passes; their BICs choose K={k}, {kind}")
    best = f"K={found.best.n_components}, {found.best.covariance_type}"
    print(f"one selection: {together}, {found.n_passes} passes; it chooses {best}")
    ratios = apart.seconds / together.seconds, apart.cpu / together.cpu, passes / found.n_passes
    print(
        "the fits take {:.1f} times the time, {:.1f} times the CPU time, {:.0f} times the passes".format(*ratios)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["chosen", "beside"])
    parser.add_argument("--rows", type=int, default=200_000, help="of the first part")
    parser.add_argument("--seeds", type=int, default=10, help="of the first part")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first part")
    parser.add_argument("--timed-rows", type=int, default=1_000_000, help="of the second part")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1, 20), metavar=("FIRST", "LAST"))
    parser.add_argument("--types", nargs="+", default=["full", "diag"], help="of the second part")
    options = parser.parse_args()
    sizes = range(options.sizes[0], options.sizes[1] + 1)
    if options.only != "beside":
        chosen(sizes, options.rows, range(options.first_seed, options.first_seed + options.seeds))
    if options.only != "chosen":
        beside(sizes, options.types, options.timed_rows)


if __name__ == "__main__":
    main()
