"""Routes about the service itself: health, readiness, metrics, the OpenAPI document and a page to read it offline."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cal_api import docspage, openapi
from cal_api.backend import backend
from cal_api.metrics import Metrics
from cal_api.operation import Operation, raw
from cal_api.redact import compact

_OK = b'{"status":"ok"}'


async def health(request: Request) -> Response:
    return raw(_OK)


async def ready(request: Request) -> Response:
    backend(request).require_sync()
    return raw(_OK)


def routes(operations: Sequence[Operation], metrics: Metrics, version: str) -> list[Route]:
    """The routes that stand in no document."""
    document = openapi.document(operations, version)
    as_json, as_page = compact(document).encode(), docspage.page(document)

    async def openapi_json(request: Request) -> Response:
        return raw(as_json)

    async def docs(request: Request) -> Response:
        return HTMLResponse(as_page)

    async def metrics_text(request: Request) -> Response:
        port = backend(request)
        for watch, table in zip(port.watches, port.store.tables, strict=True):
            metrics.objects.labels(table.kind.name).set(len(table))
            metrics.connected.labels(table.kind.name).set(watch.connected)
            metrics.lists.labels(table.kind.name).set(watch.lists)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    handlers = {
        "/health": health,
        "/healthz": health,
        "/readyz": ready,
        "/metrics": metrics_text,
        "/openapi.json": openapi_json,
        "/docs": docs,
    }
    return [Route(path, handler) for path, handler in handlers.items()]
