"""Passes of plain and of accelerated EM over all rows, from the start that a fit finds on its sample.

    python benchmarks/acceleration.py [--only separated flights] [--types full diag] [--rows 100000] [--seeds 3]
    python benchmarks/acceleration.py --one-start --sample-size 10000 --extra 4

`--one-start` leaves the search out: one run of EM on the sample is the start. Then, and with too many components
(`--extra`), EM crawls. "gain" is the log-likelihood per row of the final parameters of accelerated EM minus that
of plain EM; "reach" is the pass that first found accelerated EM as high as plain EM ended.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import numpy as np
from passes import NAMES, Data, load

from dgmm.data.opening import open_source
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, LockstepWork
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Climb, Sampled, climb
from dgmm.engine.scan import scan
from dgmm.engine.search import Search
from dgmm.engine.settings import Settings
from dgmm.engine.threads import LocalScheduler
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.em import EMState
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.statistics import SufficientStatistics

TOL = 1e-5


@dataclass(frozen=True)
class Found:
    """What EM with all rows took, and where it ended."""

    history: tuple[float, ...]
    log_likelihood: float

    @property
    def passes(self) -> int:
        """Over all rows, without the scan."""
        return len(self.history)


def compare(data: Data, settings: Settings, *, one_start: bool, most: int) -> tuple[Found, Found]:
    """Plain and accelerated EM from the same start."""
    source = open_source(data.rows)
    scheduler = LocalScheduler()
    passes = Passes(source, None, scheduler)
    size = settings.sample_rows(source)
    sampled = Sampled.of(scan(passes, sample_rows=size, seed=settings.seed), settings)
    found = sampled.scan
    if one_start:
        start = climb(sampled, Climb(0, settings.max_iter, settings.tol)).state.parameters
    else:
        search = Search(sampled, scheduler, {})
        for _ in search.events():
            pass
        start = search.best[0].state.parameters

    def e_pass(parameters: Parameters) -> SufficientStatistics:
        work = LockstepWork([Candidate(parameters, found.frame, found.radius_squared)], source.dtype)
        statistics: SufficientStatistics = passes.run(work).members[0]
        return statistics

    def run(*, accelerate: bool) -> Found:
        em = sampled.em(settings.tol, most, accelerate)
        *_, state = em.iterate(EMState(start), e_pass)
        final = e_pass(state.parameters).mean_log_likelihood - found.frame.log_volume
        return Found(state.history, float(final))

    return run(accelerate=False), run(accelerate=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--types", nargs="*", default=["full"], choices=list(COVARIANCE_TYPES))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sample-size", type=int)
    parser.add_argument("--extra", type=int, default=0, help="components too many")
    parser.add_argument("--one-start", action="store_true")
    parser.add_argument("--most", type=int, default=1000, help="passes")
    options = parser.parse_args()
    print(f"{'':40} {'plain':>6} {'accelerated':>12} {'reach':>6} {'gain':>10}")
    rows: list[tuple[int, int, float]] = []
    for name in options.only:
        for kind in options.types:
            for seed in range(options.seeds):
                data = load(name, options.rows)
                k = data.n_components + options.extra
                settings = Settings(
                    n_components=k,
                    covariance_type=kind,
                    tol=TOL,
                    reg_covar=data.reg_covar,
                    reg_relative=0.0,
                    standardize=False,
                    max_iter=1000,
                    max_passes=None,
                    accelerate=False,
                    n_init=1,
                    n_finalists=1,
                    init_params="k-means++",
                    sample_size=options.sample_size,
                    seed=seed,
                )
                plain, fast = compare(data, settings, one_start=options.one_start, most=options.most)
                difference = fast.log_likelihood - plain.log_likelihood
                high = np.flatnonzero(np.array(fast.history) >= plain.history[-1] - TOL / 10)
                reach = int(high[0]) + 1 if len(high) else None
                rows.append((plain.passes, fast.passes, difference))
                label = f"{name}, K={k}, {kind}, seed {seed}"
                counts = f"{plain.passes:6} {fast.passes:12} {reach or '-':>6}"
                print(f"{label:40} {counts} {difference:+10.1e}", flush=True)
    before, after, differences = zip(*rows, strict=True)
    print(f"median of {len(rows)}: {statistics.median(before):g} plain, {statistics.median(after):g} accelerated")
    longest = max(a - b for b, a in zip(before, after, strict=True))
    print(f"most passes more: {longest:+d}; lowest difference: {min(differences):+.1e} (tol {TOL:g})")


if __name__ == "__main__":
    with one_blas_thread():
        main()
