"""How a deployment ends by REST, and starts again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cal_crds.meta import DEPLOYMENT

Eventually = Callable[..., Any]


def test_terminate_shows_at_once_and_is_idempotent(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    world.reach(uid, "RUNNING", eventually)
    replies = [world.post("/terminate", {"deployment_id": uid}).json() for _ in range(3)]
    assert replies == [{"deployment_id": uid, "status": "TERMINATING", "state": "TERMINATING"}] * 3
    assert world.state(uid) == "TERMINATING"
    world.reach(uid, "TERMINATED", eventually)
    assert world.post("/terminate", {"deployment_id": uid}).json()["status"] == "TERMINATED"


@pytest.mark.parametrize("state", ["STOPPED", "FAILED"])
def test_terminating_what_has_ended_gives_its_state(world: Any, eventually: Eventually, state: str) -> None:
    uid = world.deployment()
    world.reach(uid, state, eventually)
    before = world.resource(DEPLOYMENT, uid)["metadata"]["resourceVersion"]
    assert world.post("/terminate", {"deployment_id": uid.upper()}).json()["state"] == state
    assert world.resource(DEPLOYMENT, uid)["metadata"]["resourceVersion"] == before


def test_start_tries_again_from_every_terminal_state(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    assert world.post("/start", {"deployment_id": uid}).status_code == 422
    for state in ("STOPPED", "FAILED"):
        world.reach(uid, state, eventually)
        assert world.post("/start", {"deployment_id": uid}).json()["state"] == "PENDING"
        world.set_status(DEPLOYMENT, uid, state="PENDING")
        eventually(lambda: world.get(f"/status/{uid}").json()["state"] == "PENDING")
    world.post("/terminate", {"deployment_id": uid})
    world.reach(uid, "TERMINATED", eventually)
    assert world.post("/start", {"deployment_id": uid}).json()["state"] == "PENDING"
    spec = world.resource(DEPLOYMENT, uid)["spec"]
    assert spec["desiredState"] == "Running" and spec["restartedAt"].endswith("Z")


def test_only_what_has_ended_can_be_deleted(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    reply = world.delete(f"/delete/{uid}")
    assert reply.json()["detail"] == "Deployment is PENDING. Stop it first."
    world.reach(uid, "STOPPED", eventually)
    assert world.delete(f"/delete/{uid}").json() == {"deployment_id": uid, "status": "DELETED", "state": "STOPPED"}
    assert world.get(f"/status/{uid}").status_code == 404
    assert world.delete(f"/delete/{uid}").status_code == 404
