"""Identity: the names that make etcd decide uniqueness, and the hashes that stand in labels for raw names."""

from __future__ import annotations

import hashlib
import re
import secrets

_NOT_A_LABEL = re.compile(r"[^a-z0-9]+")


def slug(text: str, limit: int = 40) -> str:
    """A DNS label from any text: lower case, dashes for runs of anything else; "x" if nothing is left."""
    return _NOT_A_LABEL.sub("-", text.lower()).strip("-")[:limit].strip("-") or "x"


def digest(*parts: str, length: int = 10) -> str:
    """Hex of the sha256 over the parts, which are kept apart by their lengths."""
    whole = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode()).hexdigest()[:length]


def label_hash(raw: str) -> str:
    """The label value that stands for a raw owner, organization or model name."""
    return digest(raw, length=32)


def pool_name(owner_type: str, owner_id: str, display_name: str) -> str:
    """The name of a pool made by REST: the same owner and display name collide, which is the 409."""
    return f"{slug(display_name)}-{digest(owner_type, owner_id, display_name)}"


def organization_deployment_name(organization: str, model: str, n: int) -> str:
    """The name of the n-th deployment of a model in an organization: one alive at a time, which is the 409."""
    return f"{slug(model)}-{digest(organization, model)}-{n}"


def free_deployment_name(model: str) -> str:
    """A name for a deployment without an organization: never collides."""
    return f"{slug(model)}-{secrets.token_hex(5)}"


def requested_deployment_name(model: str, request: str) -> str:
    """The name for a request that its client can tell from every other: asked again, it collides with itself."""
    return f"{slug(model)}-{digest(request)}"


def node_name(deployment_name: str, deployment_uid: str, slot: int, predecessor_uid: str) -> str:
    """The name of a replica's node: one slot and predecessor, one object. `predecessor_uid` is "" for the first.

    A DNS label even where the deployment's name has dots: Pods and Services are named after it.
    """
    return f"{slug(deployment_name)}-{digest(deployment_uid, str(slot), predecessor_uid)}"


def new_token() -> str:
    """A fresh idempotency token: 20 lower-case hex digits."""
    return secrets.token_hex(10)


def installation_id(kube_system_uid: str, operator_namespace: str) -> str:
    """Which installation an instance belongs to: 10 hex digits, the same for every restart."""
    return digest(kube_system_uid, operator_namespace)
