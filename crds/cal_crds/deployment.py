"""ModelDeployment: a model to keep running."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from cal_crds.base import (
    UID,
    URL,
    Message,
    Model,
    ObjectName,
    Resource,
    Rule,
    ServiceURL,
    Text,
    Time,
    Word,
    list_atomic,
    list_map,
)
from cal_crds.conditions import Conditions
from cal_crds.pool import Cost, PoolRef
from cal_crds.workload import SecretKeyRef, ServedModel, Workload


class DeploymentDesiredState(StrEnum):
    """What the user wants. Left out (in git, say): running."""

    RUNNING = "Running"
    TERMINATED = "Terminated"


class DeploymentOwner(Model):
    """Whose deployment it is, if that differs from the pool's owner."""

    id: Annotated[Text | None, Field(description="Identifier of the user.")] = None
    organization: Annotated[Text | None, Field(description="Identifier of the organization.")] = None


class External(Model):
    """An endpoint that somebody else runs: registered, never bought."""

    endpoint: Annotated[ServiceURL, Field(description="URL of the endpoint.")]
    secret_ref: Annotated[SecretKeyRef | None, Field(description="The Secret key that holds its API key.")] = None


class Rollout(Model):
    """Bounds of a rolling replacement, in replicas."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.maxSurge + self.maxUnavailable > 0",
            "one of maxSurge and maxUnavailable must be above 0, or nothing can be replaced",
        ),
    )

    max_surge: Annotated[int, Field(ge=0, le=1000, description="Replicas above the wanted number.")] = 1
    max_unavailable: Annotated[int, Field(ge=0, le=1000, description="Replicas below the wanted number.")] = 0


class DeploymentSpec(Model):
    """What the user wants."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.poolRef) != has(self.external)", "give exactly one of poolRef and external"),
        Rule(
            "has(self.poolRef) == has(oldSelf.poolRef)"
            " && (!has(self.poolRef) || self.poolRef.name == oldSelf.poolRef.name)",
            "poolRef can't be changed; make another deployment",
        ),
        Rule(
            "!has(oldSelf.poolRef) || !has(oldSelf.poolRef.uid) || !has(self.poolRef)"
            " || (has(self.poolRef.uid) && self.poolRef.uid == oldSelf.poolRef.uid)",
            "poolRef.uid can't be changed once it is set; make another deployment",
        ),
    )

    pool_ref: Annotated[PoolRef | None, Field(description="The pool that its nodes are bought from.")] = None
    external: Annotated[
        External | None, Field(description="An endpoint that somebody else runs, in place of a pool.")
    ] = None
    owner: Annotated[DeploymentOwner | None, Field(description="Whose it is; absent: the pool's owner.")] = None
    model: Annotated[ServedModel, Field(description="Which model.")]
    replicas: Annotated[int, Field(ge=0, le=1000, description="Instances to keep running.")] = 1
    gpu_per_replica: Annotated[
        int | None, Field(ge=0, le=64, description="GPUs of each replica; absent: the pool's gpuCount.")
    ] = None
    workload: Annotated[Workload, Field(description="What runs on each node.")] = Field(default_factory=Workload)
    rollout: Annotated[Rollout, Field(description="Bounds of a rolling replacement.")] = Field(default_factory=Rollout)
    backoff_limit: Annotated[
        int, Field(ge=0, le=100, description="Replacements in a row that never served, until FAILED.")
    ] = 3
    pending_timeout_seconds: Annotated[
        int, Field(ge=0, le=31536000, description="How long to wait for an offer, until FAILED; 0: for ever.")
    ] = 0
    readiness_timeout_seconds: Annotated[
        int, Field(ge=1, le=86400, description="How long an instance may take to answer, until it is replaced.")
    ] = 1800
    max_runtime_seconds: Annotated[
        int | None, Field(ge=1, le=315360000, description="STOPPED this long after its start; absent: no bound.")
    ] = None
    ttl_seconds_after_terminated: Annotated[
        int, Field(ge=0, le=315360000, description="When a terminated deployment made by REST is deleted.")
    ] = 86400
    desired_state: Annotated[
        DeploymentDesiredState | None,
        Field(description="Running, or Terminated: its nodes are stopped. Absent (in git, say): Running."),
    ] = None
    restarted_at: Annotated[Time | None, Field(description="A new value tries again from FAILED and STOPPED.")] = None


class DeploymentState(StrEnum):
    """One derived word for people and REST; nothing reads it as a trigger."""

    PENDING = "PENDING"
    PROVISIONING = "PROVISIONING"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DEGRADED = "DEGRADED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"


