"""Heartbeats around a redeploy: the node lives on under its new instance, whatever the old one still has to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from cal_crds.meta import NODE

Eventually = Callable[..., Any]


@pytest.fixture
def moved(world: Any, eventually: Eventually) -> tuple[str, str, str]:
    """A node that said it runs as another instance now: (old id, new id, the node's id)."""
    old, new = f"job-{uuid4()}", f"job-{uuid4()}"
    uid = world.node(world.deployment(), old)
    eventually(lambda: old in world.get("/inventory/nodes/nosana").text)
    assert _beat(world, new, old_provider_instance_id=old).status_code == 200
    return old, new, uid


def _beat(world: Any, name: str, **fields: Any) -> Any:
    body = {"provider": "nosana", "provider_instance_id": name, "state": "READY", **fields}
    return world.post("/inventory/heartbeat", body)


def _stored(world: Any, uid: str) -> dict[str, Any]:
    return dict(world.resource(NODE, uid)["status"]["heartbeat"])


@pytest.mark.parametrize("state", ["TERMINATED", "completed", "FAILED", "UNHEALTHY"])
def test_last_words_of_the_old_instance_do_not_end_the_node(
    world: Any, moved: tuple[str, str, str], state: str
) -> None:
    old, new, uid = moved
    assert _beat(world, old, state=state, error_message="bye").status_code == 200
    assert _stored(world, uid)["state"] == "Ready" and "errorMessage" not in _stored(world, uid)
    assert _beat(world, new, state="BUSY").status_code == 200
    assert _stored(world, uid)["state"] == "Busy"


def test_the_new_instance_ends_once(world: Any, moved: tuple[str, str, str]) -> None:
    old, new, uid = moved
    assert _beat(world, new, state="TERMINATED", old_provider_instance_id=old).status_code == 200
    assert _beat(world, new, old_provider_instance_id=old).status_code == 200
    assert _stored(world, uid)["state"] == "Terminated"
    # But a third one is another redeploy.
    third = f"job-{uuid4()}"
    assert _beat(world, third, old_provider_instance_id=new).status_code == 200
    assert (_stored(world, uid)["state"], _stored(world, uid)["instanceID"]) == ("Ready", third)


def test_empty_text_is_absent(world: Any, moved: tuple[str, str, str]) -> None:
    """Agents of languages without null send it."""
    _, new, uid = moved
    _beat(world, new, expose_url="https://n.example")
    reply = _beat(world, new, expose_url="", old_provider_instance_id="", deployment_id="")
    assert reply.status_code == 200, reply.text
    assert _stored(world, uid)["exposeURL"] == "https://n.example"
