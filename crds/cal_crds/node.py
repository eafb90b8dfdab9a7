"""ComputeNode: one paid instance (a Nosana job, an Akash lease, a Pod), one per replica. The operator alone writes the spec."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from cal_crds.base import (
    UID,
    URL,
    Message,
    MicroTime,
    Model,
    Money,
    ObjectName,
    Resource,
    Rule,
    Text,
    Time,
    Word,
    list_map,
)
from cal_crds.conditions import Conditions
from cal_crds.deployment import NodeState
from cal_crds.pool import Cost, ProviderRef, Tenancy
from cal_crds.workload import ServedModel, Workload


class ObjectRef(Model):
    """An object in the same namespace, told apart from a later one of the same name."""

    name: Annotated[ObjectName, Field(description="Name of the object.")]
    uid: Annotated[UID, Field(min_length=1, description="Uid of the object.")]


class NodeProviderRef(ProviderRef):
    """The provider and the credential that the instance is bought with."""

    rules: ClassVar[tuple[Rule, ...]] = ()


class OfferAttribute(Model):
    """One fact about an offer that only its provider knows."""

    name: Annotated[Word, Field(min_length=1, description="Name of the fact.")]
    value: Annotated[str, Field(max_length=512, description="What it is.")]


class Offer(Model):
    """What a provider has to sell: one shape of machine, in one place, at one price."""

    id: Annotated[
        Text, Field(min_length=1, description="Identifier, unique within the provider (REST provider_resource_id).")
    ]
    gpu_type: Annotated[
        Word | None, Field(description="Normalised GPU type, like nvidia-rtx-4090; absent: no GPU.")
    ] = None
    gpu_count: Annotated[int, Field(ge=0, le=64, description="GPUs of the machine.")] = 0
    gpu_memory_gb: Annotated[
        int | None, Field(ge=0, le=4096, alias="gpuMemoryGB", description="Memory of one GPU in GB.")
    ] = None
    vcpu: Annotated[int | None, Field(ge=0, le=100000, description="Virtual CPUs.")] = None
    ram_gb: Annotated[int | None, Field(ge=0, le=1000000, alias="ramGB", description="Memory in GB.")] = None
    region: Annotated[Word | None, Field(description="Where it is.")] = None
    machine: Annotated[Word | None, Field(description="Which machine, where the provider tells.")] = None
    pricing_model: Annotated[Word, Field(description="fixed or auction.")] = "fixed"
    price_per_hour: Annotated[Money, Field(description="US dollars per hour for the whole offer.")] = "0"
    available: Annotated[int | None, Field(ge=0, le=1000000, description="How many can be had; absent: not told.")] = (
        None
    )
    attributes: Annotated[
        list[OfferAttribute], list_map("name", 16), Field(description="What only the provider knows (REST metadata).")
    ] = Field(default_factory=list)


class NodeSpec(Model):
    """The intent to buy, recorded before anything is bought."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a ComputeNode's spec can't be changed; delete it and it is replaced"),
    )

    deployment_ref: Annotated[ObjectRef, Field(description="The deployment that this is a replica of.")]
    pool_ref: Annotated[ObjectRef, Field(description="The pool that it is bought from.")]
    provider_ref: Annotated[NodeProviderRef, Field(description="The provider and credential it is bought with.")]
    slot: Annotated[int, Field(ge=0, le=100000, description="Which replica of the deployment.")] = 0
    attempt: Annotated[
        int, Field(ge=0, le=100000, description="Replacements in a row before this one that never served.")
    ] = 0
    predecessor: Annotated[UID | None, Field(description="Uid of the node that this one replaces.")] = None
    token: Annotated[
        str,
        Field(min_length=8, max_length=63, pattern=r"^[a-z0-9]+$", description="Idempotency token of the purchase."),
    ]
    account: Annotated[Text | None, Field(description="The provider account that pays.")] = None
    template_hash: Annotated[
        str, Field(max_length=63, description="Hash of what the deployment wanted when this was made.")
    ]
    provider_pool_id: Annotated[Text | None, Field(alias="providerPoolID", description="Where at the provider.")] = None
    tenancy: Annotated[Tenancy, Field(description="Shared or Dedicated.")] = Tenancy.SHARED
    gpu_count: Annotated[int, Field(ge=0, le=64, description="GPUs asked for.")] = 0
    offer: Annotated[Offer, Field(description="The offer that was chosen.")]
    max_price_per_hour: Annotated[
        Money | None, Field(description="Nothing dearer is bought, whatever the offer said. Absent: no cap.")
    ] = None
    model: Annotated[ServedModel, Field(description="Which model.")]
    workload: Annotated[Workload, Field(description="What runs, with all that the engine implies.")]


