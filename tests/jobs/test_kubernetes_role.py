"""The Role of jobs/kubernetes allows exactly what KubeCluster asks of an API server."""

from __future__ import annotations

import json

import dask
import distributed
import httpx
import pytest
import yaml
from commands import ROOT

from dgmm.clusters.config import load_cluster
from dgmm.clusters.kubernetes import start


@pytest.mark.filterwarnings("ignore:Scheduler already contains a plugin")  # LocalCluster watches it too
def test_the_role_allows_what_a_run_asks_and_no_more(monkeypatch, tmp_path):
    """Behind the HTTP client a stand-in answers for the API server, the operator and a pod that is ready."""
    monkeypatch.setattr(dask.config, "PATH", str(tmp_path))  # where dask_kubernetes writes its defaults
    from dask_kubernetes.operator import networking
    from kr8s._api import Api
    from kr8s._auth import KubeAuth

    ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
    objects = {
        "pods": {
            "metadata": {"name": "a", "namespace": "research"},
            "status": {"phase": "Running", "conditions": ready},
        }
    }
    pods = {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True}
    discovery = {"gitVersion": "v1.33.0", "versions": ["v1"], "groups": [], "resources": [pods]}
    file, asked = ROOT / "cluster-configs" / "kubernetes.yaml", set()
    documents = yaml.safe_load_all((ROOT / "jobs" / "kubernetes" / "fit-job.yaml").read_text())
    (role,) = (document for document in documents if document["kind"] == "Role")

    def answer(request):
        api, found, place = request.url.path.partition("/namespaces/")
        if not found:
            return httpx.Response(200, json=discovery)
        namespace, plural, *name = place.split("/")
        verb = {"GET": "get" if name else "list", "POST": "create"}.get(request.method, request.method.lower())
        asked.add((namespace, api.strip("/").split("/")[1] if "apis" in api else "", plural, verb))
        if verb == "create":
            objects[plural] = json.loads(request.content) | {"status": {"phase": "Running"}}
        if (plural, verb) == ("daskclusters", "create"):
            service = objects[plural]["spec"]["scheduler"]["service"]
            objects["services"] = {"metadata": {"name": "dgmm-scheduler", "namespace": namespace}, "spec": service}
        there = objects.pop(plural, None) if verb == "delete" else objects.get(plural)
        if verb == "list":
            return httpx.Response(200, json={"items": [there] if there else []})
        return httpx.Response(200 if there else 404, json=there or {"message": "not found"})

    async def session(api):
        api._session = httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(answer))

    async def nothing(_auth):
        pass

    async def address(*_, **__):
        return local.scheduler_address

    monkeypatch.setattr(Api, "_create_session", session)
    monkeypatch.setattr(KubeAuth, "reauthenticate", nothing)
    monkeypatch.setattr(networking, "get_external_address_for_scheduler_service", address)
    with (
        distributed.LocalCluster(name="dgmm", n_workers=0, processes=False, dashboard_address=":0") as local,
        dask.config.set({"kubernetes.namespace": "research"}),
        start(load_cluster(file, {"workers.count": None, "workers.minimum": 2, "workers.maximum": 5})),
    ):
        pass
    assert {namespace for namespace, *_ in asked} == {"research"}
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {call[1:] for call in asked} == allowed - {("", "pods/log", "get")}  # asked if the scheduler crashes
