"""Routes of deployments."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from cal_api import bodies, deploying, repeats, replies, requests, views
from cal_api.backend import Backend, backend
from cal_api.creating import check_alone, create, keep_secrets, turn
from cal_api.errors import BadRequest
from cal_api.operation import DEPLOYMENT_PREFIXES, Operation, query_of, raw, rendered
from cal_api.starting import check_startable, restart_moment, usable_pool
from cal_api.store import ALL
from cal_api.table import Entry, Key
from cal_crds.deployment import TERMINAL_STATES, DeploymentDesiredState, ModelDeployment


async def deploy(request: Request) -> Response:
    asked, port = await bodies.read(request, requests.Deploy), backend(request)
    port.require_sync()
    external = deploying.is_external(asked)
    if not external and "pool_id" not in asked.model_fields_set:
        raise BadRequest("pool_id: is required, unless workload_type is external")
    pool = None if external else await usable_pool(port, asked.pool_id)
    key = repeats.key_of(request, pool.uid if pool else "external")
    plan = deploying.plan(asked, pool.object if pool else None, key)
    namespace = pool.namespace if pool else port.settings.namespace
    made = await create(port, namespace, plan)
    return _outcome(made.entry, dict(repeats.REPLAYED) if made.before else None)


async def get_status(request: Request) -> Response:
    port = backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    return raw(entry.at(port.second()))


async def list_by_pool(request: Request) -> Response:
    page, port = query_of(request, requests.WholeList), backend(request)
    port.require_sync()
    return _page(port, ("pool", request.path_params["pool_id"].lower()), page)


async def list_by_query(request: Request) -> Response:
    page, port = query_of(request, requests.PoolPage), backend(request)
    port.require_sync()
    return _page(port, ("pool", page.pool_id.lower()) if page.pool_id else ALL, page)


async def list_by_organization(request: Request) -> Response:
    page, port = query_of(request, requests.OrganizationPage), backend(request)
    port.require_sync()
    return _page(port, ("organization", page.org_id) if page.org_id else ALL, page)


async def terminate(request: Request) -> Response:
    entry, port = await _named_in_body(request), backend(request)
    async with turn(port, entry):
        ended = views.deployment_state(entry.object) in TERMINAL_STATES
        if ended or entry.object.spec.desired_state == DeploymentDesiredState.TERMINATED:
            return _outcome(entry)
        change = {"spec": {"desiredState": DeploymentDesiredState.TERMINATED.value}}
        changed = await port.writer.change(port.store.deployments, entry, change)
    return _outcome(changed.entry, changed.headers)


async def start(request: Request) -> Response:
    entry, port = await _named_in_body(request), backend(request)
    async with turn(port, entry):
        check_startable(port, entry)
        change = {
            "spec": {"desiredState": DeploymentDesiredState.RUNNING.value, "restartedAt": restart_moment(port, entry)}
        }
        changed = await port.writer.change(port.store.deployments, entry, change)
    return _outcome(changed.entry, changed.headers)


async def update(request: Request) -> Response:
    asked, port = await bodies.read(request, requests.UpdateDeployment), backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    async with turn(port, entry):
        change, draft = deploying.update(asked, entry.object)
        if not any(change.values()):
            return raw(entry.at(port.second()))
        if change["spec"] and views.tries_again(entry.object):
            check_alone(port, entry)
        if draft.secrets:
            await keep_secrets(port, entry, draft.secret_name, draft.secrets)
        changed = await port.writer.change(port.store.deployments, entry, change)
    return raw(changed.entry.at(port.second()), changed.headers)


async def delete(request: Request) -> Response:
    port = backend(request)
    entry = await port.deployment(request.path_params["deployment_id"])
    state = views.deployment_state(entry.object)
    if state not in TERMINAL_STATES:
        raise BadRequest(f"Deployment is {state}. Stop it first.")
    await port.writer.delete(port.store.deployments, entry)
    return rendered(replies.DeploymentOutcome(deployment_id=entry.uid, status="DELETED", state=state))


# --- steps -------------------------------------------------------------------------------------------------------------


async def _named_in_body(request: Request) -> Entry[ModelDeployment]:
    asked = await bodies.read(request, requests.DeploymentId)
    return await backend(request).deployment(asked.deployment_id)


def _outcome(entry: Entry[ModelDeployment], headers: dict[str, str] | None = None) -> Response:
    state = views.deployment_state(entry.object)
    return rendered(replies.DeploymentOutcome(deployment_id=entry.uid, status=state, state=state), headers)


def _page(port: Backend, key: Key, page: requests.WholeList | requests.Page) -> Response:
    return raw(port.store.deployments.page("deployments", key, port.second(), page.offset, page.limit))


_NONE = {404: "No such deployment."}
_OWNED = {409: "Another manager owns a field that this would change."}
_BAD_PAGE = {400: "A bad page."}

OPERATIONS = (
    Operation(
        "GET",
        "/status/{deployment_id}",
        get_status,
        "A deployment",
        replies.Deployment,
        _NONE,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "GET",
        "/listDeployments/{pool_id}",
        list_by_pool,
        "The deployments in a pool, newest first",
        replies.Deployments,
        _BAD_PAGE,
        query=requests.WholeList,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "GET",
        "/deployments",
        list_by_organization,
        "The deployments of an organization, or all",
        replies.Deployments,
        _BAD_PAGE,
        query=requests.OrganizationPage,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "GET",
        "/list",
        list_by_query,
        "The deployments in a pool, or all",
        replies.Deployments,
        _BAD_PAGE,
        query=requests.PoolPage,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/deploy",
        deploy,
        "Deploy a model",
        replies.DeploymentOutcome,
        {
            400: "A bad value.",
            404: "No such pool.",
            409: "The pool is going, or the organization has this model deployed.",
            422: "Another request was made under this Idempotency-Key.",
        },
        body=requests.Deploy,
        headers={repeats.HEADER: repeats.ABOUT},
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/terminate",
        terminate,
        "Terminate a deployment",
        replies.DeploymentOutcome,
        {400: "A bad value.", **_NONE, **_OWNED},
        body=requests.DeploymentId,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "POST",
        "/start",
        start,
        "Start a deployment that has ended",
        replies.DeploymentOutcome,
        {
            400: "A bad value.",
            **_NONE,
            409: "It or its pool is gone or going, the model is deployed again, or another manager owns a field.",
            422: "It hasn't ended.",
        },
        body=requests.DeploymentId,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "PATCH",
        "/update/{deployment_id}",
        update,
        "Change a deployment",
        replies.Deployment,
        {400: "A bad value.", **_NONE, 409: "The model is deployed again, or another manager owns a field."},
        body=requests.UpdateDeployment,
        prefixes=DEPLOYMENT_PREFIXES,
    ),
    Operation(
        "DELETE",
        "/delete/{deployment_id}",
        delete,
        "Forget a deployment that has ended",
        replies.DeploymentOutcome,
        {400: "It hasn't ended.", **_NONE},
        prefixes=DEPLOYMENT_PREFIXES,
    ),
)
