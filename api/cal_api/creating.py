"""Creating a deployment: its name, on which the rule of one per organization rests, and the Secret beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from cal_api import repeats, secret, views
from cal_api.backend import Backend
from cal_api.deploying import Plan
from cal_api.errors import Conflict
from cal_api.table import Entry
from cal_api.writer import Exists
from cal_crds.cluster import AlreadyExists, ClusterError
from cal_crds.deployment import TERMINAL_STATES, ModelDeployment
from cal_crds.meta import DEPLOYMENT, LABEL_MODEL, LABEL_ORGANIZATION, LABEL_OWNER
from cal_crds.names import (
    free_deployment_name,
    label_hash,
    organization_deployment_name,
    requested_deployment_name,
)


@dataclass(frozen=True)
class Made:
    """A deployment, and whether an earlier request of the same key made it."""

    entry: Entry[ModelDeployment]
    before: bool = False


async def create(port: Backend, namespace: str, plan: Plan) -> Made:
    """A deployment with its Secret, once per key; Conflict if the organization has that model deployed."""
    async with port.turns.of("request", plan.request) if plan.request else nullcontext():
        if (before := await _made_before(port, plan)) is not None:
            return before
        try:
            async with _turn_of_model(port, plan.organization, plan.model):
                return Made(await _create(port, namespace, plan))
        except Conflict:
            # Another process of this api may have served the same key meanwhile.
            if (before := await _made_before(port, plan)) is not None:
                return before
            raise


async def _made_before(port: Backend, plan: Plan) -> Made | None:
    entry = await repeats.made_before(port, plan.request, plan.body["spec"]) if plan.request else None
    if entry is None:
        return None
    if plan.secrets:
        # The first try may have ended between the two writes. A Secret is immutable: one that is there stays.
        with suppress(AlreadyExists):
            await keep_secrets(port, entry, plan.secret_name, plan.secrets)
    return Made(entry, before=True)


@asynccontextmanager
async def turn(port: Backend, entry: Entry[ModelDeployment]) -> AsyncIterator[None]:
    """Meanwhile no other request to this process changes the deployment, or brings another one of its organization's model to life."""
    async with _turn_of_model(port, *_deployed(entry.object)), port.turns.of(entry.uid):
        yield


def _turn_of_model(port: Backend, organization: str | None, model: str) -> AbstractAsyncContextManager[None]:
    """Only one living deployment of a model may be in an organization; without one there is nothing to wait for."""
    return port.turns.of("organization", organization, model) if organization else nullcontext()


def _deployed(deployment: ModelDeployment) -> tuple[str | None, str]:
    owner = deployment.spec.owner
    return owner.organization if owner else None, deployment.spec.model.name


async def _create(port: Backend, namespace: str, plan: Plan) -> Entry[ModelDeployment]:
    name = await _name(port, plan)
    body = {**plan.body, "metadata": {**plan.body["metadata"], "name": name}}
    try:
        entry = await port.writer.create(port.store.deployments, namespace, body, unique=not plan.organization)
    except Exists as error:
        raise taken(plan.model, plan.organization) from error
    if plan.secrets:
        # After the deployment, so that it can be its owner; until then its node waits for the Secret.
        try:
            await keep_secrets(port, entry, plan.secret_name, plan.secrets)
        except ClusterError:
            with suppress(ClusterError):
                await port.writer.delete(port.store.deployments, entry)
            raise
    return entry


def check_alone(port: Backend, entry: Entry[ModelDeployment]) -> None:
    """Conflict if the organization has another living deployment of the model: starting this one would make two."""
    _check_none_lives(port, *_deployed(entry.object), besides=entry.uid)


def _check_none_lives(port: Backend, organization: str | None, model: str, besides: str = "") -> None:
    for other in port.store.deployments.listing(("organization", organization)) if organization else ():
        same = other.uid != besides and other.object.spec.model.name == model
        if same and views.deployment_state(other.object) not in TERMINAL_STATES:
            raise taken(model, organization)


async def keep_secrets(port: Backend, entry: Entry[ModelDeployment], name: str, values: Mapping[str, str]) -> None:
    """The Secret of a deployment, labelled so that its workloads may use it."""
    pool = port.store.pool_of(entry.object)
    owner = entry.object.metadata.labels.get(LABEL_OWNER) or label_hash(pool.object.spec.owner.id if pool else "")
    await port.writer.create_secret(entry.namespace, secret.build(name, entry.name, entry.uid, owner, values))


async def _name(port: Backend, plan: Plan) -> str:
    """A free name; in an organization, the one name that only one living deployment of the model can have."""
    if not plan.organization:
        return requested_deployment_name(plan.model, plan.request) if plan.request else free_deployment_name(plan.model)
    _check_none_lives(port, plan.organization, plan.model)  # one that came by kubectl has another name
    selector = f"{LABEL_ORGANIZATION}={label_hash(plan.organization)},{LABEL_MODEL}={label_hash(plan.model)}"
    listing = await port.cluster.list(DEPLOYMENT.path(), labelSelector=selector)
    latest = max((_numbered(item, plan) for item in listing["items"]), key=lambda found: found[0], default=(0, None))
    if latest[1] is not None and views.deployment_state(latest[1]) not in TERMINAL_STATES:
        raise taken(plan.model, plan.organization)
    return organization_deployment_name(plan.organization, plan.model, latest[0] + 1)


def _numbered(body: dict[str, Any], plan: Plan) -> tuple[int, ModelDeployment | None]:
    """The n of a deployment of that model; (0, None) for a name that is not of that form."""
    stem = organization_deployment_name(plan.organization or "", plan.model, 0)[:-1]
    number = body["metadata"]["name"].removeprefix(stem)
    return (int(number), ModelDeployment.parse(body)) if number.isdecimal() else (0, None)


def taken(model: str, organization: str | None) -> Conflict:
    return Conflict(f"Model '{model}' is already deployed in organization '{organization}'; terminate it first")
