"""Logs by REST, through a real relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

Eventually = Callable[..., Any]


def test_before_there_is_a_node_a_line_says_so(world: Any) -> None:
    uid = world.deployment()
    waiting = ["Waiting for node provisioning..."]
    assert world.get(f"/logs/{uid}").json() == {"logs": waiting, "provider": "nosana"}
    stream = world.get(f"/logs/{uid}/stream").json()
    assert stream["supported"] is True and stream["message"] == waiting[0]


def test_the_lines_of_ended_nodes_come_from_the_relay(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    world.reach(uid, "STOPPED", eventually, lastStartTime="2026-01-01T00:00:00Z")
    world.keep_logs(uid, [f"line {number}" for number in range(300)])
    assert world.get(f"/logs/{uid}").json() == {"logs": [f"line {n}" for n in range(200, 300)], "provider": "nosana"}
    assert world.get(f"/logs/{uid}?tail=2").json()["logs"] == ["line 298", "line 299"]


@pytest.mark.parametrize("tail", ["0", "-1", "1001", "all", "1.5", "9" * 50, ""])
def test_a_bad_tail_says_what_is_allowed(world: Any, tail: str) -> None:
    reply = world.get(f"/logs/{world.deployment()}", params={"tail": tail})
    assert reply.status_code == 400 and reply.json()["detail"].startswith("tail: ")


def test_a_stream_is_described_by_the_nodes_own_data(world: Any, eventually: Eventually) -> None:
    uid, job = world.deployment(), f"job-{uuid4()}"
    world.node(uid, job, instance={"handle": "h", "id": job, "nodeAddress": "node-address-456"})
    eventually(lambda: job in world.get(f"/logs/{uid}/stream").text)
    described = {
        "ws_url": "ws://localhost:3000/nosana",
        "provider": "nosana",
        "subscription": {
            "type": "subscribe_logs",
            "jobId": job,
            "nodeAddress": "node-address-456",
            "provider": "nosana",
        },
        "supported": True,
        "message": None,
    }
    assert world.get(f"/logs/{uid}/stream").json() == described
    gateway = world.get(f"/logs/{uid}/stream", headers={"X-Gateway-Request": "true"}).json()
    assert gateway == {**described, "ws_url": "/nosana"}


def test_a_provider_that_streams_no_logs_is_said_to(world: Any) -> None:
    uid = world.deployment(world.pool(provider="akash", provider_pool_id=""))
    assert world.get(f"/logs/{uid}/stream").json() == {
        "ws_url": None,
        "provider": "akash",
        "subscription": None,
        "supported": False,
        "message": "Log streaming not yet implemented for akash",
    }
