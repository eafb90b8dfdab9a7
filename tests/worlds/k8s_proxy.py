"""A proxy before a real API server: it hands everything on as it is, and shows a fault where it was told to.

It speaks plain HTTP to the client (its token goes through) and asks the API server for short pages, so that few objects make many.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web

PAGE: Final = 2
_PASSED_ON: Final = ("Authorization", "Content-Type", "Accept")


@dataclass(frozen=True)
class Answer:
    """An answer in place of the API server's. `lost`: the API server carries the request out, then the connection is cut."""

    status: int = 200
    body: Any = None
    lost: bool = False


def refusal(code: int, reason: str, message: str, **details: Any) -> Answer:
    """A Status as the API server writes it."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return Answer(code, {**status, "message": message, "reason": reason, "details": details, "code": code})


class Proxy:
    """One fault at a time: the next request (or several) whose `METHOD path?query` matches."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.url = ""
        self._upstream, self._session = upstream, session
        self._pattern, self._answer, self._left = re.compile("$^"), Answer(), 0

    def fail(self, pattern: str, answer: Answer, times: int = 1) -> None:
        self._pattern, self._answer, self._left = re.compile(pattern), answer, times

    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = self._due(f"{request.method} {request.raw_path}")
        if answer is not None and not answer.lost:
            if isinstance(answer.body, str):
                return web.Response(status=answer.status, text=answer.body, content_type="text/html")
            return web.json_response(answer.body, status=answer.status)
        path = request.raw_path.replace("limit=500", f"limit={PAGE}")
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        body = await request.read()
        async with self._session.request(
            request.method, f"{self._upstream}{path}", headers=headers, data=body, allow_redirects=False
        ) as upstream:
            if answer is not None:
                await upstream.read()
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            return await _pass_on(request, upstream)

    def _due(self, line: str) -> Answer | None:
        if not self._left or not self._pattern.search(line):
            return None
        self._left -= 1
        return self._answer


async def _pass_on(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    content_type = upstream.headers.get("Content-Type", "application/json")
    response = web.StreamResponse(status=upstream.status, headers={"Content-Type": content_type})
    await response.prepare(request)
    async for chunk in upstream.content.iter_any():
        await response.write(chunk)
    return response


@asynccontextmanager
async def open_proxy(upstream: str, tls: ssl.SSLContext) -> AsyncIterator[Proxy]:
    """The proxy on a free port of 127.0.0.1, before the API server at `upstream`."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as session:
        proxy, app = Proxy(upstream, session), web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            await runner.cleanup()
