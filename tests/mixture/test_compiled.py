"""The compiled kernel: the statistics of the NumPy kernel, and its elementary functions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import TYPES, assert_close, mixture
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features

import dgmm
from dgmm.engine.blas import one_blas_thread
from dgmm.mixture import compiled, elementary, tiling
from dgmm.mixture.components import Components
from dgmm.mixture.expectation import EStep, Lockstep
from dgmm.mixture.frame import Frame
from dgmm.mixture.maximization import m_step
from dgmm.mixture.parameters import Parameters
from dgmm.mixture.sweeps import softmax
from dgmm.mixture.tiling import COMPILED_PRODUCT, aligned, as_aligned, compiled_chunk, compiled_tile_rows

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
MANY = 10**12
FIELDS = ("counts", "first", "second", "log_likelihood", "weight")
seeds = st.integers(0, 2**32 - 1)
all_types = pytest.mark.parametrize("name", TYPES)
both_dtypes = pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)


def frame(d):
    return Frame(np.full(d, 0.25), np.full(d, 2.0))


def prepare(parameters, dtype=DOUBLE, radius_squared=30.0):
    return Components.prepare(parameters, dtype, radius_squared)


def both(components, rows, weights=None):
    """Statistics by NumPy and compiled."""
    d = rows.shape[1]
    assert not components.centred.any()
    steps = EStep(components, frame(d)), EStep(components, frame(d), MANY)
    return tuple(step(rows, weights) for step in steps)


def assert_same_statistics(a, b, tolerance=0.0):
    np.testing.assert_array_equal(a.centres, b.centres)
    for field in FIELDS:
        assert_close(getattr(a, field), getattr(b, field), tolerance, field)


# --- exp and log ---------------------------------------------------------------------------------------------


@numba.njit(fastmath={"contract"})
def exp_of(values):
    found = np.empty_like(values)
    for i in range(len(values)):
        found[i] = elementary.exp(values[i])
    return found


@numba.njit(fastmath={"contract"})
def log_of(values):
    found = np.empty_like(values)
    for i in range(len(values)):
        found[i] = elementary.log(values[i])
    return found


def in_ulps(function, exact, values):
    found = function(values)
    expected = exact(values.astype(np.longdouble))
    return float(np.max(np.abs(found - expected) / np.spacing(np.abs(expected).astype(values.dtype))))


@both_dtypes
def test_exp_is_within_two_ulps(dtype):
    rng = np.random.default_rng(0)
    lowest = -700 if dtype == DOUBLE else -60
    values = np.concatenate([rng.uniform(lowest, 0, 20_000), -rng.exponential(1e-3, 5_000), [0.0, lowest]])
    assert in_ulps(exp_of, np.exp, values.astype(dtype)) < 2
    assert exp_of(np.zeros(1, dtype)) == 1


@both_dtypes
def test_log_is_within_two_ulps(dtype):
    rng = np.random.default_rng(1)
    values = np.concatenate([1 + rng.exponential(1e-3, 5_000), rng.uniform(1, 4, 20_000), [2.0, 1e5, 1e30]])
    assert in_ulps(log_of, np.log, values.astype(dtype)) < 2
    assert log_of(np.ones(1, dtype)) == 0


# --- statistics ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    name=st.sampled_from(TYPES),
    k=st.integers(1, 6),
    d=st.integers(1, 5),
    n=st.integers(1, 150),
    tile=st.integers(1, 80),
    chunk=st.integers(1, 30),
    of_rows=st.sampled_from([SINGLE, DOUBLE]),
    dtype=st.sampled_from([SINGLE, DOUBLE]),
    weighted=st.booleans(),
    outlier=st.booleans(),
    seed=seeds,
)
def test_the_statistics_are_those_of_numpy(name, k, d, n, tile, chunk, of_rows, dtype, weighted, outlier, seed):
    rng = np.random.default_rng(seed)
    components = prepare(mixture(name, k, d, rng, spread=1.0, low=0.7, high=1.5), max(dtype, of_rows))
    assume(not components.centred.any())  # one of full covariance in many dimensions is faster centred
    rows = rng.standard_normal((n, d)).astype(of_rows)
    if outlier:
        rows[n // 2] += 1e5
    weights = rng.random(n).astype(of_rows) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "compiled_tile_rows", lambda *_: tile)
        patch.setattr(compiled, "compiled_chunk", lambda *_: chunk)
        expected, found = both(components, rows, weights)
    # Of the largest moment: those of a far row dwarf the others, where single precision may be used.
    assert_same_statistics(found, expected, 1e-11 if components.dtype == DOUBLE else 1e-4)


@all_types
@both_dtypes
def test_many_tiles_and_a_short_one(name, dtype):
    rng = np.random.default_rng(5)
    components = prepare(mixture(name, 8, 6, rng, spread=1.0, low=0.7, high=1.5), dtype)
    rows = rng.standard_normal((10_007, 6)).astype(dtype)
    assert components.dtype == dtype
    expected, found = both(components, rows, rng.random(10_007))
    assert_same_statistics(found, expected, 1e-12 if dtype == DOUBLE else 2e-5)


def test_tiles_that_the_guard_refuses_are_centred_as_in_numpy():
    rng = np.random.default_rng(6)
    components = prepare(mixture("full", 3, 2, rng, spread=1.0, low=0.7, high=1.5))
    rows = rng.standard_normal((4_000, 2))
    rows[1_500] = 1e9
    expected, found = both(components, rows)
    assert_same_statistics(found, expected, 1e-12)
    assert found.second.max() > 1e17


def test_a_spread_that_single_precision_cannot_invert_is_left_to_numpy():
    rng = np.random.default_rng(7)
    components = prepare(mixture("full", 3, 2, rng, spread=1.0, low=0.7, high=1.5), SINGLE)
    narrow = Frame(np.zeros(2), np.full(2, 2.0**-135))
    rows = (rng.standard_normal((4_000, 2)) * 2.0**-135).astype(np.float32)
    found, expected = EStep(components, narrow, MANY)(rows), EStep(components, narrow)(rows)
    assert_same_statistics(found, expected, 2e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_to_the_numpy_kernel(value):
    rng = np.random.default_rng(7)
    components = prepare(mixture("diag", 3, 2, rng, spread=1.0))
    rows = rng.standard_normal((3_000, 2))
    rows[2_000, 1] = value
    with np.errstate(invalid="ignore"):
        expected, found = both(components, rows)
    for field in FIELDS:
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-12)


def test_rows_may_lie_anyhow_and_be_read_only():
    rng = np.random.default_rng(8)
    components = prepare(mixture("full", 3, 4, rng, spread=1.0))
    rows, weights = rng.standard_normal((2_000, 4)), rng.random(2_000)
    step = EStep(components, frame(4), MANY)
    expected = step(rows, weights)
    wide = np.full((4_000, 9), np.nan)
    wide[::2, 1::2] = rows
    frozen, w = np.asfortranarray(rows), np.repeat(weights, 2)[::2]
    frozen.flags.writeable = w.flags.writeable = False
    for same in (wide[::2, 1::2], frozen):
        assert_same_statistics(step(same, w), expected)


def test_a_step_keeps_nothing_of_earlier_blocks_and_takes_empty_ones():
    rng = np.random.default_rng(9)
    components, blocks = prepare(mixture("tied", 3, 4, rng, spread=1.0)), rng.standard_normal((2, 3_000, 4))
    step = EStep(components, frame(4), MANY)
    first = step(blocks[0], None)
    step(10 * blocks[1], rng.random(3_000))
    assert step(blocks[0][:0]).weight == 0
    assert_same_statistics(step(blocks[0]), first)


def test_threads_get_the_same_bits():
    rng = np.random.default_rng(10)
    components = prepare(mixture("full", 5, 6, rng, spread=1.0), SINGLE)
    rows = rng.standard_normal((200_000, 6)).astype(np.float32)
    found = []
    with one_blas_thread():
        expected = EStep(components, frame(6), MANY)(rows)
        threads = [
            threading.Thread(target=lambda: found.append(EStep(components, frame(6), MANY)(rows)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    for statistics in found:
        assert_same_statistics(statistics, expected)


def test_a_weight_of_zero_has_no_rows():
    rng = np.random.default_rng(11)
    p = mixture("full", 3, 2, rng, spread=1.0)
    empty = Parameters(p.covariance, np.array([0.5, 0.0, 0.5]), p.means, p.covariances)
    expected, found = both(prepare(empty), rng.standard_normal((3_000, 2)))
    assert_same_statistics(found, expected, 1e-12)
    assert found.counts[1] < 1e-300


# --- who gets it ---------------------------------------------------------------------------------------------


def test_mixtures_in_lockstep_get_what_each_gets_alone():
    rng = np.random.default_rng(12)
    wide, thin = (mixture("full", 3, 4, rng, spread=1.0) for _ in range(2))
    thin = Parameters(thin.covariance, thin.weights, thin.means, thin.covariances * 1e-10)
    members = [(prepare(p), frame(4)) for p in (wide, thin, wide)]
    rows = rng.standard_normal((5_000, 4))
    assert [bool(c.centred.any()) for c, _ in members] == [False, True, False]
    for member, found in zip(members, Lockstep(members, MANY)(rows).members, strict=True):
        assert_same_statistics(found, EStep(*member, MANY)(rows))


def test_the_rows_of_the_data_decide_not_those_of_a_block(monkeypatch):
    rng = np.random.default_rng(13)
    components = prepare(mixture("full", 3, 4, rng, spread=1.0))
    least = tiling.WORTH_COMPILING // components.theta.size + 1
    made = []
    original = compiled.CompiledKernel.__call__
    monkeypatch.setattr(compiled.CompiledKernel, "__call__", lambda *given: made.append(1) or original(*given))
    rows = rng.standard_normal((50, 4))
    EStep(components, frame(4), least - 1)(rows)
    assert not made
    EStep(components, frame(4), least)(rows)
    assert made


def test_tiles_depend_on_components_and_features_alone():
    assert compiled_tile_rows(8, 6) == 512
    assert compiled_tile_rows(16, 66) == 448  # whole multiples of 32
    assert compiled_tile_rows(16, 561) == 128
    assert compiled_tile_rows(200, 5000) == 512


@given(
    shape=st.one_of(st.integers(1, 99), st.tuples(st.integers(1, 30), st.integers(1, 30))),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_kernels_arrays_begin_with_a_line_of_the_cache(shape, dtype):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    for array in (aligned(shape, dtype), as_aligned(values.T, dtype)):
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype == dtype
    assert aligned(shape, dtype).shape == values.shape
    assert np.array_equal(as_aligned(values.T, dtype), values.T)


def test_its_loops_are_of_the_longest_vectors():
    room = np.zeros((2, 64))
    softmax(room, np.zeros(64), np.zeros(64), -700.0)
    assert all('"prefer-vector-width"="512"' in code for code in softmax.inspect_llvm().values())
    if "+avx512f" in get_host_cpu_features().flatten():
        assert all("zmm" in assembly for assembly in softmax.inspect_asm().values())
    assert np.array_equal(room, np.ones((2, 64)))


def test_products_are_taken_unpacked_where_few_components_allow():
    for k, f in ((8, 6), (16, 66), (16, 561), (32, 2145), (64, 5000), (120, 300)):
        b = compiled_tile_rows(k, f)
        assert min(compiled_chunk(k, b), f) * b * k <= COMPILED_PRODUCT
    assert compiled_chunk(200, compiled_tile_rows(200, 5000)) > 5000, "many components: all at once"


def test_a_small_fit_does_not_import_the_compiler():
    script = (
        "import sys, numpy as np, dgmm; rows = np.random.default_rng(0).normal(size=(500, 2));"
        "dgmm.GaussianMixture(2, random_state=0).fit(rows); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_a_change_in_any_of_its_sources_is_compiled_anew(tmp_path):
    package = tmp_path / "dgmm"
    shutil.copytree(Path(dgmm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import numpy as np; from dgmm.mixture import compiled; double = np.dtype(np.float64);"
        "stats = compiled._kernel(double, double).stats; print(len(stats.cache_misses))"
    )

    def compiled_anew():
        places = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", script]
        found = subprocess.run(command, env=places, cwd=tmp_path, capture_output=True, text=True, check=True)
        return int(found.stdout) > 0

    assert compiled_anew()
    assert not compiled_anew()
    sources = [file for file in (package / "mixture").glob("*.py") if compiles(file) or file.stem == "tiling"]
    assert len(sources) == 5
    for source in sources:
        source.write_text(source.read_text().replace('"""', '"""Changed. ', 1))
        assert compiled_anew(), source.name


def compiles(file):
    return re.search(r"^import numba|^from numba|^@part", file.read_text(), re.MULTILINE) is not None


# --- whitened rows in single precision -----------------------------------------------------------------------


def stretched(k, d, rng, condition):
    """Components whose variances are up to so unlike in a direction of their own."""
    p = mixture("full", k, d, rng, spread=1.0)
    turn = np.linalg.qr(rng.standard_normal((k, d, d)))[0]
    variances = np.geomspace(1 / condition, 1, d)
    return Parameters(p.covariance, p.weights, p.means, (turn * variances) @ turn.transpose(0, 2, 1))


@pytest.mark.parametrize(("k", "d", "condition"), [(4, 16, 300), (5, 24, 500), (12, 65, 200)])
@pytest.mark.parametrize("weighted", [False, True])
def test_whitened_rows_are_as_good_as_double_precision(k, d, condition, weighted):
    rng = np.random.default_rng(d)
    truth = stretched(k, d, rng, condition)
    rows = truth.sample(20_000, rng)[0].astype(np.float32)
    components = prepare(truth, SINGLE, float(np.quantile(np.sum(rows.astype(float) ** 2, axis=1), 0.999)))
    assert components.dtype == DOUBLE
    assert components.whitening_limit > 0
    weights = rng.random(20_000) if weighted else None
    identity = Frame.identity(d)
    expected, found = (EStep(components, identity, n)(rows, weights) for n in (0, MANY))
    assert abs(found.log_likelihood - expected.log_likelihood) < 1e-5 * found.weight
    assert_close(found.counts, expected.counts, 1e-5)
    a, b = (m_step(s, truth, np.zeros(d)) for s in (found, expected))
    # Along every direction, in units of the variance that the component has there.
    factors = truth.covariance.precision_cholesky(b.covariances)
    relative = np.einsum("kji,kjl,klm->kim", factors, a.covariances - b.covariances, factors)
    assert np.abs(np.linalg.eigvalsh(relative)).max() < 1e-3
    assert np.abs(np.einsum("kji,kj->ki", factors, a.means - b.means)).max() < 1e-4


def test_thinner_components_are_left_to_double_precision():
    rng = np.random.default_rng(14)
    truth = stretched(4, 20, rng, 1e6)
    components = prepare(truth, SINGLE, 100.0)
    assert components.whitening_limit == 0
    assert components.dtype == DOUBLE
    assert prepare(truth, DOUBLE, 1e-3).whitening_limit == 0


def test_far_rows_are_not_whitened():
    rng = np.random.default_rng(15)
    truth = stretched(4, 20, rng, 300)
    rows = truth.sample(3_000, rng)[0].astype(np.float32)
    rows[1_000] *= 300
    components = prepare(truth, SINGLE, 60.0)
    assert components.whitening_limit > 0
    expected, found = both(components, rows)
    assert_close(found.log_likelihood, expected.log_likelihood, 1e-6)
