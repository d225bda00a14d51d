"""Nothing that is loaded can execute, nothing listens to the network, no secret ends up in a file."""

from __future__ import annotations

import ast
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import ROOT, assert_listens_here_only, in_process, running
from distributed import Client, LocalCluster
from servers import seaweedfs

import dgmm as package
from dgmm.clusters.tls import temporary_files
from dgmm.data import store
from dgmm.data.zarr_store import UrlStore
from dgmm.engine import open_scheduler
from dgmm.errors import SecurityWarning

PACKAGE = Path(package.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
EXECUTING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}


def names_of(node: ast.AST) -> Iterator[str]:
    """Modules that a node imports, as far as they are written down."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def executing(tree: ast.AST) -> Iterator[str]:
    """What in a module could execute what it reads."""
    for node in ast.walk(tree):
        for name in names_of(node):
            if EXECUTING & {name.split(".")[0], name}:
                yield f"line {node.lineno}: imports {name}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in CALLS or called.endswith(("read_pickle", "to_pickle", "loads_pickle")):
            yield f"line {node.lineno}: {called}()"
        if called in ("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"):
            yield f"line {node.lineno}: {called}()"
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            yield f"line {node.lineno}: {called} with {given}"
        if called in ("os.system", "os.popen"):
            yield f"line {node.lineno}: {called}()"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_loaded_can_execute(path: Path) -> None:
    assert list(executing(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "def f():\n    from joblib import load", "eval('1')", "exec(x)", "yaml.load(f)",
        "np.load(f, allow_pickle=True)", "subprocess.run(x, shell=True)", "import cloudpickle as c",
        "pd.read_pickle(f)",
    ],
)  # fmt: skip
def test_what_could_execute_is_found(source: str) -> None:
    assert list(executing(ast.parse(source)))


def test_a_cluster_that_is_tried_listens_here_only(tmp_path: Path) -> None:
    call = ("cluster", "run", ROOT / "cluster-configs/local.yaml", "--set", "workers.count=2")
    with running(*call, cwd=tmp_path) as command:
        command.wait_for("started in")
        assert_listens_here_only(command.process.pid)


@pytest.mark.parametrize(
    "address", ["tls://10.0.0.5:8786", "tcp://127.0.0.1:1", "tcp://127.8.0.1:1", "tcp://[::1]:1", "tcp://localhost:1",
                "inproc://10.0.0.5/1/1"],
)  # fmt: skip
def test_no_warning_of_a_scheduler_that_is_safe(address: str) -> None:
    open_scheduler.warn_if_open(address)  # a warning is an error here


def test_one_warning_of_a_scheduler_on_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_scheduler, "_told", set())
    for address in ("tcp://10.0.0.5:8786", "tcp://node17:8786", "tcp://[2001:db8::1]:8786"):
        with pytest.warns(SecurityWarning, match=rf"scheduler at {address[:6]}.*without TLS.*docs/clusters.md"):
            open_scheduler.warn_if_open(address)
        open_scheduler.warn_if_open(address)
    # This machine stands for another: no test listens on the network.
    monkeypatch.setattr(open_scheduler, "_is_loopback", lambda place: False)
    zarr.create_array(tmp_path / "x", data=np.random.default_rng(0).normal(size=(200, 2)))
    with (
        LocalCluster(
            1, host="127.0.0.1", dashboard_address="127.0.0.1:0", processes=False, protocol="tcp"
        ) as cluster,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", SecurityWarning)
        with Client(cluster):
            for _ in range(2):
                package.GaussianMixture(1, random_state=0).fit(tmp_path / "x")
        with package.cluster(ROOT / "cluster-configs/scheduler.yaml", address=cluster.scheduler_address, tls=None):
            pass
    assert [warning.category for warning in caught].count(SecurityWarning) == 1


def test_no_secret_is_written_anywhere(
    s3: str,
    seaweed: seaweedfs.Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fit, a prediction, a report and a job's script, with logs of all that libraries have to say."""
    pytest.importorskip("dask_jobqueue")
    caplog.set_level(logging.DEBUG)
    canary = "canary-7d1f2b"
    for name in ("DASK_PASSWORD", "PGPASSWORD", "GITHUB_TOKEN", "AZURE_STORAGE_KEY", "HTTP_PROXY_PASSWORD"):
        monkeypatch.setenv(name, canary)
    with temporary_files(tmp_path / "tls") as certificates:
        key = Path(certificates.key).read_text()
        rows = np.random.default_rng(0).normal(size=(2_000, 2))
        zarr.create_array(UrlStore(f"{s3}/x"), data=rows, chunks=(500, 2))
        # A file of its own, with the paths of certificates.
        config = (ROOT / "cluster-configs/slurm.yaml").read_text()
        files = ", ".join(f"{part}: {path}" for part, path in certificates.model_dump().items())
        (tmp_path / "slurm.yaml").write_text(config.replace("tls: temporary", f"tls: {{{files}}}"))
        out = tmp_path / "out"
        out.mkdir()
        for call in (
            ("fit", f"{s3}/x", "-k", 2, "--seed", 0, "--sample-size", 500, "--tol", 1,
             "--checkpoint", out / "ck", "--model", out / "m"),
            ("fit", f"{s3}/x", "-k", 2, "--seed", 0, "--sample-size", 500, "--tol", 1,
             "--checkpoint", f"{s3}/ck", "--model", f"{s3}/m"),
            ("predict", f"{s3}/x", "--model", f"{s3}/m", "--out", out / "p.zarr", "--log-density"),
            ("predict", f"{s3}/x", "--model", f"{s3}/m", "--out", f"{s3}/p.parquet"),
            ("convert", f"{s3}/x", out / "c.zarr"),
            ("report", f"{s3}/m", f"{s3}/x", "-o", out / "r.html"),
            ("info", f"{s3}/ck"),
            ("info", f"{s3}/x"),
            ("cluster", "check", tmp_path / "slurm.yaml"),
        ):  # fmt: skip
            assert in_process(monkeypatch, *call, local=True) == 0, call
    captured = capsys.readouterr()
    assert "SBATCH" in captured.out
    texts = {"output": captured.out, "errors": captured.err, "logs": caplog.text}
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    contents |= {found.name: store.read(f"{s3}/{found.name}") for found in store.list_objects(s3)}
    assert len(contents) > 20
    private = "".join(key.splitlines()[1:-1])
    secrets = [canary, os.environ["AWS_SECRET_ACCESS_KEY"], private[:40], seaweed.owner.secret]
    for name, content in contents.items():
        for secret in secrets:
            assert secret.encode() not in content, f"{secret} in {name}"


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_files_follow_the_umask_and_are_never_for_all_to_write(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(umask)
    try:
        rows = np.random.default_rng(0).normal(size=(2_000, 2))
        zarr.create_array(tmp_path / "x", data=rows, chunks=(500, 2))
        out = tmp_path / "out"
        out.mkdir(mode=0o775)
        python = {"sample_size": 500, "random_state": 0, "tol": 1}
        package.GaussianMixture(1, **python).fit(tmp_path / "x", checkpoint=out / "ck").save(out / "m")
        for call in (
            (
                "fit",
                tmp_path / "x",
                "--seed",
                0,
                "--sample-size",
                500,
                "--checkpoint",
                out / "ck2",
                "--model",
                out / "m2",
            ),
            ("predict", tmp_path / "x", "--model", out / "m", "--out", out / "p.zarr"),
            ("predict", tmp_path / "x", "--model", out / "m", "--out", out / "p.parquet"),
            ("sample", "--model", out / "m", "-n", 100, "--out", out / "s.zarr"),
            ("report", out / "m", tmp_path / "x", "-o", out / "r.html"),
        ):
            assert in_process(monkeypatch, *call, local=True) == 0, call
        with temporary_files(out / "tls") as certificates:
            assert stat.S_IMODE(Path(certificates.key).stat().st_mode) == 0o600
            assert stat.S_IMODE((out / "tls").stat().st_mode) == 0o700
    finally:
        os.umask(before)
    allowed = ~umask & ~stat.S_IWOTH
    found = list(out.rglob("*"))
    assert len(found) > 20
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & allowed, f"{path}: {mode:o}"
