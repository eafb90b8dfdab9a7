"""REST beside kubectl, Helm, Flux and Argo CD: server-side apply without force, and a warning where a sync may undo the write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cal_api import ownership
from cal_crds.meta import API_VERSION, DEPLOYMENT, MANAGER_API, POOL

Kubectl = Callable[..., Any]


def _pool(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"owner": {"id": f"owner of {name}"}, "providerRef": {"name": "nosana"}, "desiredState": "Active"}
    return {"apiVersion": API_VERSION, "kind": POOL.name, "metadata": {"name": name, **metadata}, "spec": spec}


def test_one_manager_owns_what_rest_creates_and_changes(world: Any) -> None:
    uid = world.deployment(org_id="o", configuration={"image": "a/b", "env": {"A": "1", "B": "2"}, "expose": [80, 81]})
    for change in ({"replicas": 2}, {"configuration": {"env": {"A": "3"}}}, {"inference_model": "x"}):
        assert world.patch(f"/update/{uid}", change).status_code == 200
    world.post("/terminate", {"deployment_id": uid})
    live = world.resource(DEPLOYMENT, uid)
    assert [entry["manager"] for entry in live["metadata"]["managedFields"]] == [MANAGER_API]
    spec = live["spec"]
    assert (spec["replicas"], spec["model"]["servedName"], spec["desiredState"]) == (2, "x", "Terminated")
    assert spec["workload"]["env"] == [{"name": "A", "value": "3"}] and len(spec["workload"]["ports"]) == 2
    assert spec["owner"] == {"organization": "o"} and spec["poolRef"]["uid"]


def test_a_field_that_kubectl_took_is_a_conflict_that_names_it(world: Any, kubectl: Kubectl) -> None:
    uid = world.deployment()
    name = world.resource(DEPLOYMENT, uid)["metadata"]["name"]
    kubectl("scale", "mdep", name, "-n", world.namespace, "--replicas=4")
    reply = world.patch(f"/update/{uid}", {"replicas": 2})
    assert reply.status_code == 409
    assert "spec.replicas" in reply.json()["detail"] and "kubectl" in reply.json()["detail"]
    # What nobody else owns can still be changed, and the other's field stays.
    assert world.post("/terminate", {"deployment_id": uid}).json()["state"] == "TERMINATING"
    spec = world.resource(DEPLOYMENT, uid)["spec"]
    assert (spec["replicas"], spec["desiredState"]) == (4, "Terminated")


@pytest.mark.parametrize(
    ("metadata", "manager"),
    [
        ({"annotations": {"meta.helm.sh/release-name": "shop"}}, "Helm release shop"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "a:b"}}, "Argo CD"),
        ({}, None),
    ],
)
def test_a_write_to_a_managed_object_works_and_warns(
    world: Any, kubectl: Kubectl, namespace: str, metadata: dict[str, Any], manager: str | None
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pool("managed", **metadata)))
    uid = kubectl("get", "cpool", "managed", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    for reply in (world.patch(f"/updatepool/{uid}", {"metadata": {"a": 1}}), world.delete(f"/pool/{uid}")):
        assert reply.status_code in (200, 202), reply.text
        warning = reply.headers.get("warning")
        assert warning == (f'299 cal-api "managed by {manager}, whose next sync may undo this"' if manager else None)


@pytest.mark.parametrize("manager", ["argocd-controller", "helm", "kustomize-controller"])
def test_a_manager_is_known_by_its_fields_too(world: Any, kubectl: Kubectl, namespace: str, manager: str) -> None:
    body = json.dumps(_pool("applied"))
    kubectl("apply", "--server-side", f"--field-manager={manager}", "-n", namespace, "-f", "-", stdin=body)
    uid = kubectl("get", "cpool", "applied", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    assert "warning" in world.patch(f"/updatepool/{uid}", {"metadata": {"a": 1}}).headers
    reply = world.post(f"/stoppool/{uid}")
    assert reply.status_code == 409 and manager in reply.json()["detail"]


def test_concurrent_changes_all_count(world: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    uid = world.deployment()
    changes: list[dict[str, Any]] = [
        {"replicas": 7},
        {"inference_model": "served"},
        {"configuration": {"image": "a/b:9"}},
    ]
    with ThreadPoolExecutor(3) as pool:
        assert [r.status_code for r in pool.map(lambda body: world.patch(f"/update/{uid}", body), changes)] == [200] * 3
    spec = world.resource(DEPLOYMENT, uid)["spec"]
    assert (spec["replicas"], spec["model"]["servedName"], spec["workload"]["image"]) == (7, "served", "a/b:9")


def test_the_status_that_the_operator_writes_meanwhile_is_no_conflict(world: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    uid = world.deployment()
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(lambda: [world.set_status(DEPLOYMENT, uid, readyReplicas=n) for n in range(10)])
        replies = [world.patch(f"/update/{uid}", {"replicas": n}).status_code for n in range(1, 10)]
        written.result()
    assert replies == [200] * 9


# --- pure --------------------------------------------------------------------------------------------------------------

_LIVE = {
    "metadata": {
        "name": "x",
        "labels": {"a": "1", "b": "2"},
        "finalizers": ["ours", "theirs"],
        "managedFields": [
            {"manager": "other", "operation": "Apply", "fieldsV1": {"f:spec": {"f:n": {}}}},
            {"manager": "me", "operation": "Update", "fieldsV1": {"f:spec": {"f:n": {}}}},
            {"manager": "me", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {"f:s": {}}}},
            {
                "manager": "me",
                "operation": "Apply",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {'v:"ours"': {}}},
                    "f:spec": {
                        "f:env": {
                            'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}},
                            'k:{"name":"GONE"}': {".": {}, "f:name": {}},
                        },
                        "f:args": {},
                        "f:missing": {},
                        "f:deep": {".": {}, "f:inner": {}},
                    },
                },
            },
        ],
    },
    "spec": {
        "n": 1,
        "env": [{"name": "A", "value": "1", "note": "theirs"}, {"name": "B", "value": "2"}],
        "args": ["x", "y"],
        "deep": {"inner": {"all": 1}, "other": 2},
    },
    "status": {"s": 1},
}


def test_what_was_applied_is_read_from_the_managed_fields() -> None:
    assert ownership.applied(_LIVE, "me") == {
        "metadata": {"labels": {"a": "1"}, "finalizers": ["ours"]},
        "spec": {"env": [{"name": "A", "value": "1"}], "args": ["x", "y"], "deep": {"inner": {"all": 1}}},
    }
    assert ownership.applied(_LIVE, "nobody") == {}
    assert ownership.applied({"metadata": {}}, "me") == {}


def test_changes_are_merged_into_what_was_applied() -> None:
    base = {"a": {"b": 1, "c": 2}, "l": [1], "x": 1}
    change = {"a": {"b": 3, "c": None}, "l": [2], "n": {"m": None, "k": 1}}
    assert ownership.merged(base, change) == {"a": {"b": 3}, "l": [2], "x": 1, "n": {"k": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "l": [1], "x": 1}


def test_a_warning_is_one_clean_header() -> None:
    assert ownership.warning('a"b\\c\r\nd ä') == '299 cal-api "managed by a?b?c??d ?, whose next sync may undo this"'
