"""Our resources -> what REST shows: pure functions, one per kind, and the one derived word of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import Any

from cal_api import echo, replies, spending
from cal_api.values import ZERO_UUID, snake, strategy_of
from cal_crds import quantities
from cal_crds.base import rfc3339
from cal_crds.deployment import (
    TERMINAL_STATES,
    DeploymentDesiredState,
    DeploymentState,
    ModelDeployment,
    NodeState,
)
from cal_crds.deployment import Waiting as CrdWaiting
from cal_crds.meta import ANNOTATION_REST
from cal_crds.node import ComputeNode, Heartbeat, HeartbeatState
from cal_crds.pool import ComputePool, PoolDesiredState, PoolState, Tenancy

_LIFECYCLE = {PoolState.ACTIVE: "running", PoolState.TERMINATING: "terminating", PoolState.TERMINATED: "terminated"}
_ENDED = frozenset({NodeState.TERMINATED, NodeState.FAILED})
_BY_BEAT = {
    HeartbeatState.BUSY: NodeState.BUSY,
    HeartbeatState.UNHEALTHY: NodeState.UNHEALTHY,
    HeartbeatState.TERMINATED: NodeState.TERMINATED,
    HeartbeatState.COMPLETED: NodeState.TERMINATED,
    HeartbeatState.FAILED: NodeState.FAILED,
}
#: Stands for a node that never reported anything; its state and time are not looked at.
_SILENT = Heartbeat(state=HeartbeatState.READY, time=datetime.min.replace(tzinfo=UTC))


# --- pools -------------------------------------------------------------------------------------------------------------


def pool_state(pool: ComputePool) -> PoolState:
    """ACTIVE, TERMINATING (stopped or deleted, its nodes go) or TERMINATED (stopped, nothing left)."""
    if pool.metadata.deletion_timestamp:
        return PoolState.TERMINATING
    if pool.spec.desired_state == PoolDesiredState.STOPPED:
        return PoolState.TERMINATED if pool.status.state == PoolState.TERMINATED else PoolState.TERMINATING
    return PoolState.ACTIVE


def pool(resource: ComputePool, pool_type: str, updated: str) -> replies.Pool:
    """`pool_type` is its provider's: job or cluster."""
    spec, status, rest = resource.spec, resource.status, kept(resource.metadata.annotations)
    state = pool_state(resource)
    return replies.Pool(
        pool_id=resource.metadata.uid,
        pool_name=spec.display_name or resource.metadata.name,
        provider=spec.provider_ref.name,
        state=state,
        lifecycle_state=_LIFECYCLE[state],
        is_active=state == PoolState.ACTIVE,
        owner_type=snake(spec.owner.type),
        owner_id=spec.owner.id,
        allowed_gpu_types=spec.allowed_gpu_types,
        max_cost_per_hour=Decimal(spec.max_cost_per_hour) if spec.max_cost_per_hour else None,
        is_dedicated=spec.tenancy == Tenancy.DEDICATED,
        scheduling_policy_json=_policy(resource, rest.get("scheduling_policy_json", "")),
        provider_pool_id=spec.provider_pool_id or "",
        provider_credential_name=spec.provider_ref.credential,
        pool_type=pool_type,
        gpu_count=spec.gpu_count,
        region_constraint=spec.regions,
        metadata=rest.get("metadata") or {},
        deployments=status.deployments,
        nodes=status.nodes,
        ready_nodes=status.ready_nodes,
        cost_per_hour=Decimal(status.cost_per_hour),
        error_message=status.message,
        created_at=_time(resource.metadata.creation_timestamp),
        updated_at=updated,
        namespace=resource.metadata.namespace or "",
        resource_name=resource.metadata.name,
        cost=spending.shown(status.cost),
        cost_so_far=status.cost.accumulated if status.cost else "0",
    )


def _policy(resource: ComputePool, sent: str) -> str:
    """As it was sent, while it still says what the spec says."""
    strategy = resource.spec.placement.strategy
    try:
        if sent and strategy_of(sent) == strategy:
            return sent
    except ValueError:
        pass  # somebody edited the annotation
    return json.dumps({"strategy": snake(strategy)}, separators=(",", ":"))


# --- deployments -------------------------------------------------------------------------------------------------------


def deployment_state(resource: ModelDeployment) -> DeploymentState:
    """The operator's word, except where the spec says already what it must become: a wish shows before it is seen."""
    seen = resource.status.state
    terminated = resource.spec.desired_state == DeploymentDesiredState.TERMINATED
    if terminated and seen != DeploymentState.TERMINATED:
        return DeploymentState.TERMINATING
    deleted = resource.metadata.deletion_timestamp is not None
    if deleted and seen not in TERMINAL_STATES:
        return DeploymentState.TERMINATING
    if seen is None:
        return DeploymentState.RUNNING if resource.spec.external else DeploymentState.PENDING
    # A change of the spec tries again; a deletion counts as one too, and doesn't.
    unseen = resource.metadata.generation > resource.status.observed_generation
    if seen in TERMINAL_STATES and unseen and not terminated and not deleted:
        return DeploymentState.PENDING
    return seen


def tries_again(resource: ModelDeployment) -> bool:
    """Whether any change of its spec starts it: it has ended, and not by a wish."""
    wished = resource.spec.desired_state == DeploymentDesiredState.TERMINATED
    return deployment_state(resource) in TERMINAL_STATES and not wished