#: States in which nothing is bought and nothing will be, without a wish of the user.
TERMINAL_STATES = frozenset({DeploymentState.STOPPED, DeploymentState.FAILED, DeploymentState.TERMINATED})


class NodeState(StrEnum):
    """One derived word for a node, as REST says it."""

    PROVISIONING = "provisioning"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    UNHEALTHY = "unhealthy"
    TERMINATED = "terminated"
    FAILED = "failed"


class DeploymentNode(Model):
    """One replica, in short; the ComputeNode of that name has the rest."""

    name: Annotated[ObjectName, Field(description="Name of the ComputeNode.")]
    uid: Annotated[UID, Field(description="Its uid (REST node id).")] = ""
    state: Annotated[NodeState, Field(description="Derived state of the node.")]
    endpoint: Annotated[URL | None, Field(description="Where it answers.")] = None


class RefusedOffer(Model):
    """An offer that was looked at and not taken."""

    offer: Annotated[Text, Field(description="Id of the offer.")]
    reason: Annotated[Word, Field(description="Why, as one word: AbovePriceCap, GPUTypeNotAllowed, TooFewGPUs, ...")]
    message: Annotated[Message, Field(description="Why, for a person.")] = ""


class Waiting(Model):
    """What a deployment waits for."""

    reason: Annotated[Word, Field(description="Why, as one documented word.")]
    message: Annotated[Message, Field(description="Why, for a person.")] = ""
    since: Annotated[Time | None, Field(description="Since when it waits.")] = None
    until: Annotated[Time | None, Field(description="When it is tried again, or given up.")] = None
    refused: Annotated[
        list[RefusedOffer], list_atomic(20), Field(description="Offers that were refused, and why (the nearest 20).")
    ] = Field(default_factory=list)


class Outcome(Model):
    """How a deployment ended. Holds for one generation of the spec: any change of it tries again."""

    state: Annotated[DeploymentState, Field(description="STOPPED or FAILED.")]
    reason: Annotated[Word, Field(description="Why, as one documented word.")]
    message: Annotated[Message, Field(description="Why, for a person.")] = ""
    time: Annotated[Time, Field(description="When it was found.")]
    generation: Annotated[int, Field(ge=0, le=2**53, description="The generation that it holds for.")]


class DeploymentStatus(Model):
    """What the operator saw."""

    observed_generation: Annotated[
        int, Field(ge=-1, le=2**53, description="Generation of the spec that was last seen.")
    ] = -1
    state: Annotated[
        DeploymentState | None, Field(description="One derived word; see the states in the documentation.")
    ] = None
    endpoint: Annotated[URL | None, Field(description="Endpoint of the oldest answering replica.")] = None
    replicas: Annotated[int, Field(ge=0, le=100000, description="Nodes not proven gone.")] = 0
    ready_replicas: Annotated[int, Field(ge=0, le=100000, description="Nodes that answer.")] = 0
    updated_replicas: Annotated[int, Field(ge=0, le=100000, description="Nodes with the present workload.")] = 0
    selector: Annotated[
        str | None, Field(max_length=256, description="Label selector of its nodes, for the scale subresource.")
    ] = None
    bound_pool_uid: Annotated[
        UID | None, Field(alias="boundPoolUID", description="The pool it is bound to for life.")
    ] = None
    last_start_time: Annotated[Time | None, Field(description="When the youngest instance was started.")] = None
    first_start_time: Annotated[
        Time | None, Field(description="When this run first started; maxRuntimeSeconds counts from here.")
    ] = None
    attempts: Annotated[int, Field(ge=0, le=100000, description="Replacements in a row that never served.")] = 0
    cost: Annotated[Cost | None, Field(description="US dollars so far, over all its nodes.")] = None
    nodes: Annotated[list[DeploymentNode], list_map("name", 1100), Field(description="Its replicas.")] = Field(
        default_factory=list
    )
    error_message: Annotated[Message | None, Field(description="The last thing that went wrong and still matters.")] = (
        None
    )
    waiting: Annotated[Waiting | None, Field(description="What it waits for.")] = None
    outcome: Annotated[Outcome | None, Field(description="How it ended.")] = None
    terminated_time: Annotated[
        Time | None, Field(description="When the last node of a terminated deployment was proven gone.")
    ] = None
    conditions: Annotated[Conditions, Field(description="Ready, Available, Reconciling, Stalled.")] = Field(
        default_factory=list
    )


class ModelDeployment(Resource):
    """A model to keep running: bought, watched, replaced when lost, and stopped when no longer wanted."""

    spec: DeploymentSpec
    status: DeploymentStatus = Field(default_factory=DeploymentStatus)
