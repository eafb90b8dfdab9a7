"""Builders of resources for tests of pure decisions: a sensible object, changed by what the test is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cal_crds.conditions import Condition, Reason, Status, Type
from cal_crds.deployment import ModelDeployment
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def pool(**spec: Any) -> ComputePool:
    return ComputePool.parse(
        {
            "metadata": {"name": "pool", "namespace": "ns", "uid": "pool-uid", "generation": 1},
            "spec": {"owner": {"id": "me"}, "providerRef": {"name": "market"}, **spec},
        }
    )


def deployment(*, generation: int = 1, status: dict[str, Any] | None = None, **spec: Any) -> ModelDeployment:
    return ModelDeployment.parse(
        {
            "metadata": {"name": "model", "namespace": "ns", "uid": "dep-uid", "generation": generation},
            "spec": {"poolRef": {"name": "pool"}, "model": {"name": "tiny"}, **spec},
            "status": status or {},
        }
    )


def answering(since: datetime) -> list[dict[str, Any]]:
    """The conditions of a node that answers."""
    made = Condition(
        type=Type.ANSWERING,
        status=Status.TRUE,
        reason=Reason.ANSWERED,
        observed_generation=1,
        last_transition_time=since,
    )
    return [made.dump()]


def node(uid: str = "node-1", *, made: float = 3600, deleting: bool = False, **changes: Any) -> ComputeNode:
    """A node made so many seconds ago. `spec` and `status` are merged over the defaults."""
    spec = {
        "deploymentRef": {"name": "model", "uid": "dep-uid"},
        "poolRef": {"name": "pool", "uid": "pool-uid"},
        "providerRef": {"name": "market"},
        "token": "tokentoken",
        "templateHash": "present",
        "offer": {"id": "offer-1", "pricePerHour": "1"},
        "model": {"name": "tiny"},
        "workload": {},
        **changes.pop("spec", {}),
    }
    metadata = {
        "name": uid,
        "namespace": "ns",
        "uid": uid,
        "generation": 1,
        "creationTimestamp": ago(made).isoformat(),
        **({"deletionTimestamp": ago(1).isoformat()} if deleting else {}),
        **changes.pop("metadata", {}),
    }
    return ComputeNode.parse({"metadata": metadata, "spec": spec, "status": changes.pop("status", {})})


INSTANCE = {"handle": "h1", "id": "i1", "account": "acc", "startTime": ago(1800).isoformat(), "pricePerHour": "1"}
