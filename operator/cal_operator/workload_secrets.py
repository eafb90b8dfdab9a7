"""Secrets of a workload: those that it refers to and the key of its model, looked up at the launch, handed to the adapter, kept nowhere.

A Secret may be used only if it is meant for workloads: it carries the owner label. For deployments made through the api the label must
name their very owner; elsewhere its presence counts (`kubectl label secret NAME calayer.dev/owner-hash=any`). Else whoever may create a
ModelDeployment could read every Secret of the namespace through the operator.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cal_adapters.contract import EnvValue, RegistryLogin
from cal_crds.cluster import Forbidden, NotFound
from cal_crds.deployment import ModelDeployment
from cal_crds.engines import NoKey, key_variable
from cal_crds.meta import LABEL_MANAGED_BY, LABEL_OWNER, MANAGER_API
from cal_crds.modelkeys import SECRET_NAME, BadKey
from cal_crds.workload import Workload
from cal_operator.world import World


class EnvMissing(Exception):
    """A Secret or key isn't there or may not be used; the message says which and what to do."""


async def resolve_env(world: World, deployment: ModelDeployment, workload: Workload) -> list[EnvValue]:
    """The workload's variables with their values."""
    values = []
    for variable in workload.env:
        reference = variable.value_from.secret_key_ref if variable.value_from else None
        if reference is None:
            values.append(EnvValue(variable.name, variable.value or ""))
            continue
        data = (await _secret(world, deployment, reference.name)).get("data") or {}
        if reference.key not in data:
            raise EnvMissing(f"env {variable.name}: Secret {reference.name} has no key {reference.key!r}")
        values.append(
            EnvValue(variable.name, base64.b64decode(data[reference.key]).decode(errors="replace"), secret=True)
        )
    return values


async def model_key(world: World, deployment: ModelDeployment, workload: Workload) -> list[EnvValue]:
    """The variable with the derived API key, if the engine takes one and the workload doesn't bring its own; the same at each launch."""
    try:
        name = key_variable(workload)
    except NoKey:
        return []
    where = f"the API key of the model: Secret {world.settings.system_namespace}/{SECRET_NAME}"
    try:
        return [EnvValue(name, await world.model_keys.of(deployment.metadata.uid), secret=True)]
    except BadKey as bad:
        raise EnvMissing(f"{where} can't be used: {bad}") from bad
    except Forbidden:
        raise EnvMissing(f"{where} may not be read and made by the operator") from None


async def resolve_logins(world: World, deployment: ModelDeployment, workload: Workload) -> list[RegistryLogin]:
    """The registry logins out of the workload's imagePullSecrets."""
    logins = []
    for pull in workload.image_pull_secrets:
        data = (await _secret(world, deployment, pull.name)).get("data") or {}
        try:
            auths = json.loads(base64.b64decode(data[".dockerconfigjson"]))["auths"]
            logins += [_login(server, auth) for server, auth in auths.items()]
        except (KeyError, ValueError, AttributeError, TypeError):
            raise EnvMissing(f"Secret {pull.name} is not of type kubernetes.io/dockerconfigjson") from None
    return logins


def _login(server: str, auth: dict[str, str]) -> RegistryLogin:
    if "username" in auth and "password" in auth:
        return RegistryLogin(server, auth["username"], auth["password"])
    username, _, password = base64.b64decode(auth["auth"]).decode().partition(":")
    return RegistryLogin(server, username, password)


async def _secret(world: World, deployment: ModelDeployment, name: str) -> dict[str, Any]:
    namespace = deployment.metadata.namespace
    try:
        secret = await world.cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except NotFound:
        raise EnvMissing(f"Secret {namespace}/{name} doesn't exist") from None
    except Forbidden:
        raise EnvMissing(f"the operator may not read Secret {namespace}/{name}") from None
    label = (secret["metadata"].get("labels") or {}).get(LABEL_OWNER)
    owner = deployment.metadata.labels.get(LABEL_OWNER)
    by_api = deployment.metadata.labels.get(LABEL_MANAGED_BY) == MANAGER_API
    if label is None or (by_api and label != owner):
        raise EnvMissing(
            f"Secret {namespace}/{name} isn't meant for this workload: it lacks the label {LABEL_OWNER} of its owner"
        )
    return secret
