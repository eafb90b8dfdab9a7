"""Routes of compute pools."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cal_api import bodies, replies, requests, views
from cal_api.backend import backend
from cal_api.errors import BadRequest, Conflict, PreconditionFailed, bad
from cal_api.operation import DEPLOYMENT_PREFIXES, Operation, query_of, raw, rendered
from cal_api.providerviews import capabilities_of
from cal_api.redact import compact, redacted
from cal_api.store import ALL
from cal_api.table import Entry
from cal_api.values import strategy_of
from cal_api.writer import Exists, warning_headers
from cal_crds.meta import ANNOTATION_REST, FINALIZER, LABEL_MANAGED_BY, LABEL_OWNER, MANAGER_API
from cal_crds.names import label_hash, pool_name
from cal_crds.pool import ComputePool, OwnerType, PoolDesiredState, PoolState, Tenancy
from cal_crds.provider import ComputeProvider

ANNOTATION_MOST = 64 * 1024


async def create_pool(request: Request) -> Response:
    asked, port = await bodies.read(request, requests.CreatePool), backend(request)
    port.require_sync()
    _check_provider(asked, port.provider(asked.provider).object)
    try:
        entry = await port.writer.create(
            port.store.pools, port.settings.namespace, pool_body(asked, _owner(request, asked))
        )
    except Exists as error:
        raise Conflict(f"Pool '{asked.pool_name}' already exists for this owner") from error
    return rendered(replies.PoolOutcome(pool_id=entry.uid, status="CREATED"))


async def list_pools(request: Request) -> Response:
    page, port = query_of(request, requests.Page), backend(request)
    port.require_sync()
    key = "owner", request.path_params["owner_id"]
    return raw(port.store.pools.page("pools", key, page.offset, page.limit))


async def all_pools(request: Request) -> Response:
    page, port = query_of(request, requests.Page), backend(request)
    port.require_sync()
    return raw(port.store.pools.page("pools", ALL, page.offset, page.limit))


async def get_pool(request: Request) -> Response:
    return raw((await _pool(request)).rendered)


async def inventory(request: Request) -> Response:
    entry = await _pool(request)
    nodes = b",".join([node.rendered for node in backend(request).store.nodes.listing(("pool", entry.uid))])
    return raw(b'{"pool_id":"%s","nodes":[%s]}' % (entry.uid.encode(), nodes))


async def update_pool(request: Request) -> Response:
    asked, entry = await bodies.read(request, requests.UpdatePool), await _pool(request)
    if asked.metadata is None:
        return raw(entry.rendered)
    rest = {**views.kept(entry.object.metadata.annotations), "metadata": redacted(asked.metadata)}
    change = {"metadata": {"annotations": {ANNOTATION_REST: kept_json("metadata", rest)}}}
    port = backend(request)
    changed = await port.writer.change(port.store.pools, entry, change)
    return raw(changed.entry.rendered, changed.headers)


async def stop_pool(request: Request) -> Response:
    entry, port = await _pool(request), backend(request)
    headers: dict[str, str] = {}
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


# --- request -> resource -----------------------------------------------------------------------------------------------


def pool_body(asked: requests.CreatePool, owner: tuple[OwnerType, str]) -> dict[str, Any]:
    """The ComputePool that a request asks for, with the fields that it said and no others."""
    rest = {name: value for name, value in _rest(asked).items() if value}
    annotations = {ANNOTATION_REST: kept_json("metadata", rest)} if rest else {}
    spec = {
        "displayName": asked.pool_name,
        "owner": {"type": owner[0].value, "id": owner[1]},
        "providerRef": {"name": asked.provider, "credential": asked.provider_credential_name or None},
        "providerPoolID": asked.provider_pool_id or None,
        "allowedGPUTypes": asked.allowed_gpu_types or None,
        "regions": asked.region_constraint or None,
        "gpuCount": asked.gpu_count,
        "maxCostPerHour": asked.max_cost_per_hour,
        "tenancy": (Tenancy.DEDICATED if asked.is_dedicated else Tenancy.SHARED).value,
        "placement": {"strategy": strategy_of(asked.scheduling_policy_json).value},
    }
    return {
        "metadata": {
            "name": pool_name(owner[0].value, owner[1], asked.pool_name),
            "labels": {LABEL_OWNER: label_hash(owner[1]), LABEL_MANAGED_BY: MANAGER_API},
            "annotations": annotations,
            # From the start: deleted before the operator saw it, it must still end its deployments first.
            "finalizers": [FINALIZER],
        },
        "spec": said(spec),
    }


def said(fields: Any) -> Any:
    """The same without what is None: a field that nobody gave is nobody's."""
    if isinstance(fields, dict):
        return {name: said(value) for name, value in fields.items() if value is not None}
    return fields


def kept_json(field: str, rest: dict[str, Any]) -> str:
    """What no field holds, as the annotation keeps it."""
    text = compact(rest)
    if len(text) > ANNOTATION_MOST:
        raise BadRequest(f"{field}: {len(text)} bytes of JSON are too many to keep; at most {ANNOTATION_MOST}")
    return text


def _rest(asked: requests.CreatePool) -> dict[str, Any]:
    policy = asked.scheduling_policy_json.strip()
    return {"metadata": redacted(asked.metadata), "scheduling_policy_json": policy}


def _owner(request: Request, asked: requests.CreatePool) -> tuple[OwnerType, str]:
    """The owner that is meant: a gateway names the organization that a user acts for in a header."""
    organization = request.headers.get("x-organization-id", "")
    if organization and asked.owner_type == OwnerType.USER:
        if len(organization) > 256 or not organization.isprintable():
            raise bad("X-Organization-ID", organization, "must be at most 256 printable characters")
        return OwnerType.ORGANIZATION, organization
    return OwnerType(asked.owner_type), asked.owner_id


def _check_provider(asked: requests.CreatePool, provider: ComputeProvider) -> None:
    stated = capabilities_of(provider)
    pattern, given = stated.provider_pool_id_pattern, asked.provider_pool_id
    if given and pattern and not re.fullmatch(pattern, given):
        raise bad("provider_pool_id", given, stated.provider_pool_id_hint or f"must match {pattern}")
    credentials = [credential.name for credential in provider.spec.credentials]
    named = asked.provider_credential_name
    if named and named not in credentials:
        raise PreconditionFailed(f"provider_credential_name: {named!a} is not known; the provider has {credentials}")


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
