"""Routes of logs: the last lines, fetched from the relay, and where to stream them from."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from cal_api import replies, requests, views
from cal_api.backend import Backend, backend
from cal_api.errors import LogsFailed
from cal_api.operation import DEPLOYMENT_PREFIXES, Operation, query_of, rendered
from cal_api.providerviews import capabilities_of
from cal_api.table import Entry
from cal_crds.deployment import TERMINAL_STATES, ModelDeployment
from cal_crds.node import ComputeNode
from cal_crds.provider import Support

_WAITING = "Waiting for node provisioning..."
_EXTERNAL = "external"
_ENDED = "It has ended; its last lines are at /logs/{}"


async def logs(request: Request) -> Response:
    tail, port = query_of(request, requests.TailQuery).tail, backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    provider = _provider(port, entry.object)
    if entry.object.spec.external:
        return rendered(replies.Lines(logs=[], provider=provider))
    if not _ever_had_an_instance(port, entry):
        return rendered(replies.Lines(logs=[_WAITING], provider=provider))
    lines, told = await _tail(port, entry, tail)
    return rendered(replies.Lines(logs=lines, provider=told or provider))


async def stream(request: Request) -> Response:
    port = backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    provider = _provider(port, entry.object)
    if not _streams(port, provider):
        message = f"Log streaming not yet implemented for {provider}"
        return rendered(replies.Stream(ws_url=None, provider=provider, supported=False, message=message))
    node = _node(port, entry)
    instance = node.status.instance if node else None
    relative = request.headers.get("x-gateway-request", "").lower() == "true"
    base = "" if relative else port.settings.public_relay_url.rstrip("/")
    return rendered(
        replies.Stream(
            ws_url=f"{base}/{provider}",
            provider=provider,
            subscription=replies.Subscription(
                jobId=instance.id if instance else "",
                nodeAddress=(instance.node_address if instance else None) or "",
                provider=provider,
            ),
            supported=True,
            message=None if instance else _ENDED.format(entry.uid) if _ended(entry) else _WAITING,
        )
    )


async def _tail(port: Backend, entry: Entry[ModelDeployment], tail: int) -> tuple[list[str], str | None]:
    """The last lines from the relay. LogsFailed, as documented, if it can't be asked or can't tell."""
    url = f"{port.settings.relay_url.rstrip('/')}/tail/{entry.namespace}/{entry.uid}"
    try:
        answer = await port.relay.get(url, params={"tail": tail})
        body: Any = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise LogsFailed("Failed to fetch logs: the log relay can't be asked just now") from error
    if answer.status_code != 200:
        detail = body.get("detail") if isinstance(body, dict) else None
        raise LogsFailed(f"Failed to fetch logs: {detail or f'the log relay answered {answer.status_code}'}")
    return [str(line) for line in body["lines"]], body.get("provider")


def _provider(port: Backend, deployment: ModelDeployment) -> str:
    if deployment.spec.external:
        return _EXTERNAL
    pool = port.store.pool_of(deployment)
    if pool is not None:
        return pool.object.spec.provider_ref.name
    nodes = port.store.nodes.listing(("deployment", deployment.metadata.uid))
    return nodes[0].object.spec.provider_ref.name if nodes else "unknown"


def _streams(port: Backend, provider: str) -> bool:
    known = port.store.provider(provider)
    return known is not None and Support.LOG_STREAMING in capabilities_of(known.object).supports


def _ended(entry: Entry[ModelDeployment]) -> bool:
    return views.deployment_state(entry.object) in TERMINAL_STATES


def _ever_had_an_instance(port: Backend, entry: Entry[ModelDeployment]) -> bool:
    """Whether there can be lines: of an instance that runs, or of one that ended and whose last lines were kept."""
    nodes = port.store.nodes.listing(("deployment", entry.uid))
    return entry.object.status.last_start_time is not None or any(node.object.status.instance for node in nodes)


def _node(port: Backend, entry: Entry[ModelDeployment]) -> ComputeNode | None:
    """The node to stream from: the youngest that has an instance."""
    nodes = port.store.nodes.listing(("deployment", entry.uid))
    return next((node.object for node in nodes if node.object.status.instance), None)


_NONE = {404: "No such deployment."}

OPERATIONS = (
    Operation(
        "GET",
        "/logs/{deployment_id}",
        logs,
        "The last log lines of a deployment",
        replies.Lines,
        {400: "A bad tail.", **_NONE, 500: "The logs could not be fetched."},
        query=requests.TailQuery,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "GET",
        "/logs/{deployment_id}/stream",
        stream,
        "Where to stream a deployment's logs from",
        replies.Stream,
        _NONE,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
)
