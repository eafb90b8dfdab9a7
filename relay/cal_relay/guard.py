"""The protection of the open mode: without keys, only this machine's own programs may ask, never a web page from elsewhere.

A browser lets any page open WebSockets and send simple requests to a loopback address, but it names the page in `Origin`, and under DNS
rebinding the foreign name in `Host`. Both are checked before anything else looks at a request.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cal_crds.loopback import leads_here


class Guard:
    """ASGI middleware: 403 with `detail` for a foreign Host or Origin, for requests and WebSockets alike."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None if scope["type"] == "lifespan" else _fault(Headers(scope=scope))
        if fault is None:
            await self._app(scope, receive, send)
            return
        # Starlette turns the response into a refused handshake where the scope is a WebSocket.
        await JSONResponse({"detail": fault}, 403)(scope, receive, send)


def _fault(headers: Headers) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not leads_here(f"//{host}"):
        return f"Host {host!r} is refused: only loopback names are served"
    if origin is not None and not leads_here(origin):
        return f"Origin {origin!r} is refused: only pages of this machine may connect"
    return None
