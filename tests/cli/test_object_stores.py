"""The command line with everything on an S3 server, end to end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import dgmm, in_process, running
from fittings import assert_done_once
from matplotlib.figure import Figure
from servers.http import web_server

import dgmm as package
from dgmm.data import store
from dgmm.data.zarr_store import UrlStore
from dgmm.engine import archive
from dgmm.engine.model import KIND
from dgmm.plot import convergence

# Some fits here end after five iterations.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FIT = ("-k", 3, "--seed", 3, "--tol", 0, "--max-iter", 12, "--workers", 2)
ONE_BLOCK = {"DASK_DGMM__BLOCKS_PER_LEAF": "1"}


def upload(folder: Path, url: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(f"{url}/{path.relative_to(folder)}", path.read_bytes())
    return url


@pytest.fixture
def small(s3, monkeypatch, tmp_path) -> str:
    """The URL of 5000 rows, of which 1000 are the sample."""
    monkeypatch.setattr("dgmm.engine.settings.SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((5000, 2)) + 4 * rng.integers(3, size=(5000, 1))
    zarr.create_array(tmp_path / "small.zarr", data=rows, chunks=(500, 2))
    return upload(tmp_path / "small.zarr", f"{s3}/small.zarr")


def assert_keeps_secrets(seaweed, *texts: str) -> None:
    """Neither what was printed nor any object holds the credentials."""
    objects = store.list_objects("s3://dgmm-test")
    assert objects
    contents = [store.read(f"s3://dgmm-test/{found.name}") for found in objects]
    for user in (seaweed.owner, seaweed.reader):
        for secret in (user.key, user.secret):
            assert not [text for text in texts if secret in text]
            assert not [content for content in contents if secret.encode() in content]


def bits(model):
    """Of what was found; the file also says where the rows were."""
    return {name: array.tobytes() for name, array in archive.read(model, KIND)[1].items()}


def test_every_command(small, s3, seaweed, tmp_path, monkeypatch, capsys):
    model, checkpoint, out = f"{s3}/models/m.dgmm", f"{s3}/runs/1", f"{s3}/out.zarr"

    def run(*arguments: object) -> dict:
        code = in_process(monkeypatch, *arguments, "--json", local=True)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        texts.append(printed.out + printed.err)
        return json.loads(printed.out)

    texts: list[str] = []
    fit = ("-k", 3, "--seed", 1, "--max-iter", 5, "--tol", 0)
    fitted = run("fit", small, *fit, "--model", model, "--checkpoint", checkpoint)
    assert fitted["model"] == model
    run("fit", tmp_path / "small.zarr", *fit, "--model", tmp_path / "m.dgmm")
    assert bits(model) == bits(tmp_path / "m.dgmm"), "the same bits as from the disk"

    again = run("fit", small, *fit, "--model", f"{s3}/models/other", "--checkpoint", checkpoint)
    assert again["means"] == fitted["means"]
    assert f"what {checkpoint} holds is complete already" in texts[-1]

    assert run("info", model)["sha256"] == archive.digest(model)
    assert run("info", checkpoint)["iterations"] == 5
    assert run("compare", model, f"{s3}/models/other", "--best", f"{s3}/models/best")["best"] == model
    assert archive.content(f"{s3}/models/best") == archive.content(model)
    assert run("score", small, "--model", model)["n"] == 5000

    assert run("predict", small, "--model", model, "--out", out)["rows_written"] == 5000
    assert run("predict", small, "--model", model, "--out", out)["rows_written"] == 0
    labels = zarr.open_group(UrlStore(out), mode="r")["labels"][:]
    rows = zarr.open_array(tmp_path / "small.zarr", mode="r")[:]
    np.testing.assert_array_equal(labels, package.load(model).predict(rows))

    assert run("sample", "-n", 100, "--seed", 2, "--model", model, "--out", f"{s3}/drawn")["rows_written"] == 100
    select = ("--components", "2..3", "--covariance-types", "full", "--seed", 1, "--checkpoint", f"{s3}/runs/2")
    assert run("select", small, *select, "--model", f"{s3}/models/chosen")["n_components"] == 3
    assert package.load(f"{s3}/models/chosen").n_components == 3

    page = f"{s3}/models/report.html"
    assert run("report", model, small, "--checkpoint", checkpoint, "-o", page)["report"] == page
    assert b"3 Gaussian components of s3://" in store.read(page)
    assert package.report(model, path=f"{page}l") == f"{page}l"
    assert store.read(f"{page}l").startswith(b"<!DOCTYPE html>")
    curve = convergence(checkpoint, ax=Figure().add_subplot()).lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), package.load(model).history_["log_likelihood"])
    assert_keeps_secrets(seaweed, *texts)


def test_from_a_web_server(small, tmp_path, monkeypatch, capsys):
    fit = ("-k", 3, "--seed", 1, "--max-iter", 5, "--tol", 0)
    with web_server(tmp_path) as url:
        served = in_process(monkeypatch, "fit", f"{url}/small.zarr", *fit, "--model", tmp_path / "a", local=True)
        assert served == 0, capsys.readouterr().err
        read = in_process(monkeypatch, "fit", tmp_path / "small.zarr", *fit, "--model", tmp_path / "b", local=True)
        assert read == 0
        assert bits(tmp_path / "a") == bits(tmp_path / "b")
        assert package.load(f"{url}/a").n_components == 3
        assert in_process(monkeypatch, "info", f"{url}/a") == 0
        assert in_process(monkeypatch, "fit", tmp_path / "small.zarr", "--model", f"{url}/m", local=True) == 1
        assert "nothing can be written to a web server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "code", "expected"),
    [
        ("s3://no-such-bucket/m", 2, "s3://no-such-bucket does not exist"),
        ("s3://dgmm-test", 2, "is a bucket, and a file was expected"),
        ("memory://m", 2, "checkpoints and models are kept in folders and in object stores"),
        ("s3://KEY:SECRET@dgmm-test/m", 2, "holds a user name or a password"),
    ],
)
@pytest.mark.parametrize("option", ["--model", "--checkpoint"])
def test_wrong_addresses_fail_before_any_work(small, tmp_path, monkeypatch, capsys, option, place, code, expected):
    if option == "--checkpoint" and "bucket, and a file" in expected:
        return  # a whole bucket may be a folder of checkpoints
    monkeypatch.setattr("dgmm.engine.passes.Passes.run", lambda *_: pytest.fail("a pass was started"))
    options = {"--model": tmp_path / "m", option: place}
    given = [word for pair in options.items() for word in pair]
    assert in_process(monkeypatch, "fit", small, *given, "--seed", 1, local=True) == code
    printed = capsys.readouterr()
    assert expected in printed.err
    assert "SECRET" not in printed.out + printed.err


@pytest.mark.parametrize("command", ["fit", "predict", "info", "model", "checkpoint", "out"])
def test_a_wrong_secret(small, s3, seaweed, tmp_path, monkeypatch, capsys, command):
    package.GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).random((50, 2))).save(tmp_path / "m")
    archive.write(f"{s3}/m", archive.content(tmp_path / "m"))
    local = tmp_path / "small.zarr"
    arguments = {
        "fit": ("fit", small, "--model", tmp_path / "x"),
        "predict": ("predict", local, "--model", f"{s3}/m", "--out", tmp_path / "x"),
        "info": ("info", f"{s3}/m"),
        "model": ("fit", local, "--model", f"{s3}/x"),
        "checkpoint": ("fit", local, "--model", tmp_path / "x", "--checkpoint", f"{s3}/x"),
        "out": ("predict", local, "--model", tmp_path / "m", "--out", f"{s3}/x"),
    }[command]
    monkeypatch.setattr("dgmm.engine.passes.Passes.run", lambda *_: pytest.fail("a pass was started"))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
        assert in_process(patch, *arguments, local=True) == 1
    printed = capsys.readouterr()
    assert "access is refused" in printed.err
    assert "AWS_SECRET_ACCESS_KEY" in printed.err
    assert s3 in printed.err
    assert "a-wrong-secret" not in printed.err
    assert "Traceback" not in printed.err
    assert_keeps_secrets(seaweed, printed.out, printed.err)


def test_an_unreachable_store_is_said_by_the_workers_too(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert in_process(monkeypatch, "fit", small, "--model", tmp_path / "m", local=True) == 1
    assert "127.0.0.1:1 does not answer (Connection refused)" in capsys.readouterr().err


@pytest.fixture
def stored(data: Path, s3: str) -> str:
    """The URL of the large rows."""
    return upload(data, f"{s3}/x.zarr")


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_bits_of_an_unbroken_fit_from_the_disk(
    data, stored, s3, seaweed, tmp_path
):
    unbroken = dgmm("fit", data, *FIT, "--model", tmp_path / "m", cwd=tmp_path)
    assert unbroken.code == 0, unbroken.err
    call = ("fit", stored, *FIT, "--model", f"{s3}/m", "--checkpoint", f"{s3}/run")
    told = []
    for line in ("sample, start 1:", "iteration 3:", "iteration 8:"):
        with running(*call, cwd=tmp_path, **ONE_BLOCK) as command:
            command.wait_for(line)
            command.signal_group(signal.SIGKILL)
            killed = command.finish()
        assert killed.code == -signal.SIGKILL
        told.append(killed.err)
    finished = dgmm(*call, cwd=tmp_path)
    assert finished.code == 0, finished.err
    told.append(finished.err)
    assert bits(f"{s3}/m") == bits(tmp_path / "m")
    assert_done_once("".join(told), stops=3)

    predict = ("--labels", "--log-density", "--workers", 2)
    with running(
        "predict", stored, "--model", f"{s3}/m", "--out", f"{s3}/p", *predict, cwd=tmp_path, **ONE_BLOCK
    ) as command:
        while not store.is_folder(f"{s3}/p/log_density/c"):
            assert command.process.poll() is None, command.finish().err
        command.signal_group(signal.SIGKILL)
        told.append(command.finish().err)
    resumed = dgmm("predict", stored, "--model", f"{s3}/m", "--out", f"{s3}/p", *predict, "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["rows_written"] < 600_000, "what was there is kept"
    rows, mixture = zarr.open_array(data, mode="r")[:], package.load(tmp_path / "m")
    group = zarr.open_group(UrlStore(f"{s3}/p"), mode="r")
    np.testing.assert_array_equal(group["labels"][:], mixture.predict(rows))
    np.testing.assert_array_equal(group["log_density"][:], mixture.score_samples(rows))
    assert_keeps_secrets(seaweed, *told, resumed.err, resumed.out)


@pytest.mark.slow
def test_of_two_drivers_at_one_checkpoint_one_works(data, stored, s3, tmp_path):
    call = ("fit", stored, *FIT, "--checkpoint", f"{s3}/run", "--model")
    with (
        running(*call, f"{s3}/a", cwd=tmp_path, **ONE_BLOCK) as one,
        running(*call, f"{s3}/b", cwd=tmp_path, **ONE_BLOCK) as two,
    ):
        finished = [one.finish(), two.finish()]
    won = [each for each in finished if each.code == 0]
    for each in finished:
        assert each in won or (each.code == 1 and f"{s3}/run is in use by process" in each.err), each.err
    assert won
    assert_done_once("".join(each.err for each in finished), stops=0)
