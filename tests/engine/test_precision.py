"""An iteration in which a component collapses is done in double precision, whatever the rows."""

from __future__ import annotations

import numpy as np
import pytest
from cases import assert_close

from dgmm import GaussianMixture
from dgmm.data.opening import open_source
from dgmm.engine import likelihood
from dgmm.engine.lockstep import Member, shared_passes
from dgmm.engine.passes import Passes
from dgmm.engine.sampled import Run
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import CollapsedComponentWarning
from dgmm.mixture import tiling
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import FULL
from dgmm.mixture.em import EM, EMState
from dgmm.mixture.expectation import EStep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.precision import too_coarse

D, K = 20, 8
IDENTITY = Frame.identity(D)
RIDGE = np.full(D, 1e-6)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_COMPILING", 1)


def collapsing(few=12):
    """Rows, and a sound mixture in which one component has so few of them that it collapses at once."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5_000, D))
    rows[:few] += 6
    means = rng.standard_normal((K, D)) / 4
    means[0] = 6
    return rows.astype(np.float32), Parameters(FULL, np.full(K, 1 / K), means, np.stack([np.eye(D)] * K))


def radius(rows):
    return float(np.quantile(np.sum(rows.astype(float) ** 2, axis=1), 0.999))


def test_it_is_noticed():
    rows, start = collapsing()

    def found(values, parameters, *, single):
        components = Components.prepare(parameters, values.dtype, radius(rows))
        assert components.single == single
        return too_coarse(parameters, EStep(components, IDENTITY, len(values))(values), RIDGE, radius(rows))

    assert found(rows, start, single=True)
    assert not found(rows[12:], start, single=True)
    covariances = start.covariances.copy()
    covariances[1] *= 1e-6  # the guard has double precision take this one
    thin = Parameters(FULL, start.weights, start.means, covariances)
    assert not found(rows, thin, single=False)


def test_a_pass_is_repeated_for_that_mixture_alone(monkeypatch):
    rows, start = collapsing()
    sound = Parameters(FULL, start.weights, start.means / 6, start.covariances)
    works = []
    original = likelihood.LockstepWork
    monkeypatch.setattr(
        likelihood,
        "LockstepWork",
        lambda candidates, dtype, n: works.append((len(candidates), dtype)) or original(candidates, dtype, n),
    )

    def fitted(values):
        em = EM(IDENTITY, RIDGE, 0.0, 1)
        members = {name: Member(em, radius(rows), Run(EMState(at))) for name, at in (("a", start), ("b", sound))}
        passes = Passes(open_source(values), None, LocalScheduler())
        return list(shared_passes(passes, members))[-1]["a"].state.parameters

    found = fitted(rows)
    assert works == [(2, np.float32), (1, np.float64)]
    expected = fitted(rows.astype(float))
    assert_close(found.covariances, expected.covariances, 1e-9)
    assert np.linalg.eigvalsh(found.covariances).min() > 0.5e-6


def test_a_fit_of_single_precision_survives_it():
    rows, start = collapsing()
    with pytest.warns(CollapsedComponentWarning):
        GaussianMixture(
            K, random_state=0, reg_covar=1e-6, tol=10.0, weights_init=start.weights,
            means_init=start.means, precisions_init=start.covariances,
        ).fit(rows)  # fmt: skip
