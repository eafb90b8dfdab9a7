"""Who gets in, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

_GOOD = {"type": "subscribe_logs", "jobId": "nobody"}

BAD_FRAMES = {
    "no-json": ("hello", "Invalid JSON"),
    "empty": ("", "Invalid JSON"),
    "no-object": ("[]", "Input should be an object"),
    "null": ("null", "Input should be an object"),
    "other-type": ({**_GOOD, "type": "subscribe"}, "type: Input should be 'subscribe_logs'"),
    "no-type": ({"jobId": "a"}, "type: Field required"),
    "no-job": ({"type": "subscribe_logs"}, "jobId: Field required"),
    "job-null": ({**_GOOD, "jobId": None}, "jobId: Input should be a valid string"),
    "job-number": ({**_GOOD, "jobId": 7}, "jobId: Input should be a valid string"),
    "job-empty": ({**_GOOD, "jobId": ""}, "jobId: String should have at least 1 character"),
    "job-long": ({**_GOOD, "jobId": "x" * 513}, "jobId: String should have at most 512 characters"),
    "job-control": ({**_GOOD, "jobId": "a\x00b"}, "jobId: String should match pattern"),
    "job-surrogate": (json.dumps({**_GOOD, "jobId": "\ud800"}), "Invalid JSON"),
    "provider-list": ({**_GOOD, "provider": ["a"]}, "provider: Input should be a valid string"),
    "tail-negative": ({**_GOOD, "tail": -1}, "tail: Input should be greater than or equal to 0"),
    "tail-huge": ({**_GOOD, "tail": 10**400}, "tail: "),
    "tail-float": ({**_GOOD, "tail": 1.5}, "tail: "),
    "tail-bool": ({**_GOOD, "tail": True}, "tail: "),
    "deep": ("[" * 8000, "Invalid JSON"),
    "not-utf-8": (b"\xff\xfe{}", "Invalid JSON"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_first_frame_is_answered_and_the_connection_closed(relay: Any, name: str) -> None:
    frame, said = BAD_FRAMES[name]
    async with connect(relay.ws, proxy=None) as client:
        await client.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        answer = json.loads(await client.recv())
        assert answer["type"] == "error"
        assert answer["message"].startswith("the first frame must be a subscription like")
        assert said in answer["message"]
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1008


async def test_a_subscription_may_come_as_a_binary_frame(relay: Any, market: Any) -> None:
    node = await market.node()
    async with connect(relay.ws, proxy=None) as client:
        await client.send(json.dumps({**_GOOD, "jobId": node.uid}).encode())
        assert json.loads(await client.recv())["type"] == "log"


async def test_a_frame_above_16_kib_closes_the_connection(relay: Any) -> None:
    async with connect(relay.ws, proxy=None) as client:
        await client.send(json.dumps({**_GOOD, "more": "x" * 20000}))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009


async def test_the_same_subscription_again_is_harmless_and_another_one_is_refused(follow: Any, market: Any) -> None:
    node = await market.node()
    client = await follow(node.uid)
    await client.frame()
    await client.socket.send(json.dumps({**_GOOD, "jobId": node.uid}))
    await client.socket.send("keep-alive")
    node.say("still here")
    await client.until_line("still here")
    await client.socket.send(json.dumps({**_GOOD, "jobId": "other"}))
    assert (await client.rest())[0] == 1008
    assert client.frames[-1] == {
        "type": "error",
        "message": "this connection has a subscription already; open another one",
    }


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "http://10.0.0.1:3000"]
)
async def test_a_foreign_page_is_refused(relay: Any, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(relay.ws + "/nosana", origin=origin, proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body) == {
        "detail": f"Origin '{origin}' is refused: only pages of this machine may connect"
    }
    assert relay.get("/healthz", {"Origin": origin})[0] == 403


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080"])
async def test_a_page_of_this_machine_may_connect(relay: Any, origin: str) -> None:
    async with connect(relay.ws, origin=origin, proxy=None) as client:  # type: ignore[arg-type]
        await client.ping()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "", "169.254.169.254", "localhost.evil.example"])
def test_a_foreign_host_is_refused(relay: Any, host: str) -> None:
    """DNS rebinding: the browser believes that it talks to the page's own host."""
    status, body = relay.get("/healthz", {"Host": host})
    assert (status, body) == (403, {"detail": f"Host {host!r} is refused: only loopback names are served"})


async def test_too_late_and_too_many(start_relay: Any, free_port: int) -> None:
    relay = start_relay(free_port, "--max-clients=2", "--subscribe-timeout=1")
    first, second = await connect(relay.ws, proxy=None), await connect(relay.ws, proxy=None)
    async with first, second, connect(relay.ws, proxy=None) as third:
        answer = json.loads(await third.recv())
        assert answer == {"type": "error", "message": "2 clients are connected already; try later"}
        await third.wait_closed()
        assert third.close_code == 1013
        assert json.loads(await first.recv())["message"] == "no subscription within 1 seconds"
        await first.wait_closed()
        assert first.close_code == 1008
    relay.stop()


async def test_a_client_that_does_not_answer_pings_is_let_go(
    start_relay: Any, free_port: int, market: Any, eventually_async: Any
) -> None:
    relay = start_relay(free_port, "--ping-interval=1")
    node = await market.node()
    reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
    head = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    body = json.dumps({**_GOOD, "jobId": node.uid}).encode()
    writer.write(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
    received = await reader.read()
    assert b"\x89\x04" in received, "no ping came"
    assert b"keepalive ping timeout" in received
    writer.close()

    async def let_go() -> bool:
        return bool(relay.metric("cal_relay_clients") == 0 and relay.metric("cal_relay_upstreams") == 0)

    await eventually_async(let_go)
    relay.stop()


def test_other_http_requests_are_answered_with_a_detail(relay: Any) -> None:
    assert relay.get("/nosana") == (404, {"detail": "Not Found"})
    assert relay.get("/") == (404, {"detail": "Not Found"})
    assert relay.get("/tail/default/1", method="POST") == (405, {"detail": "Method Not Allowed"})
    status, text = relay.get("/metrics")
    assert status == 200
    assert "cal_relay_nodes" in text