class Instance(Model):
    """The paid thing at the provider. Written from the adapter's own answers only."""

    handle: Annotated[str, Field(min_length=1, max_length=512, description="What it is stopped by; opaque.")]
    id: Annotated[Text, Field(description="What clients see as provider_instance_id.")]
    account: Annotated[Text | None, Field(description="The provider account that pays.")] = None
    start_time: Annotated[Time | None, Field(description="Since when it is paid for.")] = None
    price_per_hour: Annotated[Money, Field(description="US dollars per hour, the final price.")] = "0"
    node_address: Annotated[Text | None, Field(description="The provider's name of the machine.")] = None


class HeartbeatState(StrEnum):
    """What a node or agent says of itself."""

    READY = "Ready"
    BUSY = "Busy"
    UNHEALTHY = "Unhealthy"
    TERMINATED = "Terminated"
    COMPLETED = "Completed"
    FAILED = "Failed"


class Heartbeat(Model):
    """The values that the node's agent last reported; the api alone writes this. Omitted fields keep what was said before."""

    state: Annotated[HeartbeatState, Field(description="What it says of itself.")]
    time: Annotated[Time, Field(description="When a reported value last changed (a lower bound of the last beat).")]
    expose_url: Annotated[URL | None, Field(alias="exposeURL", description="Where it says it answers.")] = None
    health_score: Annotated[int | None, Field(ge=0, le=100, description="0 to 100.")] = None
    gpu_allocated: Annotated[int | None, Field(ge=0, le=64, description="GPUs in use.")] = None
    vcpu_allocated: Annotated[int | None, Field(ge=0, le=100000, description="CPUs in use.")] = None
    ram_gb_allocated: Annotated[
        int | None, Field(ge=0, le=1000000, alias="ramGBAllocated", description="Memory in use, GB.")
    ] = None
    instance_id: Annotated[
        Text | None, Field(alias="instanceID", description="The instance that it says it runs on (a hint).")
    ] = None
    error_message: Annotated[Message | None, Field(description="What went wrong, in its words.")] = None


class EndCause(StrEnum):
    """Why an instance ended by itself (not because the node was deleted)."""

    COMPLETED = "Completed"
    CRASHED = "Crashed"
    UNHEALTHY = "Unhealthy"
    TERMINATED = "Terminated"
    LOST = "Lost"
    BEATS_MISSED = "BeatsMissed"
    NOT_ANSWERING = "NotAnswering"
    NEVER_LAUNCHED = "NeverLaunched"
    MAX_RUNTIME = "MaxRuntime"


class Ended(Model):
    """How the instance ended."""

    cause: Annotated[EndCause, Field(description="Why, as one word.")]
    message: Annotated[Message, Field(description="Why, for a person.")] = ""
    time: Annotated[Time, Field(description="When it was found.")]
    exit_code: Annotated[int | None, Field(ge=-1000, le=100000, description="Exit code of the command, if known.")] = (
        None
    )


class NodeStatus(Model):
    """What the operator saw of the instance, and what its agent said."""

    observed_generation: Annotated[
        int, Field(ge=-1, le=2**53, description="Generation of the spec that was last seen.")
    ] = -1
    state: Annotated[NodeState | None, Field(description="One derived word.")] = None
    instance: Annotated[Instance | None, Field(description="The paid thing at the provider.")] = None
    endpoint: Annotated[URL | None, Field(description="Where it answers.")] = None
    answered_time: Annotated[Time | None, Field(description="When it first answered.")] = None
    launch_time: Annotated[MicroTime | None, Field(description="When a purchase was last attempted.")] = None
    gone_time: Annotated[Time | None, Field(description="When the instance was proven gone (or never was).")] = None
    ended: Annotated[Ended | None, Field(description="How it ended by itself.")] = None
    cost: Annotated[Cost | None, Field(description="US dollars so far.")] = None
    message: Annotated[Message | None, Field(description="What a person should know: why it waits or failed.")] = None
    heartbeat: Annotated[Heartbeat | None, Field(description="What its agent last reported.")] = None
    conditions: Annotated[Conditions, Field(description="Launched, Answering, Ready, StopFailed.")] = Field(
        default_factory=list
    )


class ComputeNode(Resource):
    """One paid instance and its record: made before anything is bought, kept until the instance is proven gone."""

    spec: NodeSpec
    status: NodeStatus = Field(default_factory=NodeStatus)
