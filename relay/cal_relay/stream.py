"""The WebSocket: one subscription, then the log of that job until it ends. See `frames.py` for what is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.websockets import WebSocket, WebSocketDisconnect

from cal_crds.cluster import ClusterError
from cal_relay import frames
from cal_relay.frames import BadFrame, Subscription, read_subscription
from cal_relay.hub import Hub, Hubs, Last
from cal_relay.index import NodeRecord
from cal_relay.metrics import Metrics
from cal_relay.resolve import Resolver
from cal_relay.settings import Settings

_log = logging.getLogger(__name__)

# Close codes of RFC 6455.
_NORMAL, _POLICY, _INTERNAL, _LATER = 1000, 1008, 1011, 1013


class _Closing(Exception):
    """The connection ends with an error frame."""

    def __init__(self, result: str, message: str, code: int) -> None:
        super().__init__(message)
        self.result, self.message, self.code = result, message, code


@dataclass
class Streams:
    """Serves WebSockets, on any path."""

    settings: Settings
    resolver: Resolver
    hubs: Hubs
    metrics: Metrics
    clients: int = 0

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from handshake to close."""
        await socket.accept()
        self._count(+1)
        try:
            await self._talk(socket)
        except _Closing as closing:
            self.metrics.subscriptions.labels(closing.result).inc()
            await _close(socket, frames.error(closing.message), closing.code, closing.message)
        except WebSocketDisconnect:
            _log.debug("a client left")
        except Exception:  # noqa: BLE001
            # The boundary: a fault of ours must not look like a stream that just stops.
            _log.exception("a client could not be served")
            message = "internal fault of the relay"
            await _close(socket, frames.error(message), _INTERNAL, message)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.clients += change
        self.metrics.clients.set(self.clients)

    async def _talk(self, socket: WebSocket) -> None:
        if self.clients > self.settings.max_clients:
            raise _Closing("too-many", f"{self.settings.max_clients} clients are connected already; try later", _LATER)
        subscription = await self._subscription(socket)
        node = await self._resolve(subscription, socket.url.path)
        self.metrics.subscriptions.labels("accepted").inc()
        async with self.hubs.join(node) as hub:
            await _either(self._send(socket, hub, subscription.tail), _listen(socket, subscription))

    async def _subscription(self, socket: WebSocket) -> Subscription:
        try:
            async with asyncio.timeout(self.settings.subscribe_timeout):
                return read_subscription(await _receive(socket))
        except TimeoutError:
            seconds = f"{self.settings.subscribe_timeout:g}"
            raise _Closing("timeout", f"no subscription within {seconds} seconds", _POLICY) from None
        except BadFrame as error:
            raise _Closing("bad-frame", str(error), _POLICY) from error

    async def _resolve(self, subscription: Subscription, path: str) -> NodeRecord:
        try:
            node = await self.resolver.find(subscription.job_id, subscription.provider, path)
        except ClusterError as error:
            raise _Closing("unavailable", f"the API server can't be asked: {error.message}", _LATER) from error
        if node is None:
            where = f" of provider {subscription.provider!r}" if subscription.provider else ""
            raise _Closing("unknown", f"there is no job {subscription.job_id!r}{where}", _POLICY)
        return node

    async def _send(self, socket: WebSocket, hub: Hub, tail: int | None) -> None:
        """History, then line by line, then the last word."""
        await hub.primed.wait()
        with hub.reader(tail) as reader:
            while batch := await reader.read():
                if batch.lost:
                    self.metrics.lost.inc(batch.lost)
                    await socket.send_text(frames.notice(f"{batch.lost} lines are left out here: you read too slowly"))
                for frame in batch.frames:
                    await socket.send_text(frame)
                self.metrics.sent.inc(len(batch.frames))
        assert hub.last is not None, "a reader ends where the log ends"
        await _say_last(socket, hub.last)


async def _say_last(socket: WebSocket, last: Last) -> None:
    if last.failed:
        raise _Closing("failed", last.message, _INTERNAL)
    # As a log line as well: clients that know no other frame would show a stream that just stops.
    await socket.send_text(frames.notice(last.message))
    await _close(socket, last.frame, _NORMAL, last.message)


async def _close(socket: WebSocket, frame: str, code: int, reason: str) -> None:
    """The last frame and the closing handshake; the reason in it holds at most 123 bytes."""
    with suppress(WebSocketDisconnect):
        await socket.send_text(frame)
        await socket.close(code, reason.encode()[:123].decode(errors="ignore"))


async def _receive(socket: WebSocket) -> str | bytes:
    """The next message, text or binary; WebSocketDisconnect when the client has left."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    text: str | None = message.get("text")
    data: bytes | None = message.get("bytes")
    return text if text is not None else data or b""


async def _listen(socket: WebSocket, subscription: Subscription) -> NoReturn:
    """Notice that the client leaves. What else it sends is its own kind of keep-alive, but for another subscription."""
    while True:
        message = await _receive(socket)
        try:
            again = read_subscription(message)
        except BadFrame:
            continue
        if again != subscription:
            raise _Closing("second", "this connection has a subscription already; open another one", _POLICY)


async def _either(sending: Coroutine[Any, Any, None], listening: Coroutine[Any, Any, NoReturn]) -> None:
    """Run both until one is done, however it ends."""
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(sending), asyncio.create_task(listening)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
