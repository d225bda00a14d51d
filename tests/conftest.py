"""Settings that all tests share. This file also puts tests/ on the path: `cases` holds what they build on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fittings import need
from hypothesis import HealthCheck, settings
from servers import seaweedfs
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


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.Seaweed]:
    """An S3 server: one for each process of pytest-xdist that has a use for it, up in a second."""
    need(seaweedfs.missing())
    with seaweedfs.seaweedfs(tmp_path_factory.mktemp("seaweed") / "server") as server:
        yield server


@pytest.fixture
def s3(seaweed: seaweedfs.Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a folder that nobody else uses, and credentials for it in the environment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    # Whoever runs the tests may have files of their own.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    return f"s3://{seaweedfs.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder that is empty, or not there yet: what tests of files run on twice."""
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3")
