"""Logs of a paid instance through the relay: the last lines and each further one while it runs, and what was kept after its end."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Customer = Any


async def _tail(customer: Customer, uid: str) -> list[str]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.get(f"http://{customer.relay}/tail/{customer.name}/{uid}?tail=50")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["provider"] == customer.name, found
    return [str(line) for line in found["lines"]]


async def test_live_and_after_the_end(customer: Customer, waiting: Any) -> None:
    await customer.register(main=customer.site.key)
    await customer.pool()
    await customer.deploy()
    await customer.reaches("RUNNING", timeout=90)
    assert "LogStreaming" in (await customer.provider()).status.capabilities.supports
    uid = (await customer.deployment()).metadata.uid
    (node,) = await customer.nodes()
    customer.site.say("the first line")

    async def tailed() -> bool:
        assert "the first line" in await _tail(customer, uid)
        return True

    await waiting(tailed)
    async with connect(f"ws://{customer.relay}/{customer.name}", proxy=None) as socket:
        subscription = {"type": "subscribe_logs", "jobId": node.metadata.uid, "provider": customer.name}
        await socket.send(json.dumps(subscription))
        await _until(socket, "the first line")
        customer.site.say("a later line")
        await _until(socket, "a later line")
        await customer.terminate()
        assert (await _until(socket, None))["type"] == "end"
    await customer.no_nodes(timeout=120)
    assert {"the first line", "a later line"} <= set(await _tail(customer, uid))


async def _until(socket: Any, line: str | None) -> dict[str, Any]:
    """Reads frames up to that line; for None up to the end."""
    async for raw in socket:
        frame: dict[str, Any] = json.loads(raw)
        assert frame["type"] != "error", frame
        if frame["type"] == "end" or (line is not None and frame.get("data") == line):
            assert frame["type"] == "end" or line is not None
            return frame
    raise AssertionError(f"the stream broke off before {line!r}")
