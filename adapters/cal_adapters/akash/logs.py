"""Logs of a lease: kept by its provider, read over a WebSocket.

A provider's gateway has a self-signed certificate that only the chain knows. The Console's provider proxy checks it there, as it does for
the Console itself; our own connection to the proxy is ordinary verified TLS. This also keeps us from connecting to whatever address a
provider registers as its own. The token opens the logs of one provider, for a minute.
Proxy: apps/provider-proxy of github.com/akash-network/console; gateway frames: {"name": "<pod>", "message": "<line>"}.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from cal_adapters.akash.client import DEFAULT_ENDPOINT
from cal_adapters.akash.outcome import quoted
from cal_adapters.akash.wire import LeaseId
from cal_adapters.errors import CredentialsRefused, NotSent, OutcomeUnknown, Refused
from cal_crds.provider import ProviderSpec

DEFAULT_PROXY: Final = "https://console-provider-proxy.akash.network"
TOKEN_SECONDS: Final = 60
#: Between the end of a stream whose lease goes on and opening it again.
AGAIN_SECONDS: Final = 2.0
#: A tail is whole when the gateway says so, or has said nothing for so long.
_QUIET_SECONDS: Final = 5.0
_MAX_FRAME: Final = 2**20


@dataclass(frozen=True)
class Source:
    """Where the logs of one lease are read, and with which token."""

    proxy: str
    gateway: str
    lease: LeaseId
    token: str = field(repr=False)

    def subscription(self, follow: bool, tail: int) -> str:
        """The first frame: what the proxy shall connect to."""
        lease = self.lease
        url = f"{self.gateway.rstrip('/')}/lease/{lease.dseq}/{lease.gseq}/{lease.oseq}/logs?follow={str(follow).lower()}&tail={tail}"
        auth = {"type": "jwt", "token": self.token}
        return json.dumps({"type": "websocket", "url": url, "auth": auth, "providerAddress": lease.provider})


def proxy_url(settings: ProviderSpec) -> str:
    """The proxy's WebSocket address. Refused if another Console than the public one is used and none is configured."""
    configured = settings.akash.provider_proxy if settings.akash else None
    if configured is None and (settings.endpoint or DEFAULT_ENDPOINT).rstrip("/") != DEFAULT_ENDPOINT:
        raise Refused("Logs need akash.providerProxy: the provider proxy that belongs to this endpoint")
    try:
        parts = urlsplit(configured or DEFAULT_PROXY)
    except ValueError as error:
        raise Refused(f"akash.providerProxy is no address: {error}") from error
    return parts._replace(scheme="wss" if parts.scheme == "https" else "ws").geturl()


async def tail(source: Source, lines: int) -> Sequence[str]:
    """The last lines, oldest first."""
    kept: deque[str] = deque(maxlen=lines)
    async for line in _stream(source, follow=False, lines=lines, quiet=_QUIET_SECONDS):
        kept.append(line)
    return list(kept)


def follow(source: Source, lines: int) -> AsyncGenerator[str, None]:
    """The last lines, then each further one, until the provider ends the stream."""
    return _stream(source, follow=True, lines=lines, quiet=None)


async def _stream(source: Source, *, follow: bool, lines: int, quiet: float | None) -> AsyncGenerator[str, None]:
    try:
        # No proxies out of the environment; the library's own pings notice a dead connection.
        async with connect(
            source.proxy, proxy=None, max_size=_MAX_FRAME, open_timeout=10, close_timeout=2
        ) as connection:
            await connection.send(source.subscription(follow, lines))
            async for line in _lines(connection, quiet):
                yield line
    except (OSError, InvalidURI, InvalidHandshake, TimeoutError) as error:
        raise NotSent(f"Akash's provider proxy can't be reached for logs ({quoted(type(error).__name__)})") from error


async def _lines(connection: ClientConnection, quiet: float | None) -> AsyncIterator[str]:
    while True:
        try:
            frame = json.loads(await asyncio.wait_for(connection.recv(), quiet))
        except TimeoutError:
            return  # only a tail waits with a limit: the gateway has said all that it has
        except (ConnectionClosed, ValueError) as error:
            raise OutcomeUnknown(f"Akash's provider proxy broke the log stream off ({type(error).__name__})") from error
        if not isinstance(frame, dict):
            continue
        if frame.get("error"):
            raise _failure(frame)
        if frame.get("closed"):
            _check_end(frame)
            return
        if (line := _line(frame.get("message"))) is not None:
            yield line


def _failure(frame: dict[str, Any]) -> Exception:
    said = quoted(str(frame.get("error")))
    if said == "tokenExpired":
        return CredentialsRefused("Akash's provider proxy says that the token for the logs has expired")
    return OutcomeUnknown(f"Akash's provider proxy can't give the logs: {said}")


def _check_end(frame: dict[str, Any]) -> None:
    """An end that isn't a plain one is said. 4000 is also how a gateway says that no container runs (any more)."""
    code = frame.get("code")
    if code not in (None, 1000, 1001, 1005, 4000):
        raise OutcomeUnknown(
            f"Akash's provider ended the log stream with {code}: {quoted(_text(frame.get('reason')) or '')}"
        )


def _line(message: Any) -> str | None:
    """The line in a frame of the gateway's; None for what holds none."""
    text = _text(message)
    if not text:
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return None
    line = said.get("message") if isinstance(said, dict) else None
    return line.rstrip("\r\n") if isinstance(line, str) else None


def _text(value: Any) -> str | None:
    """A text frame, which some proxies pass on as the bytes that they got: {"type": "Buffer", "data": [...]}."""
    if isinstance(value, dict) and value.get("type") == "Buffer" and isinstance(value.get("data"), list):
        try:
            return bytes(value["data"]).decode(errors="replace")
        except (ValueError, TypeError):
            return None
    return value if isinstance(value, str) else None
