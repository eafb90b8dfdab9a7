"""Many clients of one log: one upstream for all of them, and a slow one holds up nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_many_clients_share_one_upstream(follow: Any, market: Any, relay: Any, eventually_async: Any) -> None:
    node = await market.node()
    node.say(*(f"line {number}" for number in range(20)))

    async def others_gone() -> bool:
        return bool(relay.metric("cal_relay_upstreams") == 0)

    await eventually_async(others_gone)
    clients = await asyncio.gather(*(follow(node.id, provider=market.provider) for _ in range(200)))
    await asyncio.gather(*(client.until_line("line 19") for client in clients))
    assert relay.metric("cal_relay_clients") == 200
    assert relay.metric("cal_relay_upstreams") == 1
    node.say("now")
    await asyncio.gather(*(client.until_line("now") for client in clients))
    assert all(client.lines == clients[0].lines for client in clients)
    await asyncio.gather(*(client.socket.close() for client in clients))
    await eventually_async(others_gone)


async def test_a_slow_client_loses_the_oldest_lines_and_is_told_so(
    follow: Any, market: Any, relay: Any, eventually_async: Any
) -> None:
    node = await market.node()
    node.say("start")
    slow = await _client_that_does_not_read(relay, node.id, market.provider)
    quick = await follow(node.id, provider=market.provider)
    await quick.until_line("start")
    for number in range(12):
        node.say(*(f"{number}.{part} " + "x" * 10000 for part in range(100)), f"{number} is over")
        await quick.until_line(f"{number} is over")
    assert not quick.notices, "the one who keeps up loses nothing"
    reader, writer = slow
    frames: list[dict[str, Any]] = []
    while not frames or not frames[-1]["data"].startswith("11 is over"):
        frames.append(json.loads(await _read_frame(reader)))
    writer.close()
    told = [frame["data"] for frame in frames if "notice" in frame]
    lost = sum(int(text.split()[1]) for text in told)
    assert told and all("are left out here: you read too slowly" in text for text in told)
    lines = [frame["data"] for frame in frames if "notice" not in frame]
    assert lost + len(lines) == len(quick.lines)
    assert lines == [line for line in quick.lines if line in set(lines)]


async def _client_that_does_not_read(
    relay: Any, job_id: str, provider: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket by hand, with a small receive buffer that nothing empties until it is read from."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", relay.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=8192)
    head = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"type": "subscribe_logs", "jobId": job_id, "provider": provider}).encode()
    assert len(body) < 126
    writer.write(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
    return reader, writer


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """The text of the next data frame; pings are passed over."""
    while True:
        kind, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        body = await reader.readexactly(length)
        if kind == 0x81:
            return body
