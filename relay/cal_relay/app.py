"""The relay as an ASGI application: routes, what they share, and how errors become answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from cal_crds.cluster import Cluster, ClusterError
from cal_relay.adapters import Adapters
from cal_relay.archives import Archives
from cal_relay.guard import Guard
from cal_relay.hub import Hubs
from cal_relay.index import NodeIndex
from cal_relay.metrics import Metrics
from cal_relay.overlap import HISTORY
from cal_relay.resolve import Resolver
from cal_relay.settings import Settings
from cal_relay.stream import Streams
from cal_relay.tail import Tails, Unreadable
from cal_relay.upstream import Upstreams

_PLAIN = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII)


class Relay:
    """What all requests share. The routes are its methods."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.metrics = Metrics()
        self.index = NodeIndex(cluster)
        self.adapters = Adapters(cluster, settings)
        archives = Archives(cluster)
        self.tails = Tails(self.index, self.adapters, archives)
        upstreams = Upstreams(self.index, self.adapters.lend, archives, self.metrics)
        hubs = Hubs(upstreams.pump, self.metrics)
        self.streams = Streams(settings, Resolver(cluster, self.index, archives), hubs, self.metrics)

    async def tail(self, request: Request) -> Response:
        """The last lines of a deployment: {"lines": [...], "provider": "..." or null}."""
        self._must_be_ready()
        namespace, uid = _name(request, "namespace"), _name(request, "deployment")
        tail = await self.tails.of_deployment(namespace, uid, _count(request))
        return JSONResponse({"lines": tail.lines, "provider": tail.provider})

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        self._must_be_ready()
        return PlainTextResponse("ok\n")

    async def metrics_text(self, request: Request) -> Response:
        self.metrics.nodes.set(len(self.index))
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _must_be_ready(self) -> None:
        if self.index.fault:
            raise HTTPException(503, f"the nodes aren't known just now: {self.index.fault}", {"Retry-After": "1"})

    def routes(self) -> list[Route | WebSocketRoute]:
        return [
            Route("/tail/{namespace}/{deployment}", self.tail),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics_text),
            WebSocketRoute("/{path:path}", self.streams.serve),
        ]

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(self.index.run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await self.adapters.close()


def create_app(cluster: Cluster, settings: Settings) -> Starlette:
    """A fresh application; `cluster` stays the caller's to close."""
    relay = Relay(cluster, settings)
    return Starlette(
        routes=relay.routes(),
        lifespan=relay.lifespan,
        middleware=[Middleware(Guard)],
        exception_handlers={HTTPException: _refused, ClusterError: _unavailable, Unreadable: _unreadable},
    )


def _name(request: Request, part: str) -> str:
    """A namespace or uid out of the path. It goes into the path and the selector of another request, so it has to be a plain one."""
    value: str = request.path_params[part]
    if not _PLAIN.fullmatch(value):
        raise HTTPException(400, f"{part}: {value[:50]!r} isn't a name of at most 63 letters, digits and dashes")
    return value


def _count(request: Request) -> int:
    text = request.query_params.get("tail", "100")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= HISTORY):
        raise HTTPException(400, f"tail: {text[:50]!r} isn't a whole number from 1 to {HISTORY}")
    return int(text)


def _detail(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"detail": detail}, status, headers)


async def _refused(request: Request, error: Any) -> Response:
    return _detail(error.status_code, error.detail, error.headers)


async def _unavailable(request: Request, error: Any) -> Response:
    return _detail(503, f"the API server can't be asked: {error.message}", {"Retry-After": "1"})


async def _unreadable(request: Request, error: Any) -> Response:
    return _detail(502, str(error))
