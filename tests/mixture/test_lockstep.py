"""Mixtures in lockstep get what each would get alone, from one feature matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from cases import TYPES, assert_close, extended, mixture, reference
from hypothesis import given, settings
from hypothesis import strategies as st

import dgmm.mixture.tiling
from dgmm.data.opening import open_source, open_weights
from dgmm.engine.blas import one_blas_thread
from dgmm.engine.likelihood import Candidate, CriteriaWork, LockstepWork, ScoreWork
from dgmm.engine.memory import Held, kernel_bytes, thread_bytes
from dgmm.engine.passes import Passes, _leaf
from dgmm.engine.threads import LocalScheduler
from dgmm.errors import IllDefinedCovariance, InvalidWeights, NonFiniteData
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES, FULL
from dgmm.mixture.expectation import EStep, Lockstep
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.together import Together

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
FIELDS = ("counts", "first", "second", "log_likelihood", "weight")
seeds = st.integers(0, 2**32 - 1)
all_types = pytest.mark.parametrize("name", TYPES)


def frame(d, at=0.25, scale=2.0):
    return Frame(np.full(d, at), np.full(d, scale))


def thin(parameters, width, which=slice(None)):
    """The same mixture with some components (all, where covariances are shared) `width` times as wide."""
    found = np.array(parameters.covariances)
    found[slice(None) if parameters.covariance.pooled else which] *= width**2
    return Parameters(parameters.covariance, parameters.weights, parameters.means, found)


def prepare(parameters, dtype=DOUBLE):
    return Components.prepare(parameters, dtype, 30.0)


def unlike_members(name, k, d, rng, dtype):
    """Mixtures of one K that the guard treats in every way it has."""
    drawn = [mixture(name, k, d, rng, spread=1.0, low=0.7, high=1.5) for _ in range(5)]
    widths = [(1.0, slice(None)), (1.0, slice(None)), (1e-2, slice(None)), (1e-5, slice(1)), (1e-5, slice(None))]
    return [prepare(thin(p, *how), dtype) for p, how in zip(drawn, widths, strict=True)]


def assert_same_statistics(a, b, tolerance=0.0):
    np.testing.assert_array_equal(a.centres, b.centres)
    for field in FIELDS:
        assert_close(getattr(a, field), getattr(b, field), tolerance, field)


# --- one pass, several mixtures ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    name=st.sampled_from(TYPES),
    k=st.integers(1, 4),
    d=st.integers(1, 5),
    n=st.integers(1, 150),
    tile=st.integers(1, 80),
    dtype=st.sampled_from([SINGLE, DOUBLE]),
    weighted=st.booleans(),
    outlier=st.booleans(),
    seed=seeds,
)
def test_mixtures_of_one_k_get_the_bits_that_they_get_alone(name, k, d, n, tile, dtype, weighted, outlier, seed):
    rng = np.random.default_rng(seed)
    drawn = unlike_members(name, k, d, rng, dtype)
    members = [(drawn[i], frame(d)) for i in rng.permutation(len(drawn))]
    rows = rng.standard_normal((n, d)).astype(dtype)
    if outlier:
        rows[n // 2] += 1e5
    weights = rng.random(n).astype(dtype) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dgmm.mixture.tiling, "_TILE_ROWS", (tile, tile))
        together = Lockstep(members)
        for block, w in ((rows, weights), (rows[::-1], None)):  # the second block finds used buffers
            found = together(block, w)
            assert len(found.members) == len(members)
            for member, statistics in zip(members, found.members, strict=True):
                assert_same_statistics(statistics, EStep(*member)(block, w))


def test_the_members_of_that_law_take_every_way_through_the_guard():
    members = unlike_members("full", 2, 3, np.random.default_rng(0), SINGLE)
    assert [c.dtype for c in members] == [SINGLE, SINGLE, DOUBLE, DOUBLE, DOUBLE]
    assert [c.centred.tolist() for c in members[2:]] == [[False, False], [True, False], [True, True]]


@settings(max_examples=40)
@given(
    members=st.lists(
        st.tuples(
            st.sampled_from(TYPES), st.integers(1, 70), st.sampled_from([0.0, 0.5]), st.sampled_from([1.0, 2.0])
        ),
        min_size=1,
        max_size=5,
    ),
    weighted=st.booleans(),
    seed=seeds,
)
def test_mixtures_of_any_k_type_and_frame_agree_with_each_alone_in_their_order(members, weighted, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((5000, 2))
    weights = rng.random(5000) if weighted else None
    members = [(prepare(mixture(name, k, 2, rng)), frame(2, *where)) for name, k, *where in members]
    for member, statistics in zip(members, Lockstep(members)(rows, weights).members, strict=True):
        assert_same_statistics(statistics, EStep(*member)(rows, weights), 1e-12)


@all_types
def test_posteriors_are_those_of_each_alone(name):
    rng = np.random.default_rng(3)
    members = [(prepare(mixture(name, k, 3, rng)), frame(3, shift)) for k, shift in ((3, 0), (70, 0), (2, 1))]
    rows = 3 * rng.standard_normal((3000, 3))
    densities = np.full((3, 3000), np.nan)
    responsibilities = [np.full((len(c.theta), 3000), np.nan) for c, _ in members]
    for index, place, density, r in Lockstep(members).posterior(rows):
        densities[index, place] = density
        responsibilities[index][:, place] = r
    for index, member in enumerate(members):
        alone = [(density.copy(), r.copy()) for _, density, r in EStep(*member).posterior(rows)]
        assert_close(densities[index], np.concatenate([a[0] for a in alone]), 1e-13)
        assert_close(responsibilities[index], np.concatenate([a[1] for a in alone], axis=1), 1e-13)


# --- one feature matrix --------------------------------------------------------------------------------------


@pytest.fixture
def filled(monkeypatch):
    """The dtype of each feature matrix that is made."""
    made = []
    original = type(FULL).fill_quadratic

    def fill(self, z, out):
        made.append(z.dtype)
        original(self, z, out)

    monkeypatch.setattr(type(FULL), "fill_quadratic", fill)
    monkeypatch.setattr(dgmm.mixture.tiling, "_TILE_ROWS", (50, 50))
    return made


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ([0, 1], [SINGLE, SINGLE]),
        ([2, 3], [DOUBLE, DOUBLE]),
        ([0, 1, 2, 3, 4], [SINGLE, DOUBLE, SINGLE, DOUBLE]),
        ([4], []),
    ],
    ids=["single", "double", "both", "centred"],
)
def test_a_tile_has_one_feature_matrix_a_dtype_and_only_if_a_mixture_needs_it(filled, which, expected):
    rng = np.random.default_rng(0)
    members = unlike_members("full", 2, 3, rng, SINGLE)
    rows = rng.standard_normal((100, 3)).astype(SINGLE)  # two tiles
    Lockstep([(members[i], frame(3)) for i in which])(rows)
    assert filled == expected


def test_frames_of_the_same_values_are_one_frame(filled):
    rng = np.random.default_rng(0)
    drawn = [prepare(mixture("full", k, 3, rng)) for k in (1, 2, 3)]
    rows = rng.standard_normal((50, 3))
    Lockstep([(components, frame(3)) for components in drawn])(rows)
    assert len(filled) == 1
    Lockstep(list(zip(drawn, [frame(3), frame(3, 0), frame(3)], strict=True)))(rows)
    assert len(filled) == 3


# --- results side by side ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(), st.integers()), max_size=5))
def test_results_add_member_by_member(pairs):
    left, right = (tuple(pair[side] for pair in pairs) for side in (0, 1))
    assert (Together(left) + Together(right)).members == tuple(a + b for a, b in pairs)


def test_results_of_unlike_numbers_of_mixtures_are_refused():
    with pytest.raises(ValueError, match="results of 2 and of 1 mixtures"):
        Together((1, 2)) + Together((1,))


# --- passes --------------------------------------------------------------------------------------------------


def run(work, rows, weights=None):
    n = len(rows)
    source = open_source(rows).rows(np.array([0, n // 3, n // 2, n]))
    given_weights = None if weights is None else open_weights(weights, source)
    with one_blas_thread():
        return Passes(source, given_weights, LocalScheduler()).run(work)


def candidates(rng, shapes, d=3):
    return [Candidate(mixture(name, k, d, rng), frame(d), 30.0) for name, k in shapes]


def test_a_pass_in_lockstep_gives_the_bits_of_separate_passes():
    rng = np.random.default_rng(5)
    several = candidates(rng, [("full", 20), ("diag", 20), ("full", 20), ("tied", 20)])
    rows, weights = rng.standard_normal((9000, 3)), rng.random(9000)
    together = run(LockstepWork(several, DOUBLE), rows, weights)
    for candidate, found in zip(several, together.members, strict=True):
        (alone,) = run(LockstepWork([candidate], DOUBLE), rows, weights).members
        assert_same_statistics(found, alone)


def test_a_candidate_without_a_covariance_fails_the_pass():
    good, bad = candidates(np.random.default_rng(5), [("full", 2), ("full", 2)])
    bad = Candidate(thin(bad.parameters, 0.0), bad.frame, bad.radius_squared)
    with pytest.raises(IllDefinedCovariance, match="component 0"):
        run(LockstepWork([good, bad], DOUBLE), np.zeros((10, 3)))


@extended
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_criteria_are_those_of_the_definition(weighted):
    rng = np.random.default_rng(6)
    several = candidates(rng, [(name, k) for name in TYPES for k in (1, 3)])
    rows = rng.standard_normal((500, 3))
    weights = rng.random(500) if weighted else None
    together = run(CriteriaWork(several), rows, weights)
    w = np.ones(500) if weights is None else weights
    for candidate, found in zip(several, together.members, strict=True):
        density, r = reference(candidate.parameters.to_data(candidate.frame), rows)
        entropy = -np.sum(r * np.log(r), axis=0)
        assert_close(found.log_likelihood, density @ w, 1e-12, "log-likelihood")
        assert_close(found.weight, w.sum(), 1e-14, "weight")
        assert abs(found.entropy - entropy @ w) < 1e-10


@settings(max_examples=30)
@given(
    shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.integers(1, 40)), min_size=1, max_size=4),
    weighted=st.booleans(),
    dtype=st.sampled_from([SINGLE, DOUBLE]),
    seed=seeds,
)
def test_criteria_have_the_scores_log_likelihoods_and_entropies_between_0_and_log_k(shapes, weighted, dtype, seed):
    rng = np.random.default_rng(seed)
    several = candidates(rng, shapes)
    rows = rng.standard_normal((2000, 3)).astype(dtype)
    weights = rng.random(2000) if weighted else None
    for candidate, found in zip(several, run(CriteriaWork(several), rows, weights).members, strict=True):
        score = run(ScoreWork(candidate.components(DOUBLE), candidate.frame), rows, weights)
        assert found.weight == score.weight
        assert_close(found.log_likelihood, score.log_likelihood, 1e-12)
        assert 0 <= found.entropy <= found.weight * np.log(candidate.parameters.n_components) * (1 + 1e-12)


def test_components_apart_have_no_entropy_and_equal_ones_have_log_k():
    means, eye = np.array([[0.0, 0.0], [1e3, 0.0]]), np.stack([np.eye(2)] * 2)
    apart = Parameters(FULL, np.full(2, 0.5), means, eye)
    equal = Parameters(FULL, np.full(2, 0.5), np.zeros((2, 2)), eye)
    rows = np.random.default_rng(0).standard_normal((100, 2))
    work = CriteriaWork([Candidate(p, Frame.identity(2), 10.0) for p in (apart, equal)])
    none, most = run(work, rows, np.full(100, 2.0)).members
    assert 0 <= none.entropy < 1e-200
    assert most.entropy == pytest.approx(200 * np.log(2), rel=1e-14)


def test_criteria_refuse_rows_and_weights_that_cannot_be_used():
    work = CriteriaWork(candidates(np.random.default_rng(0), [("full", 2)]))
    rows, weights = np.zeros((10, 3)), np.ones(10)
    weights[7] = -1.0
    with pytest.raises(InvalidWeights, match="row 7"):
        run(work, rows, weights)
    rows[4, 1] = np.nan
    with pytest.raises(NonFiniteData, match="row 4, feature 1"):
        run(work, rows)


# --- memory --------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.integers(1, 30)), min_size=1, max_size=6),
    d=st.integers(1, 24),
    dtype=st.sampled_from([SINGLE, DOUBLE]),
    outlier=st.booleans(),
    needles=st.booleans(),
    compiled=st.booleans(),
    seed=seeds,
)
def test_a_pass_takes_no_more_memory_than_planned(shapes, d, dtype, outlier, needles, compiled, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40_000, d)).astype(dtype)
    if outlier:
        rows[5] += 1e5
    source = open_source(rows).rows(np.array([0, 20_000, 40_000]))  # blocks that no tile is larger than
    drawn = [mixture(name, k, d, rng, spread=1.0, low=0.7, high=1.5) for name, k in shapes]
    if needles:
        drawn[0] = thin(drawn[0], 1e-5)
    n_rows = 10**12 if compiled else 0
    work = LockstepWork([Candidate(p, frame(d), 2.0 * d) for p in drawn], dtype, n_rows)
    blocks = source.block_input(0, source.n_blocks)

    def peak() -> int:
        tracemalloc.start()
        _leaf(work.prepare().begin(), blocks, None, None, lambda _: None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    reading = source.read_bytes + int(source.bounds[1]) * d * dtype.itemsize
    mixtures = [(k, COVARIANCE_TYPES[name]) for name, k in shapes]
    planned = thread_bytes(Held.of(source), None, mixtures, 0) - reading
    planned += kernel_bytes(n_rows, d, mixtures)
    # NumPy has buffers of its own, of 8192 elements. What other threads of this process do is counted at times.
    assert min(peak() for _ in range(3)) <= planned + 2**18
