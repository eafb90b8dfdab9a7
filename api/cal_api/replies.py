"""What clients read: the documented fields and the further ones that clients of this API know. Prices in US dollars."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

#: A decimal that JSON shows as a number.
Number = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Reply(BaseModel):
    """A part of a response."""

    model_config = ConfigDict(populate_by_name=True, protected_namespaces=(), serialize_by_alias=True)


class Cost(Reply):
    """US dollars as decimal strings: `accumulated` up to `since`, `rate_per_hour` from then on."""

    accumulated: str
    since: Time | None
    rate_per_hour: str


#: The last field of its object: it is filled in when it is read.
SoFar = Annotated[str, Field(description="US dollars up to the second of this answer, as a decimal string.")]


class Problem(Reply):
    """Every error."""

    detail: Annotated[str, Field(description="What is wrong, for a person.")]


class Pool(Reply):
    """A pool."""

    pool_id: str
    pool_name: str
    provider: str
    state: Annotated[str, Field(description="ACTIVE, TERMINATING or TERMINATED.")]
    lifecycle_state: Annotated[str, Field(description="running, terminating or terminated.")]
    is_active: bool
    owner_type: str
    owner_id: str
    allowed_gpu_types: list[str]
    max_cost_per_hour: Number | None
    is_dedicated: bool
    scheduling_policy_json: str
    provider_pool_id: str
    provider_credential_name: str | None
    pool_type: Annotated[str, Field(description="job or cluster.")]
    gpu_count: int
    region_constraint: list[str]
    metadata: dict[str, Any]
    deployments: int
    nodes: int
    ready_nodes: int
    cost_per_hour: Number
    error_message: str | None
    created_at: Time
    updated_at: Time
    namespace: Annotated[str, Field(description="Of the ComputePool behind it.")]
    resource_name: Annotated[str, Field(description="Of the ComputePool behind it.")]
    cost: Annotated[Cost, Field(description="Over all nodes that it ever had.")]
    cost_so_far: SoFar


class RefusedOffer(Reply):
    """An offer that was looked at and not taken."""

    offer: str
    reason: str
    message: str


class Waiting(Reply):
    """What a deployment waits for."""

    reason: str
    message: str
    since: Time | None
    until: Time | None
    refused: list[RefusedOffer]


class Deployment(Reply):
    """A deployment."""

    deployment_id: str
    state: Annotated[
        str,
        Field(
            description="PENDING, PROVISIONING, DEPLOYING, RUNNING, DEGRADED, STOPPED, FAILED, TERMINATING or TERMINATED."
        ),
    ]
    model_name: str
    model_version: str | None
    model_id: str | None
    endpoint: Annotated[str, Field(description='"" before there is one.')]
    pool_id: str
    replicas: int
    ready_replicas: int
    gpu_per_replica: int | None
    owner_id: str | None
    org_id: str | None
    engine: str | None
    inference_model: str | None
    workload_type: str
    configuration: Annotated[dict[str, Any], Field(description="What runs; secrets hidden.")]
    error_message: str | None
    waiting: Waiting | None
    node_ids: list[str]
    target_node_id: str | None
    created_at: Time
    updated_at: Time
    namespace: Annotated[str, Field(description="Of the ModelDeployment behind it.")]
    resource_name: Annotated[str, Field(description="Of the ModelDeployment behind it.")]
    cost: Annotated[Cost, Field(description="Over all nodes that it ever had.")]
    cost_so_far: SoFar


class Node(Reply):
    """A node: one paid instance."""

    id: str
    node_id: str
    pool_id: str
    deployment_id: str
    provider: str
    provider_instance_id: str | None
    hostname: str
    gpu_type: str | None
    gpu_total: int
    gpu_allocated: int
    vcpu_total: int
    vcpu_allocated: int
    ram_gb_total: int
    ram_gb_allocated: int
    price_per_hour: Number
    region: str | None
    state: Annotated[str, Field(description="provisioning, ready, busy, draining, unhealthy, terminated or failed.")]
    health_score: int | None
    expose_url: str | None
    error_message: str | None
    last_heartbeat: Time | None
    created_at: Time
    updated_at: Time
    namespace: Annotated[str, Field(description="Of the ComputeNode behind it.")]
    resource_name: Annotated[str, Field(description="Of the ComputeNode behind it.")]
    cost: Cost
    cost_so_far: SoFar


class Resource(Reply):
    """An offer of a provider."""

    provider: str
    provider_resource_id: str
    gpu_type: str | None
    gpu_count: int
    gpu_memory_gb: int | None
    vcpu: int | None
    ram_gb: int | None
    region: str | None
    pricing_model: str
    price_per_hour: Number
    available: int | None
    metadata: dict[str, str]
    provider_again: Annotated[str, Field(alias="_provider")]


class ProviderError(Reply):
    """Why a provider's offers can't be told, or may be old."""

    provider: str
    error: str


class Capabilities(Reply):
    """What a provider can do and needs."""

    supports_log_streaming: bool
    supports_confidential_compute: bool
    supports_spot_instances: bool
    supports_multi_gpu: bool
    is_ephemeral: bool
    requires_readiness_poll: bool
    readiness_timeout_seconds: int
    polling_interval_seconds: int
    requires_sidecar: bool
    supports_direct_provisioning: bool
    pricing_model: str
    features: dict[str, bool]


class Provider(Reply):
    """A registered provider."""

    adapter_type: str
    capabilities: Capabilities


class Providers(Reply):
    """GET /inventory/providers."""

    providers: dict[str, Provider]


class Resources(Reply):
    """GET /provider/resources."""

    resources: list[Resource]
    errors: list[ProviderError]
    provider: str | None = Field(default=None, description="The one that was asked for.")


class Nodes(Reply):
    """GET /inventory/nodes/{provider}."""

    nodes: list[Node]
    total: int


class Inventory(Reply):
    """GET /list/pool/{pool_id}/inventory."""

    pool_id: str
    nodes: list[Node]


class Pools(Reply):
    """GET /listPools/{owner_id}."""

    pools: list[Pool]
    total: int


class Deployments(Reply):
    """GET /listDeployments/{pool_id}, /deployments and /list."""

    deployments: list[Deployment]
    total: int


class PoolOutcome(Reply):
    """What became of a request about a pool."""

    pool_id: str
    status: str


class DeploymentOutcome(Reply):
    """What became of a request about a deployment."""

    deployment_id: str
    status: str
    state: str


class Ok(Reply):
    """A heartbeat was taken; this process lives."""

    status: Literal["ok"] = "ok"


class ModelKey(Reply):
    """GET /key/{deployment_id}."""

    deployment_id: str
    api_key: Annotated[str, Field(description="What the model asks its callers for; the same for all replicas.")]
    header: Annotated[str, Field(description="The header to send to the endpoint.")]


class Lines(Reply):
    """GET /logs/{deployment_id}."""

    logs: list[str]
    provider: str


class Subscription(Reply):
    """The first frame to send on the log stream, verbatim."""

    type: Literal["subscribe_logs"] = "subscribe_logs"
    jobId: str
    nodeAddress: str
    provider: str


class Stream(Reply):
    """GET /logs/{deployment_id}/stream."""

    ws_url: str | None
    provider: str
    subscription: Subscription | None = None
    supported: bool
    message: str | None = None
