"""The E-step: whatever the tiles, the kernel and the precision, the same mathematics."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TYPES, assert_close, assert_same_mixture, extended, m_step, mixture, reference
from hypothesis import given, settings
from hypothesis import strategies as st

import dgmm.mixture.components
import dgmm.mixture.tiling
from dgmm.mixture import maximization
from dgmm.mixture.components import Components
from dgmm.mixture.covariance import COVARIANCE_TYPES
from dgmm.mixture.expectation import EStep, _Mixture
from dgmm.mixture.features import Tiles
from dgmm.mixture.frame import Frame
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.tiling import tile_rows

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
seeds = st.integers(0, 2**32 - 1)
both_weightings = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
all_types = pytest.mark.parametrize("name", TYPES)


def prepare(parameters, radius_squared=100.0, dtype=DOUBLE):
    return Components.prepare(parameters, dtype, radius_squared)


def e_step(parameters, rows, weights=None, **options):
    step = EStep(prepare(parameters, **options), Frame.identity(rows.shape[1]))
    return step(rows, weights)


def posterior(parameters, rows, frame=None, **options):
    step = EStep(prepare(parameters, **options), frame or Frame.identity(rows.shape[1]))
    parts = [(density.copy(), r.copy()) for _, density, r in step.posterior(rows)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts], axis=1)


def guarded(components, rows, dtype):
    """The dtype that a tile is computed in, and whether it is centred."""
    covariance, (k, d) = components.parameters.covariance, components.parameters.means.shape
    tiles = Tiles(Frame.identity(d), covariance, covariance.n_features(d), k, len(rows))
    features, centred = _Mixture(components).guarded(next(tiles.cut(rows)), dtype)
    return features.z.dtype, centred


def next_parameters(statistics, parameters):
    return maximization.m_step(statistics, parameters, np.zeros(parameters.n_features))


def assert_same_statistics(a, b, tolerance):
    np.testing.assert_array_equal(a.centres, b.centres)
    for field in ("counts", "first", "second", "log_likelihood", "weight"):
        assert_close(getattr(a, field), getattr(b, field), tolerance, field)


@pytest.fixture
def tiles_of(monkeypatch):
    def set_rows(rows):
        monkeypatch.setattr(dgmm.mixture.tiling, "_TILE_ROWS", (rows, rows))

    return set_rows


def centre_every_component(monkeypatch):
    monkeypatch.setattr(dgmm.mixture.components, "DOUBLE_TOLERANCE", 0.0)


def centre_every_tile(monkeypatch):
    monkeypatch.setitem(dgmm.mixture.components._TOLERANCE, DOUBLE, 0.0)


def make_two_gemms_dear(monkeypatch):
    monkeypatch.setattr(dgmm.mixture.components, "two_gemms_pay", lambda *_: False)


def trust_two_gemms(monkeypatch):
    monkeypatch.setattr(dgmm.mixture.components, "DOUBLE_TOLERANCE", np.inf)
    monkeypatch.setitem(dgmm.mixture.components._TOLERANCE, DOUBLE, np.inf)


# --- tiles ---------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    name=st.sampled_from(TYPES),
    k=st.integers(1, 5),
    d=st.integers(1, 6),
    n=st.integers(1, 200),
    tile=st.integers(1, 80),
    cut=st.floats(0, 1),
    weighted=st.booleans(),
    seed=seeds,
)
def test_any_tiling_and_any_cut_into_blocks_give_the_same_statistics(name, k, d, n, tile, cut, weighted, seed):
    rng = np.random.default_rng(seed)
    parameters = mixture(name, k, d, rng)
    rows, weights = 4 * rng.standard_normal((n, d)), rng.random(n) if weighted else None
    whole = e_step(parameters, rows, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dgmm.mixture.tiling, "_TILE_ROWS", (tile, tile))
        assert tile_rows(k, d) == tile
        assert_same_statistics(e_step(parameters, rows, weights), whole, 1e-10)
    at = int(cut * n)
    left, right = slice(None, at), slice(at, None)
    parts = [e_step(parameters, rows[s], None if weights is None else weights[s]) for s in (left, right)]
    assert_same_statistics(parts[0] + parts[1], whole, 1e-10)


@all_types
def test_posterior_is_the_same_for_any_tiling(name, tiles_of):
    rng = np.random.default_rng(1)
    parameters, rows = mixture(name, 4, 3, rng), 4 * rng.standard_normal((150, 3))
    whole = posterior(parameters, rows)
    for size in (1, 7, 149):
        tiles_of(size)
        for part, expected in zip(posterior(parameters, rows), whole, strict=True):
            assert_close(part, expected, 1e-12)


def test_tiles_depend_on_components_and_features_alone_and_fit_the_caches():
    assert tile_rows(1, 3) == 16384
    assert tile_rows(16, 66) == 8192
    assert tile_rows(256, 4753) == 384  # whole multiples of 64 rows
    assert tile_rows(10**6, 10**6) == 64


@all_types
def test_a_step_keeps_nothing_of_earlier_blocks(name):
    rng = np.random.default_rng(2)
    parameters, blocks = mixture(name, 3, 4, rng), rng.standard_normal((3, 50, 4))
    step = EStep(prepare(parameters), Frame.identity(4))
    first = step(blocks[0])
    step(blocks[1])
    list(step.posterior(blocks[2][:20]))
    assert_same_statistics(step(blocks[0]), first, 0.0)


@all_types
def test_rows_and_weights_are_not_written_to(name):
    rng = np.random.default_rng(2)
    parameters, rows, weights = mixture(name, 3, 2, rng), rng.standard_normal((50, 2)), rng.random(50)
    rows.flags.writeable = weights.flags.writeable = False
    step = EStep(prepare(parameters), Frame.identity(2))
    step(rows, weights)
    list(step.posterior(rows))


@all_types
def test_rows_in_any_memory_order_give_the_same_bits(name):
    rng = np.random.default_rng(2)
    parameters, rows = mixture(name, 3, 4, rng), rng.standard_normal((300, 4))
    expected = e_step(parameters, rows)
    wide = np.zeros((300, 8))
    wide[:, ::2] = rows
    for same in (np.asfortranarray(rows), wide[:, ::2], rows[::-1].copy()[::-1]):
        assert_same_statistics(e_step(parameters, same), expected, 0.0)


# --- both kernels --------------------------------------------------------------------------------------------


@extended
@both_weightings
@all_types
@pytest.mark.parametrize("d", [1, 2, 5])
def test_statistics_and_densities_are_those_of_the_definition(name, weighted, d):
    rng = np.random.default_rng(d)
    parameters = mixture(name, 3, d, rng)
    rows = 1.2 * parameters.sample(400, rng)[0]
    weights = rng.random(400) if weighted else None
    density, responsibilities = reference(parameters, rows)
    found = posterior(parameters, rows)
    assert_close(found[0], density, 1e-13, "log-density")
    assert_close(found[1], responsibilities, 1e-12, "responsibilities")
    statistics = e_step(parameters, rows, weights)
    w = np.ones(400) if weights is None else weights
    assert_close(statistics.log_likelihood, density @ w, 1e-13, "log-likelihood")
    assert statistics.weight == pytest.approx(w.sum(), rel=1e-14)
    assert_same_mixture(next_parameters(statistics, parameters), m_step(parameters, rows, weights), 1e-12)


@both_weightings
@all_types
@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("force", [centre_every_component, centre_every_tile, make_two_gemms_dear])
def test_the_centred_kernel_is_the_two_gemm_kernel(monkeypatch, name, weighted, d, force):
    rng = np.random.default_rng(d)
    parameters = mixture(name, 4, d, rng)
    rows = 1.2 * parameters.sample(500, rng)[0]
    weights = rng.random(500) if weighted else None
    assert not prepare(parameters).centred.any()
    fast, fast_posterior = e_step(parameters, rows, weights), posterior(parameters, rows)
    force(monkeypatch)
    assert prepare(parameters).centred.all() == (force is not centre_every_tile)
    slow, slow_posterior = e_step(parameters, rows, weights), posterior(parameters, rows)
    if force is centre_every_tile:
        assert_same_statistics(slow, fast, 1e-12)
    else:
        np.testing.assert_array_equal(slow.centres, parameters.means)
        assert_close(slow.counts, fast.counts, 1e-12)
        assert_close(slow.log_likelihood, fast.log_likelihood, 1e-12)
    assert_same_mixture(next_parameters(slow, parameters), next_parameters(fast, parameters), 1e-10)
    for a, b in zip(slow_posterior, fast_posterior, strict=True):
        assert_close(a, b, 1e-12)


def with_needles(name, rng, width, d=3):
    """Four components, of which two (all, where covariances are shared) are `width` wide."""
    parameters = mixture(name, 4, d, rng)
    found = np.array(parameters.covariances)
    if COVARIANCE_TYPES[name].pooled:
        found *= width**2
    else:
        found[1::2] *= width**2
    return Parameters(parameters.covariance, parameters.weights, parameters.means, found)


@extended
@both_weightings
@all_types
@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-7])
def test_thin_components_are_right_to_1e_8(name, weighted, width):
    rng = np.random.default_rng(11)
    parameters = with_needles(name, rng, width)
    rows, _ = parameters.sample(800, rng)
    weights = rng.random(800) if weighted else None
    centred = prepare(parameters).centred
    if width < 1e-3:
        assert centred.all() if name == "tied" else (centred == [False, True, False, True]).all()
    density, _ = reference(parameters, rows)
    w = np.ones(800) if weights is None else weights
    statistics = e_step(parameters, rows, weights)
    assert_close(statistics.log_likelihood, density @ w, 1e-8, "log-likelihood")
    assert_close(posterior(parameters, rows)[0], density, 1e-8, "log-density")
    assert_same_mixture(next_parameters(statistics, parameters), m_step(parameters, rows, weights), 1e-8)


@extended
@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_without_the_guard_thin_components_are_wrong(monkeypatch, name):
    rng = np.random.default_rng(11)
    parameters = with_needles(name, rng, 1e-7)
    rows, _ = parameters.sample(800, rng)
    trust_two_gemms(monkeypatch)
    found, expected = posterior(parameters, rows)[0], reference(parameters, rows)[0]
    assert np.abs(found - expected).max() > 1e-3


@extended
@both_weightings
@all_types
@pytest.mark.parametrize("needles", [False, True])
def test_a_tile_far_out_is_done_centred_and_translated(name, weighted, needles, tiles_of):
    rng = np.random.default_rng(7)
    parameters = with_needles(name, rng, 1e-5) if needles else mixture(name, 3, 3, rng)
    rows, _ = parameters.sample(300, rng)
    rows[130:150] += 1e6 * np.array([1.0, -2.0, 0.5])
    weights = rng.random(300) if weighted else None
    tiles_of(50)
    components = prepare(parameters)
    step = EStep(components, Frame.identity(3))
    if not components.centred.all():
        assert guarded(components, rows[:50], DOUBLE) == (DOUBLE, False)
        assert guarded(components, rows[100:150], DOUBLE) == (DOUBLE, True)
    statistics = step(rows, weights)
    np.testing.assert_array_equal(statistics.centres, components.centres)
    density, r = reference(parameters, rows)
    found = posterior(parameters, rows)
    np.testing.assert_allclose(found[0], density.astype(float), rtol=1e-10)
    assert_close(found[1], r, 1e-8)
    w = np.ones(300) if weights is None else weights
    assert_close(statistics.log_likelihood, density @ w, 1e-10)
    assert_close(statistics.counts, r @ w, 1e-8, "counts")
    # Components that got none of the far rows keep their accuracy.
    expected = m_step(parameters, rows, weights)
    actual = next_parameters(statistics, parameters)
    near = r[:, 130:150].sum(axis=1) < 1e-30
    assert near.any()
    assert_close(actual.means[near], expected.means[near], 1e-9, "means of the others")
    if name != "tied":
        size = np.abs(expected.covariances[near]).reshape(near.sum(), -1).max(axis=1)
        off = np.abs(actual.covariances[near] - expected.covariances[near]).reshape(near.sum(), -1).max(axis=1)
        assert (off / size).max() < 1e-8
    assert_close(actual.covariances, expected.covariances, 1e-9, "covariances")


# --- single precision ----------------------------------------------------------------------------------------


def rounded(parameters, n, rng):
    rows, _ = parameters.sample(n, rng)
    return rows.astype(np.float32)


def radius(rows):
    return float(np.quantile(np.sum(rows.astype(float) ** 2, axis=1), 0.999))


@both_weightings
@all_types
@pytest.mark.parametrize(("k", "d"), [(1, 1), (4, 3), (6, 12)])
def test_float32_rows_go_through_float32_gemms_within_1e_4_a_row(name, weighted, k, d):
    rng = np.random.default_rng(k)
    parameters = mixture(name, k, d, rng, spread=1.0, low=0.7, high=1.5)
    rows = rounded(parameters, 3000, rng)
    weights = rng.random(3000).astype(np.float32) if weighted else None
    components = prepare(parameters, radius(rows), SINGLE)
    assert components.dtype == SINGLE
    step, exact = EStep(components, Frame.identity(d)), posterior(parameters, rows)
    assert guarded(components, rows[:100], SINGLE) == (SINGLE, False)
    each = np.array([step(row[None]).log_likelihood for row in rows[:300]])
    assert np.abs(each - exact[0][:300]).max() < 1e-4
    w = np.ones(3000) if weights is None else weights.astype(float)
    found = step(rows, weights)
    for value in (found.counts, found.first, found.second):
        assert value.dtype == DOUBLE
    assert abs(found.log_likelihood - exact[0] @ w) / found.weight < 1e-4
    assert np.abs(found.counts - exact[1] @ w).max() / found.weight < 1e-4
    double = next_parameters(e_step(parameters, rows.astype(float), w), parameters)
    assert_same_mixture(next_parameters(found, parameters), double, 1e-3)


@all_types
def test_float64_rows_never_go_through_float32(name):
    parameters = mixture(name, 3, 2, np.random.default_rng(0))
    assert prepare(parameters, 10.0, DOUBLE).dtype == DOUBLE


@all_types
def test_float32_rows_go_through_float64_where_the_bound_says_so(name):
    rng = np.random.default_rng(3)
    parameters = mixture(name, 3, 3, rng)
    thin = Parameters(parameters.covariance, parameters.weights, parameters.means, 1e-4 * parameters.covariances)
    rows = rounded(thin, 500, rng)
    components = prepare(thin, radius(rows), SINGLE)
    assert components.dtype == DOUBLE
    found = EStep(components, Frame.identity(3))(rows)
    expected = e_step(thin, rows.astype(float), radius_squared=radius(rows))
    assert_close(found.log_likelihood, expected.log_likelihood, 1e-12)


@extended
@all_types
def test_a_float32_tile_far_out_goes_through_float64(name, tiles_of):
    rng = np.random.default_rng(7)
    parameters = mixture(name, 3, 3, rng, spread=1.0, low=0.7, high=1.5)
    rows = rounded(parameters, 300, rng)
    near = radius(rows)
    rows[130:135] *= 1e3
    tiles_of(50)
    components = prepare(parameters, near, SINGLE)
    assert components.dtype == SINGLE
    assert guarded(components, rows[:50], SINGLE) == (SINGLE, False)
    assert guarded(components, rows[100:150], SINGLE) == (DOUBLE, False)
    step = EStep(components, Frame.identity(3))
    step(rows[:50])
    density, _ = reference(parameters, rows)
    assert_close(step(rows[100:150]).log_likelihood, density[100:150].sum(), 1e-10)


# --- frame ---------------------------------------------------------------------------------------------------


@all_types
def test_the_frame_changes_nothing_but_the_coordinates(name):
    rng = np.random.default_rng(4)
    parameters, rows = mixture(name, 3, 3, rng), 4 * rng.standard_normal((200, 3))
    scale = np.full(3, 4.0) if name == "spherical" else np.array([0.25, 4.0, 1024.0])
    frame = Frame(np.array([1.0, -2.0, 0.5]), scale)
    expected = posterior(parameters, rows)
    found = posterior(parameters.to_frame(frame), rows, frame=frame)
    assert_close(found[0], expected[0], 1e-12)
    assert_close(found[1], expected[1], 1e-12)
    statistics = EStep(prepare(parameters.to_frame(frame)), frame)(rows)
    moved = next_parameters(statistics, parameters.to_frame(frame)).to_data(frame)
    assert_same_mixture(moved, next_parameters(e_step(parameters, rows), parameters), 1e-12)
    assert_close(statistics.mean_log_likelihood - frame.log_volume, expected[0].mean(), 1e-12)


# --- extremes ------------------------------------------------------------------------------------------------


@all_types
def test_responsibilities_sum_to_one_where_every_density_underflows(name):
    rng = np.random.default_rng(9)
    parameters, rows = mixture(name, 3, 4, rng), 1e8 * rng.standard_normal((50, 4))
    density, responsibilities = posterior(parameters, rows)
    assert np.isfinite(density).all()
    np.testing.assert_allclose(responsibilities.sum(axis=0), 1.0, atol=1e-12)


@all_types
def test_a_component_of_weight_zero_takes_nothing(name):
    rng = np.random.default_rng(9)
    drawn = mixture(name, 3, 2, rng)
    parameters = Parameters(drawn.covariance, np.array([0.4, 0.0, 0.6]), drawn.means, drawn.covariances)
    statistics = e_step(parameters, rng.standard_normal((50, 2)))
    assert statistics.counts[1] < 1e-290
    assert np.isfinite(statistics.log_likelihood)
    following = next_parameters(statistics, parameters)
    np.testing.assert_array_equal(following.means[1], parameters.means[1])
    assert np.isfinite(following.covariances).all()


@all_types
def test_weights_of_zero_leave_rows_out(name):
    rng = np.random.default_rng(9)
    parameters, rows = mixture(name, 3, 2, rng), rng.standard_normal((60, 2))
    weights = rng.integers(0, 3, 60).astype(float)
    repeated = np.repeat(rows, weights.astype(int), axis=0)
    assert_same_statistics(e_step(parameters, rows, weights), e_step(parameters, repeated), 1e-13)
