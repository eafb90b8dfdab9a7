"""POST /deploy and PATCH /update -> ModelDeployment: pure. Only what was said is written, so that nothing else is owned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cal_api import repeats, requests, secret, views
from cal_api.bodies import explain
from cal_api.draft import Draft, whole
from cal_api.errors import BadRequest, bad
from cal_api.pooling import kept_json, said
from cal_api.redact import redacted
from cal_api.translate import translate, with_job_definition, workload_of
from cal_api.values import ZERO_UUID
from cal_crds.deployment import DeploymentSpec, ModelDeployment
from cal_crds.engines import ENGINES
from cal_crds.meta import (
    ANNOTATION_REST,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_ORGANIZATION,
    LABEL_OWNER,
    LABEL_POOL,
    MANAGER_API,
)
from cal_crds.names import label_hash, slug
from cal_crds.pool import ComputePool
from cal_crds.workload import Workload

#: policies -> (place in the spec, least, most)
_POLICIES: Mapping[str, tuple[tuple[str, ...], int, int]] = {
    "backoff_limit": (("backoffLimit",), 0, 100),
    "max_runtime_seconds": (("maxRuntimeSeconds",), 1, 315360000),
    "max_surge": (("rollout", "maxSurge"), 0, 1000),
    "max_unavailable": (("rollout", "maxUnavailable"), 0, 1000),
    "pending_timeout_seconds": (("pendingTimeoutSeconds",), 0, 31536000),
    "readiness_timeout_seconds": (("readinessTimeoutSeconds",), 1, 86400),
    "ttl_seconds_after_terminated": (("ttlSecondsAfterTerminated",), 0, 315360000),
}


@dataclass(frozen=True)
class Plan:
    """A deployment to create: all but its name."""

    model: str
    owner_hash: str
    organization: str | None
    #: The key of a request that may be repeated.
    request: str | None
    secret_name: str
    secrets: Mapping[str, str] = field(repr=False)
    body: dict[str, Any]


def is_external(asked: requests.Deploy) -> bool:
    """Whether it registers an endpoint that somebody else runs."""
    kind = asked.workload_type or asked.configuration.get("workload_type")
    return isinstance(kind, str) and kind.lower() == "external"


def plan(asked: requests.Deploy, pool: ComputePool | None, request: str | None) -> Plan:
    """The ModelDeployment that a request asks for; `pool` is None for an external one, `request` the key under which it may be repeated."""
    secret_name = secret.name_for(slug(asked.model_name or asked.model_id or "model"), request)
    draft = translate(_configuration(asked), secret_name)
    model = asked.model_name or asked.model_id or draft.model_id
    if not model:
        raise BadRequest("model_name: is required")
    # A pool's owner pays, and it is whose Secrets its deployments may use: not for the caller to say.
    owner = pool.spec.owner.id if pool else asked.owner_id or asked.org_id or ""
    spec = said({**_place(asked, draft, pool), **_wish(asked, draft, model), **_policies(asked.policies)})
    _check(spec)
    metadata = _metadata(asked, draft, pool, owner, model)
    if request:
        metadata = {place: {**metadata[place], **found} for place, found in repeats.marks(request, spec).items()}
    body = {"metadata": metadata, "spec": spec}
    return Plan(model, label_hash(owner), asked.org_id, request, secret_name, draft.secrets, body)


def update(asked: requests.UpdateDeployment, current: ModelDeployment) -> tuple[dict[str, Any], Draft]:
    """The change of the spec that a request asks for, and its draft, whose secrets must be stored first."""
    before = current.spec.workload
    draft = translate(asked.configuration or {}, secret.name_for(current.metadata.name), before)
    endpoint = asked.endpoint or draft.endpoint
    if endpoint and not current.spec.external:
        raise bad("endpoint", endpoint, "only an external deployment's endpoint can be given")
    spec = {
        "replicas": asked.replicas,
        "gpuPerReplica": draft.gpus,
        "maxRuntimeSeconds": draft.max_runtime_seconds,
        "model": said({"id": draft.model_id, "servedName": asked.inference_model or draft.served_name}) or None,
        "external": {"endpoint": endpoint} if endpoint else None,
        "workload": _workload_change(draft, before) or None,
    }
    change: dict[str, Any] = {"spec": {name: value for name, value in spec.items() if value is not None}}
    if draft.rest:
        change["metadata"] = {"annotations": {ANNOTATION_REST: _kept(current, draft)}}
    return change, draft


def _workload_change(draft: Draft, before: Workload) -> dict[str, Any]:
    """The fields of the workload to replace; None takes one out."""
    workload = workload_of(draft)
    if draft.env_is_whole:
        workload["env"] = list(draft.env.values())
    elif draft.env:
        workload["env"] = list(({var.name: var.dump() for var in before.env} | draft.env).values())
    if "ports" in workload:
        # A check is part of what is exposed. One kind takes the other's place; they would be merged.
        probe = workload.get("readinessProbe")
        workload["readinessProbe"] = {"httpGet": None, "tcpSocket": None, **probe} if probe else None
    return workload


def _configuration(asked: requests.Deploy) -> dict[str, Any]:
    """The configuration with the same things said beside it underneath."""
    beside = {"engine": asked.engine, "hf_token_name": asked.hf_token_name, "workload_type": asked.workload_type}
    merged = {**said(beside), **with_job_definition(asked.configuration, asked.job_definition)}
    if is_external(asked):
        merged.pop("workload_type", None)
    return merged


def _place(asked: requests.Deploy, draft: Draft, pool: ComputePool | None) -> dict[str, Any]:
    if pool is not None:
        _something_to_run(draft)
        return {"poolRef": {"name": pool.metadata.name, "uid": pool.metadata.uid}}
    if asked.pool_id != ZERO_UUID:
        raise bad("pool_id", asked.pool_id, f"an external deployment has no pool; give {ZERO_UUID}")
    endpoint = asked.endpoint or draft.endpoint
    if not endpoint:
        raise BadRequest("endpoint: is required for workload_type external")
    key = {"name": draft.secret_name, "key": draft.external_key} if draft.external_key else None
    return {"external": {"endpoint": endpoint, "secretRef": key}}


def _something_to_run(draft: Draft) -> None:
    """An engine that isn't known implies no image: by itself it is a typing error that would fail much later."""
    if any(draft.workload.get(name) for name in ("image", "command", "args")):
        return
    engine = draft.workload.get("engine")
    if engine is None:
        raise BadRequest("configuration: says nothing to run; give an engine, an image or a cmd")
    if engine not in ENGINES:
        raise bad(
            "configuration.engine", engine, f"must be one of {sorted(ENGINES)}, or give an image or a cmd with it"
        )


