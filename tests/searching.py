"""A search on a sample by hand: what tests of it build on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Sampled
from dgmm.engine.scan import scan
from dgmm.engine.search import Search
from dgmm.engine.threads import LocalScheduler


class Serial:
    """Runs tasks one after the other and remembers them."""

    def __init__(self, n_threads=1):
        self.n_threads = n_threads
        self.asked = []

    def threads_each(self, n_tasks):
        return 1

    def map(self, task, shared, arguments):
        for number, argument in enumerate(arguments):
            self.asked.append((task.__name__, argument))
            yield number, task(shared, argument)

    def count(self, name):
        return sum(asked == name for asked, _ in self.asked)


def sampled(rows, start=None, **changes) -> Sampled:
    """All rows as the sample of a fit with these parameters of the estimator."""
    source = open_source(rows)
    settings, _ = GaussianMixture(**{"random_state": 0, **changes})._settings(source)
    if start is not None:
        settings = replace(settings, start=start)
    passes = Passes(source, None, LocalScheduler())
    found = scan(passes, sample_rows=len(rows), seed=0)
    return Sampled.of(found, settings)


def replaced(problem, **changes) -> Sampled:
    """The same sample under other settings."""
    return replace(problem, settings=replace(problem.settings, **changes))


def searched(problem, runs=(), tasks=None):
    """The search after its end, and its events as pairs of name and run."""
    search = Search(problem, tasks or Serial(), dict(runs))
    events = [(event.name, event.run) for event in search.events()]
    return search, events


def bits(run):
    p = run.state.parameters
    arrays = (p.weights, p.means, p.covariances, np.array(run.state.history))
    return b"".join(array.tobytes() for array in arrays), run.failed, run.collapsed


def groups(n=600, k=4, d=2, seed=0, spread=4.0):
    """Rows about `k` places."""
    rng = np.random.default_rng(seed)
    means = spread * rng.standard_normal((k, d))
    return rng.standard_normal((n, d)) + means[rng.integers(k, size=n)]


def moving():
    """A problem of two finalists that end badly and are both moved."""
    rows = groups(200, 4, seed=6)
    how = {"init_params": "random_from_data", "covariance_type": "diag"}
    return sampled(rows, n_components=4, n_init=2, n_finalists=2, **how)
