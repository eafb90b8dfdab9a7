"""What a heartbeat changes: pure. Fields that it doesn't give keep what was said before; what has ended isn't revived."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cal_api.errors import bad
from cal_api.requests import Beat
from cal_api.values import word_of
from cal_crds.base import rfc3339
from cal_crds.deployment import NodeState
from cal_crds.node import ComputeNode, HeartbeatState

_ENDED = frozenset({HeartbeatState.TERMINATED, HeartbeatState.COMPLETED, HeartbeatState.FAILED})
_LAST_WORDS = _ENDED | {HeartbeatState.UNHEALTHY}
#: Field of a beat -> field of `status.heartbeat`.
_FIELDS = {
    "expose_url": "exposeURL",
    "health_score": "healthScore",
    "gpu_allocated": "gpuAllocated",
    "vcpu_allocated": "vcpuAllocated",
    "ram_gb_allocated": "ramGBAllocated",
    "error_message": "errorMessage",
}


def state_of(beat: Beat) -> HeartbeatState:
    """The state that it reports; BadRequest with the list."""
    try:
        return word_of(HeartbeatState, beat.state)
    except ValueError as error:
        raise bad("state", beat.state, str(error)) from error


def news(node: ComputeNode, beat: Beat, state: HeartbeatState, now: datetime) -> dict[str, Any]:
    """The change of `status.heartbeat`; {} if the beat says nothing new."""
    if state in _LAST_WORDS and _superseded(node, beat):
        return {}
    before = node.status.heartbeat.dump() if node.status.heartbeat else {}
    said: dict[str, Any] = {"state": _state(node, beat, state).value}
    said |= {field: value for name, field in _FIELDS.items() if (value := getattr(beat, name)) is not None}
    if renamed := _renamed(node, beat):
        said["instanceID"] = renamed
    changed = {field: value for field, value in said.items() if before.get(field) != value}
    if not changed:
        return {}
    # `state` and `time` are required by the schema, whatever changed.
    return {**changed, "state": said["state"], "time": rfc3339(now)}


def _state(node: ComputeNode, beat: Beat, state: HeartbeatState) -> HeartbeatState:
    """Its own word, unless the node has ended: then only another instance can say otherwise."""
    before = node.status.heartbeat
    if state in _ENDED or before is None:
        return state
    ended = before.state in _ENDED or node.status.state in (NodeState.TERMINATED, NodeState.FAILED)
    renamed = _renamed(node, beat) if beat.old_provider_instance_id is not None else None
    redeployed = renamed not in (None, before.instance_id)  # what ended under that very id stays ended
    return before.state if ended and not redeployed else state


def _superseded(node: ComputeNode, beat: Beat) -> bool:
    """Whether the node has said since that it runs as another instance: that this one ends doesn't end the node."""
    recorded = node.status.instance.id if node.status.instance else None
    says = node.status.heartbeat.instance_id if node.status.heartbeat else None
    return says not in (None, recorded) and beat.provider_instance_id == recorded


def _renamed(node: ComputeNode, beat: Beat) -> str | None:
    """The instance that it says it runs on, if that isn't the one on record. A hint: the operator asks the provider."""
    recorded = node.status.instance.id if node.status.instance else None
    return beat.provider_instance_id if beat.provider_instance_id != recorded else None
