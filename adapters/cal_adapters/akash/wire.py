"""The Console API's answers as types: what we read of them, and nothing more.

Everything here was said by others: sizes are bounded and forms checked before anything is built from it. Amounts are decimals.
API: https://akash.network/docs/api-documentation/console-api/ (v1).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

#: A deployment's number: milliseconds since the epoch at its creation, as text.
Dseq = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    Field(pattern=r"^[1-9][0-9]{0,19}$"),
]
Address = Annotated[str, Field(pattern=r"^akash1[a-z0-9]{38,58}$")]
Word = Annotated[str, Field(max_length=256)]
Amount = Annotated[
    Decimal,
    BeforeValidator(lambda value: str(value) if isinstance(value, float) else value),
    Field(ge=0, allow_inf_nan=False),
]


def _or_nothing(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


#: What a provider says of itself, passed on by the Console: if it can't be read it wasn't said. Else any provider could make a deployment
#: of ours unreadable as a whole, and so unstoppable.
Foreign: Final = WrapValidator(_or_nothing)


class Answer(BaseModel):
    """A part of an answer. Fields that we don't read are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Coin(Answer):
    """An amount of a denomination: uact, uakt."""

    denom: Word
    amount: Amount


class User(Answer):
    """Whose key it is."""

    id: Word


class Wallet(Answer):
    """The managed wallet that pays. Newer consoles leave `denom` out."""

    address: Address
    denom: Word | None = None


class Balances(Answer):
    """What is left, in millionths of the wallet's coin."""

    balance: Amount


class Created(Answer):
    """A new deployment, with the manifest that its provider has to be handed."""

    dseq: Dseq
    manifest: str


class DeploymentId(Answer):
    owner: Address
    dseq: Dseq


class DeploymentHead(Answer):
    """What the chain keeps of a deployment. `hash`: base64 of the manifest's SHA-256."""

    id: DeploymentId
    state: Word
    hash: Word


class LeaseId(Answer):
    """One provider's contract for one order of one group of a deployment."""

    dseq: Dseq
    gseq: Annotated[int, Field(ge=0, le=2**31)]
    oseq: Annotated[int, Field(ge=0, le=2**31)]
    provider: Address


class ServiceStatus(Answer):
    """How many copies of a service serve, and under which host names."""

    available: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0
    uris: list[Word] | None = None


class ForwardedPort(Answer):
    """A port of the provider's that leads to one of the service's."""

    port: Annotated[int, Field(ge=0, le=65535)]
    external_port: Annotated[int, Field(ge=0, le=65535, alias="externalPort")]
    host: Word | None = None


class LeaseStatus(Answer):
    """What the provider itself says of a lease."""

    services: dict[Word, ServiceStatus] | None = None
    forwarded_ports: dict[Word, list[ForwardedPort] | None] | None = None


class Reclamation(Answer):
    """A provider's notice that it takes its machine back. `deadline`: seconds since the epoch."""

    deadline: Annotated[str | int | None, Field(max_length=64)] = None
    reason: Word | None = None


class Lease(Answer):
    """A lease: active, reclaiming, insufficient_funds or closed. `status` is null when its provider can't be asked."""

    id: LeaseId
    state: Word
    price: Coin
    reason: Annotated[Word | None, Foreign] = None
    reclamation: Annotated[Reclamation | None, Foreign] = None
    status: Annotated[LeaseStatus | None, Foreign] = None


class Deployment(Answer):
    """A deployment with its leases."""

    deployment: DeploymentHead
    leases: list[Lease]


class Pagination(Answer):
    total: Annotated[int, Field(ge=0)]


class Page(Answer):
    """A page of the account's active deployments."""

    deployments: list[Deployment]
    pagination: Pagination


class GroupSpec(Answer):
    name: Word


class Group(Answer):
    group_spec: GroupSpec


class ChainRecord(Answer):
    """A deployment as the chain has it: with its groups' names. `hash` is here only to see whether it really came from the chain."""

    deployment: DeploymentHead
    groups: list[Group]


class ChainDeployment(Answer):
    """The public view of a deployment."""

    other: ChainRecord


class Attribute(Answer):
    key: Word
    value: Word


class Units(Answer):
    val: Amount


class OfferedGPU(Answer):
    units: Units
    attributes: list[Attribute] = Field(default_factory=list)


class OfferedResources(Answer):
    gpu: OfferedGPU | None = None


class ResourceOffer(Answer):
    resources: OfferedResources


class Bid(Answer):
    """A provider's price for an order, per block. `reclamation_window`: it may take the machine back with so much notice."""

    id: LeaseId
    state: Word
    price: Coin
    resources_offer: list[ResourceOffer] = Field(default_factory=list)
    reclamation_window: Word | None = None


class BidItem(Answer):
    bid: Bid


#: Bids, each None that can't be read.
Bids = list[Annotated[BidItem | None, Foreign]]


class Availability(Answer):
    total: Annotated[int, Field(ge=0)] = 0
    available: Annotated[int, Field(ge=0)] = 0


class GpuPrice(Answer):
    """US dollars per hour for a lease with one GPU."""

    currency: Word
    min: Amount
    max: Amount
    avg: Amount
    med: Amount


class GpuModel(Answer):
    """A kind of GPU: what it costs and how many there are."""

    vendor: Word
    model: Word
    ram: Word
    interface: Word
    availability: Availability
    price: GpuPrice | None = None


class GpuPrices(Answer):
    models: Annotated[list[Annotated[GpuModel | None, Foreign]], Field(max_length=10000)]


class Market(Answer):
    """The price of one AKT in US dollars."""

    price: Amount


class Provider(Answer):
    """A provider's gateway."""

    host_uri: Annotated[Word, Field(alias="hostUri")]


class Success(Answer):
    """A deployment was closed."""

    success: bool


class Token(Answer):
    token: Annotated[str, Field(max_length=16384, repr=False)]


class Failure(Answer):
    """The Console's own error shape."""

    error: Word
    message: str
    code: Word | None = None


class Envelope(Answer):
    """Most answers come as {"data": ...}."""

    data: Any
