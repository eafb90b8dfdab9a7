"""The stand-in's provider side: a gateway that serves logs over a WebSocket, and the Console's proxy before it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from worlds.akash_calls import read_token
from worlds.akash_state import Deployment, World, address

_TICK: Final = 0.05


def routes(world: World) -> list[WebSocketRoute]:
    """`/gateway/{provider}/lease/...` and `/provider-proxy`."""

    async def logs(socket: WebSocket) -> None:
        await _logs(world, socket)

    return [
        WebSocketRoute("/gateway/{provider}/lease/{dseq}/{gseq:int}/{oseq:int}/logs", logs),
        WebSocketRoute("/provider-proxy", _proxy),
    ]


# --- the gateway -------------------------------------------------------------------------------------------------------


async def _logs(world: World, socket: WebSocket) -> None:
    provider, dseq = address(socket.path_params["provider"]), socket.path_params["dseq"]
    claims = _allowed(world, socket.headers, provider)
    if claims is None:
        await socket.close(1008)  # before accept: the handshake is refused with 403
        return
    await socket.accept()
    item = world.deployments.get((claims["iss"], dseq))
    if (
        item is None
        or item.lease is None
        or item.lease.bid.provider.address != provider
        or item.lease.ended is not None
    ):
        await socket.close(4001, "lease not found")
        return
    if item.lease.handed is None:
        await socket.close(4000, "no running pods")
        return
    try:
        await _send_lines(item, socket)
    except (WebSocketDisconnect, RuntimeError):
        return  # the other side has left


def _allowed(world: World, headers: Mapping[str, str], provider: str) -> dict[str, Any] | None:
    claims = read_token(headers.get("authorization", "").removeprefix("Bearer "))
    if claims is None or not claims["nbf"] <= world.now() + 1 or claims["exp"] < world.now():
        return None
    leases = claims["leases"]
    scopes = [each.get("scope", []) for each in leases.get("permissions", []) if each["provider"] == provider]
    return (
        claims
        if leases["access"] == "full" or any("logs" in scope for scope in [*scopes, leases.get("scope", [])])
        else None
    )


async def _send_lines(item: Deployment, socket: WebSocket) -> None:
    follow, tail = socket.query_params.get("follow") == "true", int(socket.query_params.get("tail", "-1"))
    epoch = item.dropped
    sent = len(item.log) if tail == 0 else max(0, len(item.log) - tail) if tail > 0 else 0
    while True:
        for _, line in item.log[sent:]:
            await socket.send_text(json.dumps({"name": f"{item.service}-5d8f7c9b6-abcde", "message": line}))
            sent += 1
        lease = item.lease
        if not follow or lease is None or lease.ended is not None:
            await socket.close(1000 if not follow else 4000, "" if not follow else "no running pods")
            return
        if item.dropped != epoch:
            await socket.close(1011, "internal error")
            return
        await asyncio.sleep(_TICK)


# --- the proxy ---------------------------------------------------------------------------------------------------------


async def _proxy(socket: WebSocket) -> None:
    """Takes one subscription and passes on what the gateway says. (The real one also checks the gateway's certificate on the chain.)"""
    await socket.accept()
    try:
        wanted = json.loads(await socket.receive_text())
    except (ValueError, WebSocketDisconnect):
        return
    if not _understood(wanted):
        await socket.send_text(
            json.dumps(
                {
                    "type": "websocket",
                    "message": "Message doesn't match expected schema",
                    "error": "Invalid message format",
                }
            )
        )
        return
    reader = asyncio.create_task(_pass_on(socket, wanted))
    try:
        while True:
            await socket.receive()
    except RuntimeError:
        pass  # it has left
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _understood(wanted: Any) -> bool:
    return (
        isinstance(wanted, dict)
        and wanted.get("type") == "websocket"
        and isinstance(wanted.get("url"), str)
        and re.fullmatch(r"akash1[a-z0-9]{38}", str(wanted.get("providerAddress"))) is not None
        and wanted.get("auth", {}).get("type") == "jwt"
    )


async def _pass_on(socket: WebSocket, wanted: dict[str, Any]) -> None:
    url = re.sub("^http", "ws", wanted["url"])
    code, reason = 1006, ""
    try:
        headers = {"Authorization": f"Bearer {wanted['auth']['token']}"}
        async with connect(url, additional_headers=headers, proxy=None) as upstream:
            try:
                while True:
                    await socket.send_text(
                        json.dumps({"type": "websocket", "message": await upstream.recv(decode=True)})
                    )
            except ConnectionClosed as closed:
                if closed.rcvd is not None:
                    code, reason = closed.rcvd.code, closed.rcvd.reason
    except (OSError, InvalidStatus):
        text = "Received error from provider websocket"
        await socket.send_text(json.dumps({"type": "websocket", "message": text, "error": text}))
    await socket.send_text(
        json.dumps({"type": "websocket", "message": "", "closed": True, "code": code, "reason": reason})
    )
