"""Pools by REST: what is stored, what is shown, who may change it, and how they go."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cal_crds.meta import FINALIZER, LABEL_MANAGED_BY, LABEL_OWNER, MANAGER_API, POOL
from cal_crds.names import label_hash, pool_name


def test_a_pool_is_stored_as_its_owner_asked(world: Any) -> None:
    body = world.pool_body(
        max_cost_per_hour=1.10,
        is_dedicated=True,
        region_constraint=["eu", "us", "eu"],
        gpu_count=2,
        scheduling_policy_json='{"strategy":"cheapest","note":1}',
        provider_credential_name="main",
        metadata={"team": "a", "api_key": "hunter2"},
        use_spot=True,
    )
    uid = world.post("/createpool", body).json()["pool_id"]
    stored = world.resource(POOL, uid)
    assert stored["spec"] == {
        "displayName": body["pool_name"],
        "owner": {"type": "User", "id": body["owner_id"]},
        "providerRef": {"name": "nosana", "credential": "main"},
        "providerPoolID": "market-123",
        "allowedGPUTypes": ["rtx3090", "rtx4090"],
        "regions": ["eu", "us"],
        "gpuCount": 2,
        "maxCostPerHour": "1.1",
        "tenancy": "Dedicated",
        "placement": {"strategy": "Cheapest"},
        "desiredState": "Active",
    }
    meta = stored["metadata"]
    assert meta["finalizers"] == [FINALIZER] and meta["namespace"] == world.namespace
    assert meta["labels"] == {LABEL_OWNER: label_hash(body["owner_id"]), LABEL_MANAGED_BY: MANAGER_API}
    assert meta["name"] == pool_name("User", body["owner_id"], body["pool_name"])
    assert "hunter2" not in json.dumps(stored)


def test_a_pool_is_shown_with_every_field_that_clients_know(world: Any) -> None:
    body = world.pool_body(scheduling_policy_json='{"strategy":"best_fit"}', metadata={"a": [1, 2.5]})
    uid = world.post("/createpool", body).json()["pool_id"]
    shown = world.get(f"/pool/{uid}").json()
    expected: dict[str, Any] = {
        **body,
        "pool_id": uid,
        "state": "ACTIVE",
        "lifecycle_state": "running",
        "is_active": True,
        "provider_credential_name": None,
        "pool_type": "job",
        "gpu_count": 1,
        "region_constraint": [],
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["created_at"].endswith("Z") and shown["updated_at"] >= shown["created_at"]
    assert world.get(f"/listPools/{body['owner_id']}").json() == {"pools": [shown], "total": 1}


def test_the_text_of_the_409_is_the_documented_one(world: Any) -> None:
    body = world.pool_body(pool_name="it's mine")
    assert world.post("/createpool", body).status_code == 200
    reply = world.post("/createpool", body)
    assert reply.json() == {"detail": "Pool 'it's mine' already exists for this owner"}
    assert world.post("/createpool", {**body, "owner_id": body["owner_id"] + "x"}).status_code == 200


def test_the_text_for_an_unknown_provider_lists_those_there_are(world: Any) -> None:
    detail = world.post("/createpool", world.pool_body(provider="unknown")).json()["detail"]
    start, _, known = detail.partition(" Available providers: ")
    assert start == "No adapter registered for provider 'unknown'."
    assert sorted(json.loads(known.replace("'", '"'))) == ["akash", "k8s", "nosana"]


def test_a_user_who_acts_for_an_organization_makes_its_pools(world: Any) -> None:
    body = world.pool_body(owner_id="anybody")
    header = {"X-Organization-ID": f"org of {body['pool_name']}"}
    uid = world.post("/createpool", body, headers=header).json()["pool_id"]
    shown = world.get(f"/pool/{uid}").json()
    assert (shown["owner_type"], shown["owner_id"]) == ("organization", header["X-Organization-ID"])
    named = world.pool_body(owner_type="organization", owner_id="acme")
    uid = world.post("/createpool", named, headers=header).json()["pool_id"]
    assert world.get(f"/pool/{uid}").json()["owner_id"] == "acme"


def test_what_is_not_said_has_its_default(world: Any) -> None:
    body = world.pool_body()
    minimal = {name: body[name] for name in ("pool_name", "owner_id", "provider")}
    shown = world.get(f"/pool/{world.post('/createpool', minimal).json()['pool_id']}").json()
    expected: dict[str, Any] = {
        "owner_type": "user",
        "allowed_gpu_types": [],
        "max_cost_per_hour": None,
        "is_dedicated": False,
        "provider_pool_id": "",
        "scheduling_policy_json": "{}",
        "gpu_count": 1,
    }
    assert {name: shown[name] for name in expected} == expected


def test_owner_ids_may_hold_any_characters(world: Any) -> None:
    owner = "a/b c?ä%20;"
    uid = world.pool(owner_id=owner)
    found = world.get("/listPools/a%2Fb%20c%3F%C3%A4%2520%3B").json()
    assert [pool["pool_id"] for pool in found["pools"]] == [uid]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"provider_pool_id": "Bad Market!"}, ["provider_pool_id", "Bad Market!", "base58"]),
        ({"max_cost_per_hour": -1}, ["max_cost_per_hour", "-1", "US dollars"]),
        ({"max_cost_per_hour": "1e400"}, ["max_cost_per_hour", "US dollars"]),
        ({"max_cost_per_hour": True}, ["max_cost_per_hour"]),
        ({"gpu_count": 65}, ["gpu_count", "65", "64"]),
        ({"gpu_count": "1"}, ["gpu_count", "valid integer"]),
        ({"owner_type": "robot"}, ["owner_type", "robot", "['user', 'organization']"]),
        ({"pool_name": ""}, ["pool_name"]),
        ({"pool_name": "x" * 257}, ["pool_name", "256"]),
        ({"pool_name": "a\nb"}, ["pool_name"]),
        ({"pool_name": None}, ["pool_name", "required"]),
        ({"allowed_gpu_types": "rtx3090"}, ["allowed_gpu_types", "list"]),
        ({"allowed_gpu_types": [1]}, ["allowed_gpu_types.0"]),
        ({"scheduling_policy_json": "{"}, ["scheduling_policy_json", "JSON object"]),
        ({"scheduling_policy_json": "[]"}, ["scheduling_policy_json", "JSON object"]),
        (
            {"scheduling_policy_json": '{"strategy":"random"}'},
            ["scheduling_policy_json", "['best_fit', 'cheapest', 'spread']"],
        ),
        ({"metadata": {"x": "y" * 70_000}}, ["metadata", "65536"]),
    ],
)
def test_bad_values_name_the_field_and_what_is_allowed(world: Any, fields: dict[str, Any], words: list[str]) -> None:
    reply = world.post("/createpool", world.pool_body(**fields))
    assert reply.status_code == 400, reply.text
    assert all(word in reply.json()["detail"] for word in words), reply.text


@pytest.mark.parametrize("market", ["market-123", "nvidia-3060", "7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq", ""])
def test_provider_pool_ids_in_their_shapes_are_accepted(world: Any, market: str) -> None:
    uid = world.pool(provider_pool_id=market)
    assert world.get(f"/pool/{uid}").json()["provider_pool_id"] == market


def test_lists_are_paged_with_the_real_total(world: Any) -> None:
    owner = world.pool_body()["owner_id"]
    made = [world.pool(owner_id=owner) for _ in range(5)]
    pages = [world.get(f"/listPools/{owner}?limit=2&offset={offset}").json() for offset in (0, 2, 4, 6)]
    assert [page["total"] for page in pages] == [5] * 4
    assert sorted(pool["pool_id"] for page in pages for pool in page["pools"]) == sorted(made)
    assert [len(page["pools"]) for page in pages] == [2, 2, 1, 0]


def test_metadata_is_replaced_and_null_only_reads(world: Any) -> None:
    uid = world.pool(metadata={"a": 1})
    assert world.patch(f"/updatepool/{uid}", {"metadata": None}).json()["metadata"] == {"a": 1}
    assert world.patch(f"/updatepool/{uid}", {"metadata": {"b": "2", "password": "x"}}).json()["metadata"] == {
        "b": "2",
        "password": "***",
    }
    # A change must not give up what else the api owns.
    spec = world.resource(POOL, uid)["spec"]
    assert spec["maxCostPerHour"] == "1" and spec["allowedGPUTypes"] == ["rtx3090", "rtx4090"]


def test_a_stopped_pool_stays_and_takes_no_deployments(world: Any, eventually: Callable[..., Any]) -> None:
    uid = world.pool()
    assert world.post(f"/stoppool/{uid}").json() == {"pool_id": uid, "status": "TERMINATING"}
    assert world.post(f"/stoppool/{uid}").json()["status"] == "TERMINATING"
    reply = world.post("/deploy", {"pool_id": uid, "model_name": "m", "configuration": {"engine": "vllm"}})
    assert reply.status_code == 409 and "TERMINATING" in reply.json()["detail"]
    world.set_status(POOL, uid, state="TERMINATED")
    eventually(lambda: world.get(f"/pool/{uid}").json()["lifecycle_state"] == "terminated")
    assert world.post(f"/stoppool/{uid}").json()["status"] == "TERMINATED"


@pytest.mark.parametrize("by_post", [True, False])
def test_a_deleted_pool_stays_readable_until_its_finalizer_goes(
    world: Any, eventually: Callable[..., Any], by_post: bool
) -> None:
    body = world.pool_body()
    uid = world.post("/createpool", body).json()["pool_id"]
    method, path = ("POST", "/deletepool") if by_post else ("DELETE", "/pool")
    replies = [world.http.request(method, f"{path}/{uid}").json()["status"] for _ in range(2)]
    assert replies == ["DELETED" if by_post else "TERMINATING"] * 2
    shown = world.get(f"/pool/{uid}").json()
    assert (shown["state"], shown["is_active"]) == ("TERMINATING", False)
    assert world.post("/createpool", body).status_code == 409
    meta = world.resource(POOL, uid)["metadata"]
    world.call("merge_patch", POOL.path(meta["namespace"], meta["name"]), {"metadata": {"finalizers": None}})
    eventually(lambda: world.get(f"/pool/{uid}").status_code == 404)
    assert world.get(f"/listPools/{body['owner_id']}").json()["total"] == 0
    again = world.post("/createpool", body)
    assert again.status_code == 200 and again.json()["pool_id"] != uid


def test_the_type_of_a_pool_is_its_providers(world: Any) -> None:
    uid = world.pool(provider="k8s", provider_pool_id="team-a")
    assert world.get(f"/pool/{uid}").json()["pool_type"] == "cluster"


def test_the_inventory_of_a_pool_holds_its_nodes(world: Any, eventually: Callable[..., Any]) -> None:
    pool = world.pool()
    node = world.node(world.deployment(pool), "job-of-inventory", endpoint="https://node.example")
    listed = eventually(lambda: world.get(f"/list/pool/{pool}/inventory").json()["nodes"])
    expected: dict[str, Any] = {
        "node_id": node,
        "provider": "nosana",
        "gpu_total": 1,
        "gpu_allocated": 1,
        "vcpu_total": 8,
        "vcpu_allocated": 8,
    }
    assert [{name: item[name] for name in expected} for item in listed] == [expected]
    eventually(
        lambda: world.get(f"/list/pool/{pool}/inventory").json()["nodes"][0]["expose_url"] == "https://node.example"
    )
