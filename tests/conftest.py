"""Settings that all tests share. This file also puts tests/ on the path: `cases` holds what they build on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

settings.register_profile(
    "dgmm",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("dgmm")


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread_below_the_engine(request):
    """Tests of the mathematics call it without the engine, which limits BLAS to one thread; elsewhere it must."""
    if request.path.parent.name == "mixture" or request.path.name == "test_em_laws.py":
        with threadpool_limits(1):
            yield
    else:
        yield
