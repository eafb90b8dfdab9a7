"""Providers, offers, nodes and heartbeats by REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from cal_crds import heartbeats
from cal_crds.meta import DEPLOYMENT, NODE

Eventually = Callable[..., Any]
TWELVE = {
    "supports_log_streaming",
    "supports_confidential_compute",
    "supports_spot_instances",
    "supports_multi_gpu",
    "is_ephemeral",
    "requires_readiness_poll",
    "readiness_timeout_seconds",
    "polling_interval_seconds",
    "requires_sidecar",
    "supports_direct_provisioning",
    "pricing_model",
    "features",
}


@pytest.fixture
def instance(world: Any, eventually: Eventually) -> tuple[str, str]:
    """A node that runs: (its instance id, its id)."""
    return _node(world, eventually)


def _node(world: Any, eventually: Eventually, **status: Any) -> tuple[str, str]:
    name = f"job-{uuid4()}"
    uid = world.node(world.deployment(), name, **status)
    eventually(lambda: _shown(world, uid)["provider_instance_id"] == name)
    return name, uid


def _shown(world: Any, uid: str) -> dict[str, Any]:
    nodes = world.get("/inventory/nodes/nosana").json()["nodes"]
    found = [node for node in nodes if node["id"] == uid]
    assert found
    return dict(found[0])


def _beat(world: Any, name: str, **fields: Any) -> Any:
    body = {"provider": "nosana", "provider_instance_id": name, "state": "READY", **fields}
    return world.post("/inventory/heartbeat", body)


def _stored(world: Any, uid: str) -> dict[str, Any]:
    return dict(world.resource(NODE, uid)["status"].get("heartbeat") or {})


def test_providers_show_the_twelve_capabilities(world: Any) -> None:
    providers = world.get("/inventory/providers").json()["providers"]
    assert set(providers) == {"nosana", "akash", "k8s"}
    assert all(set(provider["capabilities"]) == TWELVE for provider in providers.values())
    nosana = providers["nosana"]
    assert nosana["adapter_type"] == "depin"
    assert nosana["capabilities"]["supports_log_streaming"] is True
    assert nosana["capabilities"]["supports_spot_instances"] is False
    assert nosana["capabilities"]["features"] == {"job_based": True, "market_based_pricing": True}
    assert providers["akash"]["capabilities"]["pricing_model"] == "auction"


def test_offers_and_the_providers_that_failed(world: Any) -> None:
    body = world.get("/provider/resources").json()
    assert "provider" not in body
    assert body["errors"] == [{"provider": "akash", "error": "Connection timeout"}]
    assert body["resources"] == [
        {
            "provider": "nosana",
            "provider_resource_id": "nosana-rtx3090",
            "gpu_type": "nvidia-rtx-3090",
            "gpu_count": 1,
            "gpu_memory_gb": 24,
            "vcpu": 8,
            "ram_gb": 32,
            "region": "global",
            "pricing_model": "fixed",
            "price_per_hour": 0.5,
            "available": None,
            "metadata": {"market_address": "abc"},
            "_provider": "nosana",
        }
    ]
    one = world.get("/provider/resources?provider=nosana").json()
    assert (one["provider"], one["errors"], len(one["resources"])) == ("nosana", [], 1)


def test_a_node_without_beats_shows_what_was_bought(world: Any, instance: tuple[str, str]) -> None:
    shown = _shown(world, instance[1])
    expected = {
        "provider": "nosana",
        "provider_instance_id": instance[0],
        "gpu_total": 1,
        "gpu_allocated": 1,
        "vcpu_total": 8,
        "vcpu_allocated": 8,
        "ram_gb_total": 32,
        "ram_gb_allocated": 32,
        "state": "ready",
        "health_score": None,
        "expose_url": None,
        "last_heartbeat": None,
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["hostname"] == world.resource(NODE, instance[1])["metadata"]["name"]


def test_a_beat_is_stored_shown_and_keeps_what_it_does_not_say(world: Any, instance: tuple[str, str]) -> None:
    name, uid = instance
    before = datetime.now(UTC).replace(microsecond=0)
    first = _beat(world, name, state="Busy", expose_url="https://n.example", gpu_allocated=0, health_score=90)
    assert first.json() == {"status": "ok"}
    shown = _shown(world, uid)
    assert (shown["state"], shown["expose_url"], shown["gpu_allocated"]) == ("busy", "https://n.example", 0)
    assert datetime.fromisoformat(shown["last_heartbeat"]) >= before
    _beat(world, name, state="UNHEALTHY", vcpu_allocated=2, error_message="hot")
    stored = _stored(world, uid)
    assert stored.pop("time")
    assert stored == {
        "state": "Unhealthy",
        "exposeURL": "https://n.example",
        "gpuAllocated": 0,
        "healthScore": 90,
        "vcpuAllocated": 2,
        "errorMessage": "hot",
    }
    assert _shown(world, uid)["state"] == "unhealthy"


def test_a_beat_that_says_nothing_new_is_not_written(
    world: Any, instance: tuple[str, str], eventually: Eventually
) -> None:
    name, uid = instance
    _beat(world, name, gpu_allocated=1)
    version = world.resource(NODE, uid)["metadata"]["resourceVersion"]
    first = _shown(world, uid)["last_heartbeat"]

    def later() -> bool:
        assert _beat(world, name, gpu_allocated=1).status_code == 200
        return bool(_shown(world, uid)["last_heartbeat"] > first)

    eventually(later)
    assert world.resource(NODE, uid)["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize("end", ["TERMINATED", "completed", "Failed"])
def test_a_ready_beat_never_revives_what_has_ended(world: Any, instance: tuple[str, str], end: str) -> None:
    name, uid = instance
    _beat(world, name, state=end)
    ended = "failed" if end == "Failed" else "terminated"
    assert _shown(world, uid)["state"] == ended
    # The resource keeps the difference that REST doesn't know.
    assert _stored(world, uid)["state"] == end.capitalize()
    assert _beat(world, name, state="ready", gpu_allocated=0).status_code == 200
    assert (_shown(world, uid)["state"], _shown(world, uid)["gpu_allocated"]) == (ended, 0)


def test_a_beat_does_not_revive_what_the_operator_ended(world: Any, eventually: Eventually) -> None:
    name, uid = _node(world, eventually, state="failed")
    _beat(world, name, state="READY")
    assert _shown(world, uid)["state"] == "failed"


def test_a_redeploy_keeps_the_node_and_hints_at_the_new_instance(world: Any, instance: tuple[str, str]) -> None:
    name, uid = instance
    _beat(world, name, state="TERMINATED")
    new = f"job-{uuid4()}"
    assert _beat(world, new).status_code == 404
    assert _beat(world, new, old_provider_instance_id=name).status_code == 200
    assert _stored(world, uid)["instanceID"] == new and _stored(world, uid)["state"] == "Ready"
    # A hint only: what is paid for is what the provider says, and the operator asks it.
    assert _shown(world, uid)["provider_instance_id"] == name
    assert _beat(world, new, state="BUSY").status_code == 200
    assert _shown(world, uid)["state"] == "busy"


def test_a_beat_finds_its_node_by_provider_and_id(world: Any, instance: tuple[str, str]) -> None:
    assert _beat(world, instance[0], provider="akash").json() == {"detail": "Node not found"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "SLEEPY"}, ["state", "SLEEPY", "'ready', 'busy', 'unhealthy', 'terminated', 'completed', 'failed'"]),
        ({"state": 1}, ["state"]),
        ({"health_score": 101}, ["health_score", "101", "100"]),
        ({"gpu_allocated": -1}, ["gpu_allocated", "-1"]),
        ({"gpu_allocated": 10**30}, ["gpu_allocated"]),
        ({"expose_url": "javascript:alert(1)"}, ["expose_url"]),
        ({"error_message": "x" * 5000}, ["error_message", "4096"]),
        ({"provider_instance_id": ""}, ["provider_instance_id"]),
    ],
)
def test_bad_beats_name_the_field(
    world: Any, instance: tuple[str, str], fields: dict[str, Any], words: list[str]
) -> None:
    reply = _beat(world, instance[0], **fields)
    assert reply.status_code == 400
    assert all(word in reply.json()["detail"] for word in words), reply.text


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1"])
def test_the_inventory_answers_under_its_prefixes(world: Any, prefix: str) -> None:
    assert world.get(f"{prefix}/inventory/providers").json() == world.get("/inventory/providers").json()
    assert world.get(f"{prefix}/inventory/nodes/nobody").json() == {"nodes": [], "total": 0}


def test_digests_of_other_replicas_are_shown_and_ours_are_written(
    world: Any,
    start_api: Any,
    eventually: Eventually,
    namespaces: tuple[str, str],
    instance: tuple[str, str],
    kubectl: Any,
) -> None:
    name, uid = instance
    system = namespaces[1]
    later = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    kubectl("apply", "-f", "-", stdin=json.dumps(heartbeats.build("another-replica", system, {uid: later})))
    # One round is made at the start: this replica's first look finds the other's digest.
    second = start_api(f"--namespace={world.namespace}", f"--system-namespace={system}", "--identity=second")
    world.http, first = type(world.http)(base_url=second.url, trust_env=False), world.http
    try:
        eventually(lambda: datetime.fromisoformat(_shown(world, uid)["last_heartbeat"]) == later)
        _beat(world, name)
    finally:
        world.http.close()
        world.http = first
    # What it knows is written before it ends, or the operator would miss beats over every restart.
    assert second.stop() == 0
    listed = world.call("list", f"/api/v1/namespaces/{system}/configmaps")["items"]
    own = [item for item in listed if item["metadata"]["name"].startswith("cal-api-beats-second")]
    assert len(own) == 1 and uid in heartbeats.parse(own[0])
    kubectl("delete", "configmap", "another-replica", "-n", system)


def test_a_deleted_node_is_draining(world: Any, instance: tuple[str, str], eventually: Eventually) -> None:
    meta = world.resource(NODE, instance[1])["metadata"]
    path = NODE.path(meta["namespace"], meta["name"])
    world.call("merge_patch", path, {"metadata": {"finalizers": ["calayer.dev/cleanup"]}})
    world.call("delete", path)
    eventually(lambda: _shown(world, instance[1])["state"] == "draining")
    world.call("merge_patch", path, {"metadata": {"finalizers": None}})
    eventually(lambda: instance[1] not in world.get("/inventory/nodes/nosana").text)


def test_an_unknown_deployment_of_a_beat_does_no_harm(world: Any, instance: tuple[str, str]) -> None:
    assert _beat(world, instance[0], deployment_id="whatever", use_spot=True).status_code == 200
    assert world.resource(DEPLOYMENT, _shown(world, instance[1])["deployment_id"])
