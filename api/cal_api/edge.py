"""The door: every request passes here before any route. Request ids, the open mode's protection, and the counting.

Without keys, whoever reaches the port may command it. So only this machine's own programs may: Host must be a loopback name (else a web
page could come in by DNS rebinding) and a browser's Origin too, bodies must be declared as JSON (which no form can do), and no CORS
header is ever sent.
"""

from __future__ import annotations

import re
import secrets
import time
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cal_api import errors
from cal_api.metrics import Metrics
from cal_crds.loopback import leads_here

_PLAIN_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Edge:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        host = origin = request_id = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"x-request-id":
                request_id = value
        if not _PLAIN_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8).encode()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        fault = _fault(host, origin)
        try:
            if fault is None:
                await self._app(scope, receive, answer)
            else:
                await errors.response(403, fault)(scope, receive, answer)
        finally:
            self._metrics.observe(scope, status, time.perf_counter() - began)


@lru_cache(maxsize=256)
def _fault(host: bytes, origin: bytes) -> str | None:
    """Why such a request is refused; None if it isn't."""
    if not leads_here("//" + host.decode("latin-1")):
        return f"Host {errors.shown(host.decode('latin-1'))} is refused: only loopback names are served"
    if origin and not leads_here(origin.decode("latin-1")):
        return f"Origin {errors.shown(origin.decode('latin-1'))} is refused: only pages of this machine may ask"
    return None
