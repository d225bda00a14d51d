"""Cluster files: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import ROOT, in_process

import dgmm
from dgmm.clusters.config import load_cluster, parse_setting
from dgmm.clusters.schema import KINDS
from dgmm.errors import InvalidClusterFile

SHIPPED = sorted((ROOT / "cluster-configs").glob("*.yaml"))
SLURM = """
kind: slurm
walltime: 04:00:00
workers: {count: 4, memory: 4GiB}
"""


def load(tmp_path: Path, text: str, **overrides: object):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_cluster(path, overrides)


def test_there_is_a_file_of_every_kind():
    assert {path.stem for path in SHIPPED} == set(KINDS)
    for path in SHIPPED:
        assert load_cluster(path).kind == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: slrum", "c.yaml: kind is 'slrum'; expected one of local, slurm, .*did you mean 'slurm'"),
        ("kidn: slurm", "kind is missing .found 'kidn'.; expected one of local"),
        ("- kind: slurm", r"c.yaml holds \[.*; expected keys and values"),
        ("kind: [", "c.yaml is not YAML: .*line 1"),
        ("", "c.yaml holds None"),
        (SLURM + "quue: long", "unknown key quue .did you mean 'queue'.*; known here: workers, queue, account"),
        (
            SLURM.replace("count", "cuont"),
            r"unknown key workers.cuont \(did you mean 'count'\?\); known here: wait",
        ),
        (SLURM.replace("4}", "4GB4}").replace("4GiB", "4GB4"), "workers.memory: '4GB4' is not a size; expected"),
        (
            SLURM.replace(", memory: 4GiB", ""),
            "workers.memory is missing: memory of a worker process, such as 4GiB",
        ),
        ("kind: slurm\nworkers: {count: 4, memory: 4GiB}", "walltime is missing: time limit of a job"),
        ("kind: slurm\nwalltime: 1h", "workers is missing: expected .*count"),
        (SLURM.replace("04:00:00", "soon"), "walltime: 'soon' is not a time; expected hours, minutes and seconds"),
        (
            SLURM.replace("04:00:00", "12:00"),
            "walltime: '12:00' is not a time; expected hours, minutes and seconds",
        ),
        (SLURM.replace("count: 4", "count: four"), "workers.count is 'four'; expected a valid integer"),
        (SLURM.replace("count: 4", "count: 4.5"), "workers.count is 4.5; expected a valid integer"),
        (SLURM.replace("count: 4", "count: yes"), "workers.count is True; expected a valid integer"),
        (SLURM.replace("count: 4", "count: 0"), "workers.count is 0; expected greater than or equal to 1"),
        (SLURM + "account: 1230", "account is 1230; expected a valid string; put it in quotes"),
        (SLURM + "tls: sometimes", "tls is 'sometimes'; expected 'temporary'"),
        (SLURM + "tls: {ca: a, cert: b}", "tls.key is missing: its private key"),
        (SLURM + "tls: {ca: a, cert: b, kye: c}", "unknown key tls.kye"),
        (SLURM + "processes: 3", "workers.count 4 is not a multiple of processes 3"),
        (SLURM.replace("count: 4", "minimum: 4"), "workers: expected either count, or both minimum and maximum"),
        (SLURM.replace("count: 4", "minimum: 4, maximum: 2"), "workers: minimum 4 exceeds maximum 2"),
        (SLURM.replace("slurm", "sge") + "processes: 2", "a job of 2 cores needs parallel_environment"),
        (SLURM + "prologue: module load x", "prologue is 'module load x'; expected a valid list"),
        ("kind: scheduler", "expected either address or file"),
        ("kind: ssh\nhosts: []", "hosts is .*; expected"),
        ("kind: local\nworkers: {threads: 2}\nqueue: long", "unknown key queue; known here: kind, workers"),
        (SLURM + "queue: $NO_SUCH_QUEUE", "queue names the environment variable NO_SUCH_QUEUE, which is not set"),
    ],
)
def test_refused(text, message, tmp_path):
    with pytest.raises(InvalidClusterFile, match=f"(?s){message}") as caught:
        load(tmp_path, text)
    assert str(tmp_path / "c.yaml") in str(caught.value)


def test_nothing_in_a_file_is_executed(tmp_path):
    with pytest.raises(InvalidClusterFile, match="is not YAML: could not determine a constructor"):
        load(tmp_path, "kind: !!python/object/apply:os.system ['touch hacked']")
    with pytest.raises(InvalidClusterFile, match=r"kind is 'os\.system'"):
        load(tmp_path, "kind: os.system")
    assert not (tmp_path / "hacked").exists()


def test_no_file(tmp_path):
    with pytest.raises(InvalidClusterFile, match=r"there is no cluster file .*none.yaml; .*cluster-configs"):
        load_cluster(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("04:00:00", 14400),
        ('"04:00:00"', 14400),
        ("1-02:00:00", 93600),
        ("90m", 5400),
        ("90 minutes", 5400),
        ("12:00:00", 43200),
        ('"12:00:00"', 43200),
        ("3600", 3600),
    ],
)
def test_times(written, seconds, tmp_path):
    assert load(tmp_path, SLURM.replace("04:00:00", written)).walltime == seconds


def test_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("QUEUE", "long")
    monkeypatch.setenv("N", "8")
    text = SLURM.replace("count: 4", "count: $N, scratch: $TMPDIR/x, environment: {A: '$$x'}") + (
        "queue: ${QUEUE}-${SIZE:-small}\nprologue: [cd $SOMEWHERE]"
    )
    found = load(tmp_path, text)
    assert found.queue == "long-small"
    assert found.workers.count == 8
    assert found.workers.environment == {"A": "$x"}
    assert found.workers.scratch == "$TMPDIR/x", "for the shell of the job"
    assert found.prologue == ["cd $SOMEWHERE"]


def test_overrides(tmp_path):
    found = load(tmp_path, SLURM, queue="long", workers={"count": 2}, **{"workers.threads": 3})
    assert (found.queue, found.workers.count, found.workers.threads) == ("long", 2, 3)
    assert found.workers.memory == 4 << 30, "what is not replaced stays"
    assert parse_setting("workers.count=20") == ("workers.count", 20)
    assert parse_setting("queue=long") == ("queue", "long")
    assert parse_setting("directives=[--a=b, -x]") == ("directives", ["--a=b", "-x"])
    text = SLURM + "queue: long\nprocesses: 2"
    found = load(tmp_path, text, queue=None, processes=None)
    assert (found.queue, found.processes) == (None, 1), "null takes a key away"
    assert load(tmp_path, SLURM + "account: '0123'").account == "0123"
    with pytest.raises(InvalidClusterFile, match=r"c.yaml with what was set: unknown key quue"):
        load(tmp_path, SLURM, quue="long")
    with pytest.raises(InvalidClusterFile, match=r"walltime.x cannot be set: walltime holds '04:00:00'"):
        load(tmp_path, SLURM, **{"walltime.x": 1})
    with pytest.raises(InvalidClusterFile, match="expected KEY=VALUE"):
        parse_setting("workers.count")


def test_the_python_function_refuses_before_the_block_is_entered(tmp_path):
    with pytest.raises(InvalidClusterFile, match="unknown key worker"):
        dgmm.cluster(ROOT / "cluster-configs" / "local.yaml", worker=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--cluster c.yaml --workers 2", "give one of them"),
        ("--cluster c.yaml --scheduler 127.0.0.1:1", "give one of them"),
        ("--set queue=long", "give --cluster FILE too"),
        ("--cluster none.yaml", "there is no cluster file none.yaml"),
        ("--cluster c.yaml --set workers.count=no-number", "workers.count is 'no-number'"),
    ],
)
def test_the_command_line_refuses_before_anything_starts(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("kind: local")
    assert in_process(monkeypatch, "fit", "x.zarr", "--model", "m", *arguments.split()) == 2
    assert message in capsys.readouterr().err