def _wish(asked: requests.Deploy, draft: Draft, model: str) -> dict[str, Any]:
    owner = said({"id": asked.owner_id or None, "organization": asked.org_id or None})
    return {
        "owner": owner or None,
        "model": {
            "name": model,
            "version": asked.model_version,
            "id": draft.model_id or asked.model_id,
            "servedName": asked.inference_model or draft.served_name,
        },
        "replicas": asked.replicas,
        "gpuPerReplica": draft.gpus if asked.gpu_per_replica is None else asked.gpu_per_replica,
        "maxRuntimeSeconds": draft.max_runtime_seconds,
        "workload": workload_of(draft) or None,
    }


def _policies(policies: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    for name, value in policies.items():
        if name in _POLICIES and value is not None:
            place, least, most = _POLICIES[name]
            target = spec.setdefault(place[0], {}) if len(place) > 1 else spec
            target[place[-1]] = whole(f"policies.{name}", value, least, most)
    return spec


def _metadata(asked: requests.Deploy, draft: Draft, pool: ComputePool | None, owner: str, model: str) -> dict[str, Any]:
    labels = {
        LABEL_OWNER: label_hash(owner),
        LABEL_ORGANIZATION: label_hash(asked.org_id) if asked.org_id else None,
        LABEL_MODEL: label_hash(model),
        LABEL_POOL: pool.metadata.uid if pool else None,
        LABEL_MANAGED_BY: MANAGER_API,
    }
    rest = {
        "configuration": draft.rest,
        "model_id": asked.model_id if draft.model_id else None,
        "model_type": asked.model_type,
        "policies": redacted({name: value for name, value in asked.policies.items() if name not in _POLICIES}),
    }
    kept = {name: value for name, value in rest.items() if value}
    annotations = {ANNOTATION_REST: kept_json("configuration", kept)} if kept else {}
    return {"labels": said(labels), "annotations": annotations}


def _kept(current: ModelDeployment, draft: Draft) -> str:
    before = views.kept(current.metadata.annotations)
    return kept_json("configuration", {**before, "configuration": {**before.get("configuration", {}), **draft.rest}})


def _check(spec: dict[str, Any]) -> None:
    """A last look by the resource's own model."""
    try:
        DeploymentSpec.model_validate(spec)
    except ValidationError as error:
        raise BadRequest(explain(error)) from error