def deployment(resource: ModelDeployment, pool_id: str, owner: str | None, updated: str) -> replies.Deployment:
    """`pool_id` is the pool it is bound to ("" while none is known), `owner` that pool's owner."""
    spec, status, rest = resource.spec, resource.status, kept(resource.metadata.annotations)
    node_ids = [node.uid for node in status.nodes if node.uid]
    return replies.Deployment(
        deployment_id=resource.metadata.uid,
        state=deployment_state(resource),
        model_name=spec.model.name,
        model_version=spec.model.version,
        model_id=rest.get("model_id") or spec.model.id,
        endpoint=status.endpoint or (spec.external.endpoint if spec.external else ""),
        pool_id=ZERO_UUID if spec.external else pool_id,
        replicas=spec.replicas,
        ready_replicas=status.ready_replicas,
        gpu_per_replica=spec.gpu_per_replica,
        owner_id=(spec.owner and spec.owner.id) or owner,
        org_id=spec.owner and spec.owner.organization,
        engine=spec.workload.engine,
        inference_model=spec.model.served_name,
        workload_type="external" if spec.external else snake(spec.workload.type),
        configuration={**rest.get("configuration", {}), **echo.configuration(spec.workload)},
        error_message=_error(resource),
        waiting=_waiting(status.waiting),
        node_ids=node_ids,
        target_node_id=node_ids[0] if node_ids else None,
        created_at=_time(resource.metadata.creation_timestamp),
        updated_at=updated,
        namespace=resource.metadata.namespace or "",
        resource_name=resource.metadata.name,
        cost=spending.shown(status.cost),
        cost_so_far=status.cost.accumulated if status.cost else "0",
    )


def _error(resource: ModelDeployment) -> str | None:
    status = resource.status
    if deployment_state(resource) == DeploymentState.FAILED and status.outcome:
        return status.error_message or status.outcome.message
    return status.error_message


def _waiting(waiting: CrdWaiting | None) -> replies.Waiting | None:
    if waiting is None:
        return None
    return replies.Waiting(
        reason=waiting.reason,
        message=waiting.message,
        since=_optional(waiting.since),
        until=_optional(waiting.until),
        refused=[replies.RefusedOffer(offer=r.offer, reason=r.reason, message=r.message) for r in waiting.refused],
    )


# --- nodes -------------------------------------------------------------------------------------------------------------


def node_state(resource: ComputeNode) -> NodeState:
    """The operator's word, refined by what the node says of itself; what has ended stays ended."""
    seen = resource.status.state or NodeState.PROVISIONING
    if seen in _ENDED:
        return seen
    if resource.metadata.deletion_timestamp:
        return NodeState.DRAINING
    beat = resource.status.heartbeat
    said = _BY_BEAT.get(beat.state) if beat else None
    if said in _ENDED or (said and seen in (NodeState.READY, NodeState.BUSY)):
        return said
    return seen


def node(resource: ComputeNode, last_beat: datetime | None, updated: str) -> replies.Node:
    """`last_beat`: the latest that any digest knows; the one that stands in the status may be older."""
    spec, status = resource.spec, resource.status
    beat = status.heartbeat or _SILENT
    offer, wanted = spec.offer, spec.workload.resources
    vcpu = ceil(quantities.parse(wanted.cpu)) if wanted and wanted.cpu else offer.vcpu or 0
    ram = ceil(quantities.parse(wanted.memory) / 10**9) if wanted and wanted.memory else offer.ram_gb or 0
    instance = status.instance
    return replies.Node(
        id=resource.metadata.uid,
        node_id=resource.metadata.uid,
        pool_id=spec.pool_ref.uid,
        deployment_id=spec.deployment_ref.uid,
        provider=spec.provider_ref.name,
        provider_instance_id=instance.id if instance else None,
        hostname=resource.metadata.name,
        gpu_type=offer.gpu_type,
        gpu_total=max(offer.gpu_count, spec.gpu_count),
        gpu_allocated=_first(beat.gpu_allocated, spec.gpu_count),
        vcpu_total=offer.vcpu or vcpu,
        vcpu_allocated=_first(beat.vcpu_allocated, vcpu),
        ram_gb_total=offer.ram_gb or ram,
        ram_gb_allocated=_first(beat.ram_gb_allocated, ram),
        price_per_hour=Decimal(instance.price_per_hour if instance else offer.price_per_hour),
        region=offer.region,
        state=node_state(resource),
        health_score=beat.health_score,
        expose_url=beat.expose_url or status.endpoint,
        error_message=beat.error_message or status.message,
        last_heartbeat=_optional(_latest(status.heartbeat, last_beat)),
        created_at=_time(resource.metadata.creation_timestamp),
        updated_at=updated,
        namespace=resource.metadata.namespace or "",
        resource_name=resource.metadata.name,
        cost=spending.shown(status.cost),
        cost_so_far=status.cost.accumulated if status.cost else "0",
    )


def _first(said: int | None, bought: int) -> int:
    return bought if said is None else said


def _latest(beat: Heartbeat | None, digest: datetime | None) -> datetime | None:
    known = [time for time in (beat.time if beat else None, digest) if time]
    return max(known, default=None)


# --- any kind ----------------------------------------------------------------------------------------------------------


def kept(annotations: dict[str, str]) -> dict[str, Any]:
    """What REST sent and no field holds. Anybody may edit an annotation: what can't be read is not there."""
    try:
        rest = json.loads(annotations.get(ANNOTATION_REST, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(rest, dict):
        return {}
    shapes = {"metadata": dict, "configuration": dict, "scheduling_policy_json": str, "model_id": str}
    return {name: value for name, value in rest.items() if isinstance(value, shapes.get(name, object))}


def _time(moment: datetime | None) -> str:
    return rfc3339(moment) if moment else ""


def _optional(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
