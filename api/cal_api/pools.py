"""Routes of compute pools."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cal_api import bodies, replies, requests, views
from cal_api.backend import backend
from cal_api.errors import Conflict
from cal_api.operation import DEPLOYMENT_PREFIXES, Operation, query_of, raw, rendered
from cal_api.pooling import check_provider, kept_json, owner_of, pool_body
from cal_api.redact import redacted
from cal_api.store import ALL
from cal_api.table import Entry
from cal_api.writer import Exists, warning_headers
from cal_crds.meta import ANNOTATION_REST
from cal_crds.pool import ComputePool, PoolDesiredState, PoolState


async def create_pool(request: Request) -> Response:
    asked, port = await bodies.read(request, requests.CreatePool), backend(request)
    port.require_sync()
    check_provider(asked, port.provider(asked.provider).object)
    try:
        entry = await port.writer.create(
            port.store.pools,
            port.settings.namespace,
            pool_body(asked, owner_of(asked, request.headers.get("x-organization-id", ""))),
        )
    except Exists as error:
        raise Conflict(f"Pool '{asked.pool_name}' already exists for this owner") from error
    return rendered(replies.PoolOutcome(pool_id=entry.uid, status="CREATED"))


async def list_pools(request: Request) -> Response:
    page, port = query_of(request, requests.Page), backend(request)
    port.require_sync()
    key = "owner", request.path_params["owner_id"]
    return raw(port.store.pools.page("pools", key, port.second(), page.offset, page.limit))


async def all_pools(request: Request) -> Response:
    page, port = query_of(request, requests.Page), backend(request)
    port.require_sync()
    return raw(port.store.pools.page("pools", ALL, port.second(), page.offset, page.limit))


async def get_pool(request: Request) -> Response:
    return raw((await _pool(request)).at(backend(request).second()))


async def inventory(request: Request) -> Response:
    entry, port = await _pool(request), backend(request)
    second = port.second()
    nodes = b",".join([node.at(second) for node in port.store.nodes.listing(("pool", entry.uid))])
    return raw(b'{"pool_id":"%s","nodes":[%s]}' % (entry.uid.encode(), nodes))


async def update_pool(request: Request) -> Response:
    asked, entry = await bodies.read(request, requests.UpdatePool), await _pool(request)
    port = backend(request)
    if asked.metadata is None:
        return raw(entry.at(port.second()))
    async with port.turns.of(entry.uid):
        rest = {**views.kept(entry.object.metadata.annotations), "metadata": redacted(asked.metadata)}
        change = {"metadata": {"annotations": {ANNOTATION_REST: kept_json("metadata", rest)}}}
        changed = await port.writer.change(port.store.pools, entry, change)
    return raw(changed.entry.at(port.second()), changed.headers)


async def stop_pool(request: Request) -> Response:
    entry, port = await _pool(request), backend(request)
    headers: dict[str, str] = {}
    async with port.turns.of(entry.uid):
        if views.pool_state(entry.object) == PoolState.ACTIVE:
            change = {"spec": {"desiredState": PoolDesiredState.STOPPED.value}}
            changed = await port.writer.change(port.store.pools, entry, change)
            entry, headers = changed.entry, changed.headers
    return rendered(replies.PoolOutcome(pool_id=entry.uid, status=views.pool_state(entry.object)), headers)


async def delete_pool(request: Request) -> Response:
    return await _deleted(request, PoolState.TERMINATING, 202)


async def delete_pool_by_post(request: Request) -> Response:
    return await _deleted(request, "DELETED", 200)


async def _deleted(request: Request, word: str, status: int) -> Response:
    """The pool stays readable, as TERMINATING, until its nodes are proven gone: the operator holds its finalizer."""
    entry, port = await _pool(request), backend(request)
    if not entry.object.metadata.deletion_timestamp:
        await port.writer.delete(port.store.pools, entry)
    return rendered(replies.PoolOutcome(pool_id=entry.uid, status=word), warning_headers(entry.managed_by), status)


async def _pool(request: Request) -> Entry[ComputePool]:
    return await backend(request).pool(request.path_params["pool_id"])


_NO_POOL = {404: "No such pool."}
_OWNED = {409: "Another manager owns a field that this would change."}

OPERATIONS = (
    Operation(
        "GET",
        "/listPools/{owner_id:path}",
        list_pools,
        "The pools of an owner",
        replies.Pools,
        {400: "A bad page."},
        query=requests.Page,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation("GET", "/pool/{pool_id}", get_pool, "A pool", replies.Pool, _NO_POOL, prefixes=DEPLOYMENT_PREFIXES),
    Operation(
        "GET",
        "/pools",
        all_pools,
        "The pools of everybody",
        replies.Pools,
        {400: "A bad page."},
        query=requests.Page,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "GET",
        "/list/pool/{pool_id}/inventory",
        inventory,
        "The nodes of a pool",
        replies.Inventory,
        _NO_POOL,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/createpool",
        create_pool,
        "Create a pool",
        replies.PoolOutcome,
        {
            400: "A bad value, or no such provider.",
            409: "The owner has a pool of that name.",
            412: "No such credential.",
        },
        body=requests.CreatePool,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "PATCH",
        "/updatepool/{pool_id}",
        update_pool,
        "Replace or read a pool's metadata",
        replies.Pool,
        {400: "A bad value.", **_NO_POOL, **_OWNED},
        body=requests.UpdatePool,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/stoppool/{pool_id}",
        stop_pool,
        "End a pool's nodes; the pool stays",
        replies.PoolOutcome,
        {**_NO_POOL, **_OWNED},
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/deletepool/{pool_id}",
        delete_pool_by_post,
        "Delete a pool",
        replies.PoolOutcome,
        _NO_POOL,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "DELETE",
        "/pool/{pool_id}",
        delete_pool,
        "Delete a pool",
        replies.PoolOutcome,
        _NO_POOL,
        success=202,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
)
