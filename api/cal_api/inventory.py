"""Routes of the inventory: providers, offers, nodes and their heartbeats. None of them touches a provider."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response

from cal_api import bodies, providerviews, replies, requests
from cal_api.backend import backend
from cal_api.errors import NotFound
from cal_api.heartbeat import news, state_of
from cal_api.operation import DEPLOYMENT_PREFIXES, INVENTORY_PREFIXES, Operation, query_of, raw

_OK = b'{"status":"ok"}'


async def resources(request: Request) -> Response:
    asked, port = query_of(request, requests.ProviderQuery).provider, backend(request)
    port.require_sync()
    entries = [port.provider(asked)] if asked else port.store.providers_in_order()
    problems = (providerviews.problem(entry.object) for entry in entries)
    errors = b",".join([problem.model_dump_json().encode() for problem in problems if problem])
    offers = b",".join([part for entry in entries if (part := port.store.offers(entry))])
    echoed = b',"provider":%s' % json.dumps(asked).encode() if asked else b""
    return raw(b'{"resources":[%s],"errors":[%s]%s}' % (offers, errors, echoed))


async def providers(request: Request) -> Response:
    port = backend(request)
    port.require_sync()
    entries = port.store.providers_in_order()
    inside = b",".join([b'"%s":%s' % (entry.name.encode(), entry.rendered) for entry in entries])
    return raw(b'{"providers":{%s}}' % inside)


async def nodes(request: Request) -> Response:
    port = backend(request)
    port.require_sync()
    return raw(port.store.nodes.page("nodes", ("provider", request.path_params["provider"]), port.second()))


async def heartbeat(request: Request) -> Response:
    beat, port = await bodies.read(request, requests.Beat), backend(request)
    state = state_of(beat)
    port.require_sync()
    entry = port.store.node_of(beat.provider, beat.provider_instance_id)
    if entry is None and beat.old_provider_instance_id:
        entry = port.store.node_of(beat.provider, beat.old_provider_instance_id)
    if entry is None:
        raise NotFound("Node not found")
    # In turn: of two beats at once, the one that knows nothing of an end would undo it.
    async with port.turns.of(entry.uid):
        now = port.now()
        if changed := news(entry.object, beat, state, now):
            await port.writer.heartbeat(entry, changed)
    port.beats.record(entry.uid, now)
    port.store.nodes.refresh(entry)
    return raw(_OK)


OPERATIONS = (
    Operation(
        "POST",
        "/inventory/heartbeat",
        heartbeat,
        "Report a node's state",
        replies.Ok,
        {400: "A bad value.", 404: "No such node."},
        body=requests.Beat,
        prefixes=INVENTORY_PREFIXES,
    ),
    Operation(
        "GET",
        "/inventory/nodes/{provider:path}",
        nodes,
        "The nodes of a provider",
        replies.Nodes,
        prefixes=INVENTORY_PREFIXES,
    ),
    Operation(
        "GET",
        "/inventory/providers",
        providers,
        "The registered providers",
        replies.Providers,
        prefixes=INVENTORY_PREFIXES,
    ),
    Operation(
        "GET",
        "/provider/resources",
        resources,
        "What can be had",
        replies.Resources,
        {400: "No such provider."},
        query=requests.ProviderQuery,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
)
