"""Deployments by REST: shapes of configuration, states, the rule of organizations, and changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cal_api.values import ZERO_UUID
from cal_crds.meta import DEPLOYMENT, LABEL_OWNER, LABEL_POOL, POOL
from cal_crds.names import label_hash

Eventually = Callable[..., Any]


def _asked(world: Any, pool: str, **fields: Any) -> dict[str, Any]:
    return {"pool_id": pool, "model_name": "llama-2-7b", "configuration": {"engine": "vllm"}, **fields}


def test_a_deployment_is_stored_as_asked_and_bound_to_its_pool(world: Any) -> None:
    pool = world.pool()
    reply = world.post(
        "/deploy",
        _asked(
            world,
            pool,
            model_id="m-1",
            model_version="v1.0",
            replicas=2,
            gpu_per_replica=1,
            owner_id="somebody",
            inference_model="llama",
            policies={"max_runtime_seconds": 3600, "max_surge": 2, "other": 1},
            configuration={"image": "vllm/vllm-openai:latest", "engine": "vllm", "workload_type": "inference"},
        ),
    )
    uid = reply.json()["deployment_id"]
    assert reply.json() == {"deployment_id": uid, "status": "PENDING", "state": "PENDING"}
    stored = world.resource(DEPLOYMENT, uid)
    pool_resource = world.resource(POOL, pool)
    spec = stored["spec"]
    assert spec["poolRef"] == {"name": pool_resource["metadata"]["name"], "uid": pool}
    assert spec["model"] == {"name": "llama-2-7b", "version": "v1.0", "id": "m-1", "servedName": "llama"}
    assert spec["workload"] == {"type": "Inference", "engine": "vllm", "image": "vllm/vllm-openai:latest"}
    assert (spec["replicas"], spec["gpuPerReplica"], spec["maxRuntimeSeconds"]) == (2, 1, 3600)
    assert spec["rollout"]["maxSurge"] == 2 and "desiredState" not in spec
    labels = stored["metadata"]["labels"]
    assert labels[LABEL_POOL] == pool
    # The pool's owner decides which Secrets may be used, not what a request claims.
    assert labels[LABEL_OWNER] == label_hash(pool_resource["spec"]["owner"]["id"])


def test_a_status_shows_every_field_that_clients_know(world: Any) -> None:
    pool = world.pool()
    uid = world.deployment(pool)
    shown = world.get(f"/status/{uid}").json()
    expected = {
        "deployment_id": uid,
        "state": "PENDING",
        "model_name": "llama",
        "model_version": None,
        "endpoint": "",
        "pool_id": pool,
        "replicas": 1,
        "org_id": None,
        "engine": "vllm",
        "inference_model": None,
        "error_message": None,
        "node_ids": [],
        "target_node_id": None,
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["owner_id"] == world.get(f"/pool/{pool}").json()["owner_id"]
    assert world.get(f"/listDeployments/{pool}").json() == {"deployments": [shown], "total": 1}
    assert world.get(f"/list?pool_id={pool}").json() == {"deployments": [shown], "total": 1}


def test_what_the_operator_says_is_shown(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    world.reach(
        uid,
        "RUNNING",
        eventually,
        endpoint="https://node-1.example",
        readyReplicas=1,
        nodes=[{"name": "n", "uid": "u-1", "state": "ready"}],
        waiting={"reason": "NoOffer", "message": "none", "refused": [{"offer": "a", "reason": "AbovePriceCap"}]},
    )
    shown = world.get(f"/status/{uid}").json()
    assert shown["endpoint"] == "https://node-1.example"
    assert (shown["node_ids"], shown["target_node_id"]) == (["u-1"], "u-1")
    assert shown["waiting"]["refused"] == [{"offer": "a", "reason": "AbovePriceCap", "message": ""}]
    world.reach(
        uid,
        "FAILED",
        eventually,
        outcome={
            "state": "FAILED",
            "reason": "Crashed",
            "message": "exit 3",
            "time": "2026-01-01T00:00:00Z",
            "generation": 1,
        },
    )
    assert world.get(f"/status/{uid}").json()["error_message"] == "exit 3"


def test_one_living_deployment_of_a_model_per_organization(world: Any, eventually: Eventually) -> None:
    pool, other = world.pool(), world.pool()
    first = world.deployment(pool, org_id="acme-1", model_name="m")
    for where in (pool, other):
        reply = world.post("/deploy", _asked(world, where, org_id="acme-1", model_name="m"))
        assert reply.status_code == 409 and "'m' is already deployed" in reply.json()["detail"]
    assert world.deployment(pool, org_id="acme-1", model_name="m2") != first
    assert world.deployment(pool, org_id="acme-2", model_name="m") != first
    world.reach(first, "FAILED", eventually)
    second = world.deployment(pool, org_id="acme-1", model_name="m")
    assert world.post("/deploy", _asked(world, pool, org_id="acme-1", model_name="m")).status_code == 409
    names = [world.get(f"/status/{uid}").json()["resource_name"] for uid in (first, second)]
    assert [name.rpartition("-")[2] for name in names] == ["1", "2"]
    again = world.post("/start", {"deployment_id": first})
    assert again.status_code == 409 and "already deployed" in again.json()["detail"]
    listed = world.get("/deployments?org_id=acme-1&limit=2").json()
    assert listed["total"] == 3 and len(listed["deployments"]) == 2


def test_of_many_at_once_one_wins(world: Any) -> None:
    pool = world.pool()
    body = _asked(world, pool, org_id="crowd", model_name="m")
    with ThreadPoolExecutor(12) as crowd:
        codes = list(crowd.map(lambda _: world.post("/deploy", body).status_code, range(12)))
    assert sorted(codes) == [200] + [409] * 11


def test_an_external_endpoint_runs_at_once_and_buys_nothing(world: Any) -> None:
    reply = world.post(
        "/deploy",
        {
            "pool_id": ZERO_UUID,
            "workload_type": "external",
            "model_name": "gpt",
            "endpoint": "https://api.example/v1",
            "configuration": {"api_key": "hidden"},
        },
    )
    assert reply.json()["state"] == "RUNNING"
    uid = reply.json()["deployment_id"]
    shown = world.get(f"/status/{uid}").json()
    assert (shown["endpoint"], shown["pool_id"], shown["workload_type"]) == (
        "https://api.example/v1",
        ZERO_UUID,
        "external",
    )
    external = world.resource(DEPLOYMENT, uid)["spec"]["external"]
    assert external["secretRef"]["key"] == "API_KEY"
    changed = world.patch(f"/update/{uid}", {"endpoint": "https://other.example"})
    assert changed.json()["endpoint"] == "https://other.example"
    assert world.get(f"/logs/{uid}").json() == {"logs": [], "provider": "external"}
    assert world.get(f"/logs/{uid}/stream").json()["supported"] is False
    assert world.post("/deploy", {"workload_type": "external", "model_name": "g"}).status_code == 400
    assert world.post("/deploy", {"pool_id": ZERO_UUID, "model_name": "g"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"pool_id": None}, "pool_id: is required, unless workload_type is external"),
        ({"configuration": {}}, "configuration: says nothing to run; give an engine, an image or a cmd"),
        (
            {"configuration": {"engine": "vlm"}},
            "configuration.engine: 'vlm' is not allowed; must be one of ['infinity', ",
        ),
        ({"model_name": "a\x07"}, "model_name: 'a\\x07' is not allowed; must hold no control characters"),
        ({"endpoint": "ftp://x"}, "endpoint: 'ftp://x' is not allowed; must be an http or https URL"),
    ],
)
def test_a_refusal_says_in_words_what_is_missing(world: Any, body: dict[str, Any], detail: str) -> None:
    reply = world.post("/deploy", {**_asked(world, world.pool()), **body})
    assert reply.status_code == 400 and reply.json()["detail"].startswith(detail), reply.text


def test_an_engine_of_ones_own_needs_an_image_with_it(world: Any) -> None:
    own = {"configuration": {"engine": "my-engine", "image": "a/b:1"}}
    assert world.post("/deploy", {**_asked(world, world.pool()), **own}).status_code == 200


def test_an_update_changes_what_it_names_and_nothing_else(world: Any) -> None:
    uid = world.deployment(
        configuration={
            "image": "a/b:1",
            "cmd": ["serve"],
            "env": {"A": "1", "MY_KEY": "k"},
            "expose": [{"port": 80, "health_checks": [{"type": "tcp"}]}],
            "note": "old",
        }
    )
    change = {
        "image": "a/b:2",
        "expose": [{"port": 81, "health_checks": [{"path": "/up"}]}],
        "env": {"B": "2"},
        "hint": 1,
    }
    reply = world.patch(f"/update/{uid}", {"replicas": 3, "inference_model": "x", "configuration": change})
    assert reply.status_code == 200, reply.text
    workload = world.resource(DEPLOYMENT, uid)["spec"]["workload"]
    assert workload["image"] == "a/b:2" and workload["args"] == ["serve"]
    assert workload["env"] == [{"name": "B", "value": "2"}]
    assert [port["port"] for port in workload["ports"]] == [81]
    assert workload["readinessProbe"]["httpGet"] == {"path": "/up", "port": "http"}
    assert "tcpSocket" not in workload["readinessProbe"]
    shown = reply.json()
    assert (shown["replicas"], shown["inference_model"]) == (3, "x")
    assert (shown["configuration"]["note"], shown["configuration"]["hint"]) == ("old", 1)
    assert world.patch(f"/update/{uid}", {}).json() == shown
    assert world.patch(f"/update/{uid}", {"endpoint": "http://x.example"}).status_code == 400


def test_pool_ids_in_lists_and_unknown_pools(world: Any) -> None:
    assert world.get("/listDeployments/no-pool").json() == {"deployments": [], "total": 0}
    pool = world.pool()
    made = [world.deployment(pool) for _ in range(3)]
    listed = [item["deployment_id"] for item in world.get(f"/listDeployments/{pool.upper()}").json()["deployments"]]
    assert sorted(listed) == sorted(made)
    created = [item["created_at"] for item in world.get(f"/listDeployments/{pool}").json()["deployments"]]
    assert created == sorted(created, reverse=True)
    assert len(world.get(f"/listDeployments/{pool}?limit=2&offset=1").json()["deployments"]) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replicas": 1001}, ["replicas", "1001", "1000"]),
        ({"replicas": True}, ["replicas"]),
        ({"gpu_per_replica": 1.5}, ["gpu_per_replica", "1.5"]),
        ({"configuration": []}, ["configuration"]),
        ({"configuration": {}}, ["configuration", "engine, an image or a cmd"]),
        ({"workload_type": "mining"}, ["workload_type", "mining", "training"]),
        ({"model_name": "x\u0000"}, ["model_name", "NUL"]),
        ({"policies": {"backoff_limit": -1}}, ["policies.backoff_limit", "-1", "100"]),
        ({"endpoint": "ftp://x"}, ["endpoint"]),
        ({"job_definition": {"ops": []}}, ["job_definition.ops", "exactly one"]),
        ({"policies": {"max_surge": 0, "max_unavailable": 0}}, ["maxSurge and maxUnavailable must be above 0"]),
    ],
)
def test_bad_values_name_the_field_and_what_is_allowed(world: Any, fields: dict[str, Any], words: list[str]) -> None:
    reply = world.post("/deploy", _asked(world, world.pool(), **fields))
    assert reply.status_code == 400, reply.text
    assert all(word in reply.json()["detail"] for word in words), reply.text


def test_a_deployment_of_a_pool_elsewhere_lives_beside_it(
    world: Any, kubectl: Callable[..., Any], namespace: str
) -> None:
    spec = {"owner": {"id": "kim"}, "providerRef": {"name": "nosana"}}
    body = {"apiVersion": "calayer.dev/v1alpha1", "kind": "ComputePool", "metadata": {"name": "by-hand"}, "spec": spec}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    uid = kubectl("get", "cpool", "by-hand", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    made = world.deployment(uid)
    shown = world.get(f"/status/{made}").json()
    assert (shown["namespace"], shown["pool_id"], shown["owner_id"]) == (namespace, uid, "kim")
