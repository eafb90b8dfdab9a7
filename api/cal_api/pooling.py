"""POST /createpool -> ComputePool: pure. Only what was said is written, so that nothing else is owned."""

from __future__ import annotations

import re
from typing import Any

from cal_api import requests
from cal_api.errors import BadRequest, PreconditionFailed, bad
from cal_api.providerviews import capabilities_of
from cal_api.redact import compact, redacted
from cal_api.values import strategy_of
from cal_crds.meta import ANNOTATION_REST, FINALIZER, LABEL_MANAGED_BY, LABEL_OWNER, MANAGER_API
from cal_crds.names import label_hash, pool_name
from cal_crds.pool import OwnerType, Tenancy
from cal_crds.provider import ComputeProvider

ANNOTATION_MOST = 64 * 1024


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


def owner_of(asked: requests.CreatePool, organization: str) -> tuple[OwnerType, str]:
    """The owner that is meant: a gateway names the organization that a user acts for in a header."""
    if organization and asked.owner_type == OwnerType.USER:
        if len(organization) > 256 or not organization.isprintable():
            raise bad("X-Organization-ID", organization, "must be at most 256 printable characters")
        return OwnerType.ORGANIZATION, organization
    return OwnerType(asked.owner_type), asked.owner_id


def check_provider(asked: requests.CreatePool, provider: ComputeProvider) -> None:
    stated = capabilities_of(provider)
    pattern, given = stated.provider_pool_id_pattern, asked.provider_pool_id
    if given and pattern and not re.fullmatch(pattern, given):
        raise bad("provider_pool_id", given, stated.provider_pool_id_hint or f"must match {pattern}")
    credentials = [credential.name for credential in provider.spec.credentials]
    named = asked.provider_credential_name
    if named and named not in credentials:
        has = credentials or "none"
        raise PreconditionFailed(f"provider_credential_name: {named!a} is not known; the provider has {has}")
