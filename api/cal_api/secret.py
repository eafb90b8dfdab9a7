"""The Secret that keeps a deployment's secret values: the api creates it and never reads it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cal_crds.meta import API_VERSION, DEPLOYMENT, LABEL_DEPLOYMENT, LABEL_MANAGED_BY, LABEL_OWNER, MANAGER_API


def name_for(deployment: str, request: str | None = None) -> str:
    """A fresh name: a Secret is never changed, a new one takes its place. Of a `request` that may be repeated it is always the same one."""
    return f"{deployment[:220].rstrip('-.')}-env-{request[:8] if request else secrets.token_hex(4)}"


def build(name: str, deployment: str, uid: str, owner_hash: str, values: Mapping[str, str]) -> dict[str, Any]:
    """The Secret. It goes with its deployment; its label says whose workloads may refer to it."""
    reference = {"apiVersion": API_VERSION, "kind": DEPLOYMENT.name, "name": deployment, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": name,
            "labels": {LABEL_DEPLOYMENT: uid, LABEL_OWNER: owner_hash, LABEL_MANAGED_BY: MANAGER_API},
            "ownerReferences": [reference],
        },
        "stringData": dict(values),
    }
