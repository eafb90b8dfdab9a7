"""ComputePool: an owner's policy for getting compute from a provider."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from cal_crds.base import UID, Label, Message, Model, Money, ObjectName, Resource, Rule, Text, Time, Word, list_set
from cal_crds.conditions import Conditions


class OwnerType(StrEnum):
    """Who owns a pool."""

    USER = "User"
    ORGANIZATION = "Organization"


class Tenancy(StrEnum):
    """Whether the machines of a pool may also serve other pools."""

    SHARED = "Shared"
    DEDICATED = "Dedicated"


class Strategy(StrEnum):
    """How offers are ordered. BestFit: least surplus of GPUs, then memory, then price. Cheapest: price. Spread: fewest
    nodes of this deployment per region or machine."""

    BEST_FIT = "BestFit"
    CHEAPEST = "Cheapest"
    SPREAD = "Spread"


class PoolDesiredState(StrEnum):
    """What the owner wants of the pool. Stopped: its nodes go, the pool stays."""

    ACTIVE = "Active"
    STOPPED = "Stopped"


class Owner(Model):
    """The owner of a pool."""

    type: Annotated[OwnerType, Field(description="User or Organization.")] = OwnerType.USER
    id: Annotated[Text, Field(min_length=1, description="Identifier of the owner, any characters.")]


class ProviderRef(Model):
    """The provider that a pool buys from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.name == oldSelf.name", "providerRef.name can't be changed; make another pool"),
    )

    name: Annotated[ObjectName, Field(description="Name of a ComputeProvider. Immutable.")]
    credential: Annotated[
        Label | None, Field(description="Which of the provider's named credentials; absent: its default.")
    ] = None


class Placement(Model):
    """How offers are chosen."""

    strategy: Annotated[
        Strategy,
        Field(
            description="BestFit: least surplus of GPUs, then memory, then price. Cheapest: price. Spread: fewest nodes of"
            " the deployment per region or machine."
        ),
    ] = Strategy.BEST_FIT


class Limits(Model):
    """Bounds on what the whole pool may buy. Absent: no bound."""

    max_nodes: Annotated[int | None, Field(ge=0, le=100000, description="Nodes at once.")] = None
    max_cost_per_hour: Annotated[Money | None, Field(description="US dollars per hour, over all nodes.")] = None
    max_total_cost: Annotated[
        Money | None, Field(description="US dollars in all; when spent, what runs is stopped.")
    ] = None


class PoolSpec(Model):
    """What the owner wants."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.owner == oldSelf.owner", "owner can't be changed; make another pool"),
        Rule(
            "has(self.displayName) == has(oldSelf.displayName) && (!has(self.displayName) || self.displayName == oldSelf.displayName)",
            "displayName can't be changed; make another pool",
        ),
        Rule(
            "has(self.providerPoolID) == has(oldSelf.providerPoolID)"
            " && (!has(self.providerPoolID) || self.providerPoolID == oldSelf.providerPoolID)",
            "providerPoolID can't be changed; make another pool",
        ),
    )

    display_name: Annotated[
        Text | None, Field(min_length=1, description="Name for people; absent: metadata.name. Immutable.")
    ] = None
    owner: Annotated[Owner, Field(description="Who owns the pool. Immutable.")]
    provider_ref: Annotated[ProviderRef, Field(description="Where to buy.")]
    provider_pool_id: Annotated[
        Text | None,
        Field(
            alias="providerPoolID",
            description="What the provider calls the place to buy in (a Nosana market, a Kubernetes namespace). Immutable.",
        ),
    ] = None
    allowed_gpu_types: Annotated[
        list[Word],
        list_set(64),
        Field(
            alias="allowedGPUTypes",
            description="GPU types to accept, in any spelling; empty: any. Looked at only when GPUs are asked for.",
        ),
    ] = Field(default_factory=list)
    regions: Annotated[list[Word], list_set(64), Field(description="Regions to accept; empty: any.")] = Field(
        default_factory=list
    )
    gpu_count: Annotated[int, Field(ge=0, le=64, description="GPUs per replica where the deployment doesn't say.")] = 1
    max_cost_per_hour: Annotated[
        Money | None, Field(description='US dollars per hour and node; absent: no cap; "0": free ones only.')
    ] = None
    tenancy: Annotated[Tenancy, Field(description="Shared, or Dedicated: its machines serve no other pool.")] = (
        Tenancy.SHARED
    )
    placement: Annotated[Placement, Field(description="How offers are chosen.")] = Field(default_factory=Placement)
    limits: Annotated[Limits | None, Field(description="Bounds on what the whole pool may buy.")] = None
    desired_state: Annotated[
        PoolDesiredState, Field(description="Active, or Stopped: its nodes go, the pool stays.")
    ] = PoolDesiredState.ACTIVE


class Cost(Model):
    """Money spent: `accumulated` up to `since`, `ratePerHour` from then on. Readers add the two."""

    accumulated: Annotated[Money, Field(description="US dollars up to `since`.")] = "0"
    since: Annotated[Time | None, Field(description="The moment up to which `accumulated` counts.")] = None
    rate_per_hour: Annotated[Money, Field(description="US dollars per hour since then.")] = "0"


class PoolState(StrEnum):
    """One derived word for people and REST; nothing reads it as a trigger."""

    ACTIVE = "ACTIVE"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"


class PoolStatus(Model):
    """What the operator saw."""

    observed_generation: Annotated[
        int, Field(ge=-1, le=2**53, description="Generation of the spec that was last seen.")
    ] = -1
    state: Annotated[PoolState | None, Field(description="ACTIVE, TERMINATING or TERMINATED; derived.")] = None
    deployments: Annotated[
        int, Field(ge=0, le=1000000, description="Deployments in this pool that are not terminated.")
    ] = 0
    nodes: Annotated[int, Field(ge=0, le=1000000, description="Nodes not proven gone.")] = 0
    ready_nodes: Annotated[int, Field(ge=0, le=1000000, description="Nodes that answer.")] = 0
    cost_per_hour: Annotated[Money, Field(description="US dollars per hour just now.")] = "0"
    cost: Annotated[Cost | None, Field(description="US dollars so far, over all nodes that this pool ever had.")] = None
    message: Annotated[Message | None, Field(description="What a person should know.")] = None
    conditions: Annotated[Conditions, Field(description="Ready, ProviderReady, Reconciling, Stalled.")] = Field(
        default_factory=list
    )


class PoolRef(Model):
    """A pool in the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of a ComputePool.")]
    uid: Annotated[UID | None, Field(description="Its uid; absent: bound to the pool of that name at first sight.")] = (
        None
    )


class ComputePool(Resource):
    """An owner's policy for getting compute from a provider: which GPUs, at what price, with which bounds."""

    spec: PoolSpec
    status: PoolStatus = Field(default_factory=PoolStatus)
