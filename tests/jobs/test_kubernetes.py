"""jobs/kubernetes and the DaskCluster of a cluster file, against schemas: no API server can run here."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path

import dask
import jsonschema
import kubernetes_validate
import pytest
import yaml
from commands import ROOT
from distributed.cli import dask_scheduler, dask_worker

from dgmm.cli.fit import fit
from dgmm.cli.run import BAD_INPUT
from dgmm.clusters.config import load_cluster
from dgmm.clusters.kubernetes import cluster_spec

FOLDER, FILE = ROOT / "jobs" / "kubernetes", ROOT / "cluster-configs" / "kubernetes.yaml"
DOCUMENTS = [
    doc for name in ("volume", "fit-job") for doc in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())
]
BY_KIND = {document["kind"]: document for document in DOCUMENTS}
NAMES = {kind: document["metadata"]["name"] for kind, document in BY_KIND.items()}
JOB = BY_KIND["Job"]["spec"]
POD = JOB["template"]["spec"]
(DRIVER,) = POD["containers"]
ADAPTIVE = {"workers.count": None, "workers.minimum": 2, "workers.maximum": 5}
VOLUMES = [{"claim": "rows", "path": "/data"}, {"claim": "out", "path": "/out"}]
MORE = {"workers.environment": {"AWS_REGION": "eu-central-1"}, "workers.threads": 2, "workers.scratch": "/tmp"}
VARIANTS = [{}, ADAPTIVE, {"volumes": VOLUMES}, {"namespace": "research", "name": "wide"}, MORE]
variants = pytest.mark.parametrize("overrides", VARIANTS, ids=lambda given: ",".join(given) or "shipped")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory):
    """dask_kubernetes writes its defaults into the user's home when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask.config, "PATH", str(tmp_path_factory.mktemp("dask")))
        yield


@pytest.fixture(scope="module")
def schema():
    import dask_kubernetes

    (crd,) = Path(dask_kubernetes.__file__).parent.glob("operator/deployment/helm/*/crds/daskcluster.yaml")
    (version,) = yaml.safe_load(crd.read_text())["spec"]["versions"]
    found = version["schema"]["openAPIV3Schema"]
    found["properties"] |= {key: {} for key in ("apiVersion", "kind", "metadata")}  # which every resource has
    return jsonschema.Draft202012Validator(closed(found))


def closed(part):
    """A real server drops keys that a schema does not have; here a typo has to fail."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    part = {key: closed(item) for key, item in part.items()}
    if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
        part.setdefault("additionalProperties", False)
    return part


def validate(document):
    for version in ("1.31", kubernetes_validate.latest_version()):  # podFailurePolicy is stable from 1.31 on
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_manifests_validate(document):
    validate(document)


@variants
def test_dask_cluster_validates_and_runs_programs_that_exist(overrides, schema):
    resource = cluster_spec(load_cluster(FILE, overrides))
    schema.validate(resource)
    for part, program in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        pod = resource["spec"][part]["spec"]
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": resource["metadata"], "spec": pod})
        # distributed has `dask scheduler`, and in its later versions no `dask-scheduler`.
        assert pod["containers"][0]["args"][:2] == ["dask", part]
        program.make_context(part, pod["containers"][0]["args"][2:])


@pytest.mark.parametrize("place", ["spec", "spec/worker", "spec/worker/spec", "spec/scheduler/spec/containers/0"])
def test_typos_fail(place, schema):
    resource, job = copy.deepcopy((cluster_spec(load_cluster(FILE)), BY_KIND["Job"]))
    functools.reduce(lambda node, key: node[int(key) if key == "0" else key], place.split("/"), resource)[
        "imag"
    ] = ""
    with pytest.raises(jsonschema.ValidationError, match="imag"):
        schema.validate(resource)
    job["spec"]["template"]["spec"]["containers"][0]["imag"] = ""
    with pytest.raises(kubernetes_validate.ValidationError, match="imag"):
        validate(job)


def test_manifests_agree(tmp_path):
    inside = tmp_path / "cluster.yaml"
    inside.write_text(BY_KIND["ConfigMap"]["data"][inside.name])
    assert yaml.safe_load(inside.read_text()) == yaml.safe_load(FILE.read_text())
    cluster, binding = load_cluster(inside), BY_KIND["RoleBinding"]
    assert binding["roleRef"]["name"] == NAMES["Role"]
    assert binding["subjects"][0]["name"] == NAMES["ServiceAccount"] == POD["serviceAccountName"]
    assert DRIVER["image"] == cluster.image
    environment = {entry["name"]: entry.get("valueFrom") for entry in DRIVER["env"]}
    assert environment["DASK_KUBERNETES__NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    sources = {volume["name"]: volume for volume in POD["volumes"]}
    mounted = {mount["mountPath"]: sources[mount["name"]] for mount in DRIVER["volumeMounts"]}
    assert {volume.path: volume.claim for volume in cluster.volumes} == {"/data": NAMES["PersistentVolumeClaim"]}
    assert mounted["/data"]["persistentVolumeClaim"]["claimName"] == NAMES["PersistentVolumeClaim"]
    assert mounted["/etc/dgmm"]["configMap"]["name"] == NAMES["ConfigMap"]
    program, name, *arguments = [*DRIVER["command"], *DRIVER["args"]]
    given = fit.make_context(name, arguments).params
    assert (program, name, str(given["cluster_file"])) == ("dgmm", "fit", f"/etc/dgmm/{inside.name}")
    assert all(str(given[path]).startswith("/data/") for path in ("data", "model_file", "checkpoint"))


def test_what_ends_the_job():
    bad_input, eviction = JOB["podFailurePolicy"]["rules"]
    codes = {"containerName": DRIVER["name"], "operator": "In", "values": [BAD_INPUT]}
    assert bad_input == {"action": "FailJob", "onExitCodes": codes}
    assert (eviction["action"], eviction["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (POD["restartPolicy"], POD["terminationGracePeriodSeconds"]) == ("Never", 120)


def test_the_image():
    text = (FOLDER / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.\d+-slim$", text, re.MULTILINE)
    assert re.findall(r"^USER (\d+)$", text, re.MULTILINE) == [str(POD["securityContext"]["fsGroup"])]
    assert not re.search(r"^ENTRYPOINT", text, re.MULTILINE)  # the operator's pods have args and no command
    assert all(
        (ROOT / name).exists()
        for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
        for name in line.split()
    )
