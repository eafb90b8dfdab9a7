"""ComputeProvider: a registered provider, its adapter, its credentials and its offers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from cal_crds.base import (
    URL,
    Label,
    Message,
    Model,
    Money,
    ObjectName,
    Quantity,
    Resource,
    Rule,
    ServiceURL,
    Text,
    Time,
    Word,
    list_atomic,
    list_map,
    list_set,
)
from cal_crds.conditions import Conditions
from cal_crds.node import Offer


class ProviderDesiredState(StrEnum):
    """Paused: buys nothing, still stops."""

    ACTIVE = "Active"
    PAUSED = "Paused"


class SecretName(Model):
    """A Secret of the operator's own namespace."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]


class Credential(Model):
    """A named credential. The Secret's keys are the adapter's business (usually `apiKey` or `kubeconfig`)."""

    name: Annotated[Label, Field(description="Name, for pools to refer to (REST provider_credential_name).")]
    secret_ref: Annotated[
        SecretName,
        Field(
            description="The Secret, in the operator's namespace; its key is apiKey, or kubeconfig for another cluster."
        ),
    ]


class LocalSettings(Model):
    """Settings of the local adapter: processes on the operator's machine."""

    max_cpu: Annotated[int | None, Field(ge=1, le=4096, description="CPUs to offer; absent: all.")] = None
    max_memory: Annotated[Quantity | None, Field(description="Memory to offer; absent: all.")] = None


class DemoFault(Model):
    """A fault that the demo market shows from time to time."""

    verb: Annotated[Word, Field(description="check, find, launch, list, logs, observe, offers or stop.")]
    error: Annotated[
        Word, Field(description="Name of an error of the adapter contract, like NoCapacity, or AnswerLost.")
    ]
    percent: Annotated[int, Field(ge=0, le=100, description="How often, in percent of calls.")] = 100


class DemoSettings(Model):
    """Settings of the demo adapter: a made-up GPU market."""

    launch_delay_milliseconds: Annotated[int, Field(ge=0, le=3600000, description="From purchase to running.")] = 0
    ready_delay_milliseconds: Annotated[int, Field(ge=0, le=3600000, description="From running to answering.")] = 0
    stop_delay_milliseconds: Annotated[int, Field(ge=0, le=3600000, description="From a stop to gone.")] = 0
    faults: Annotated[list[DemoFault], list_atomic(32), Field(description="Faults to show.")] = Field(
        default_factory=list
    )


class KubernetesSettings(Model):
    """Settings of the k8s adapter."""

    namespace: Annotated[Label | None, Field(description="Namespace of the Pods where the pool names none.")] = None
    price_per_gpu_hour: Annotated[
        Money, Field(alias="pricePerGPUHour", description="US dollars per GPU and hour to account for.")
    ] = "0"
    price_per_cpu_hour: Annotated[
        Money, Field(alias="pricePerCPUHour", description="US dollars per CPU and hour to account for.")
    ] = "0"
    region: Annotated[Word, Field(description="Region of offers whose nodes carry no topology label.")] = "local"


class NosanaSettings(Model):
    """Settings of the nosana adapter."""

    job_timeout_minutes: Annotated[
        int, Field(ge=1, le=525600, description="Length of one job; the adapter extends it while wanted.")
    ] = 60
    node_url: Annotated[
        URL,
        Field(
            alias="nodeURL",
            pattern=r"^https?://[^\s]*\{node\}[^\s]*$",
            description="URL of a running host, for live logs; `{node}` stands for its address.",
        ),
    ] = "https://{node}.node.k8s.prd.nos.ci"


class AkashSettings(Model):
    """Settings of the akash adapter."""

    deposit: Annotated[Money | None, Field(description="US dollars to deposit, for accounts that must.")] = None
    bid_wait_seconds: Annotated[int, Field(ge=1, le=600, description="How long bids are collected.")] = 30
    denom: Annotated[Word, Field(description="uact or uakt, where the account doesn't tell in which it pays.")] = "uact"
    provider_proxy: Annotated[
        URL | None,
        Field(
            pattern=r"^https?://[^\s]+$",
            description="Base URL of the provider proxy that logs are read through; needed with another endpoint than the default.",
        ),
    ] = None


#: Settings block -> the adapter that it is for.
SETTINGS: Final = {"local": "local", "demo": "demo", "kubernetes": "k8s", "nosana": "nosana", "akash": "akash"}


def _settings_of(adapter: str, block: str) -> Rule:
    return Rule(
        f"!has(self.{block}) || self.adapter == '{adapter}'", f"{block} has settings of the adapter {adapter} only"
    )


class ProviderSpec(Model):
    """How to reach a provider."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.adapter == oldSelf.adapter", "adapter can't be changed; register another provider"),
        Rule(
            "!has(self.defaultCredential) || (has(self.credentials) && self.credentials.exists(c, c.name == self.defaultCredential))",
            "defaultCredential must be the name of one of credentials",
        ),
        *(_settings_of(adapter, block) for block, adapter in SETTINGS.items()),
    )

    adapter: Annotated[Label, Field(description="Name of the adapter. Immutable.")]
    endpoint: Annotated[
        ServiceURL | None, Field(description="Base URL of the provider's API; absent: the adapter's default.")
    ] = None
    desired_state: Annotated[
        ProviderDesiredState, Field(description="Active, or Paused: buys nothing, still stops.")
    ] = ProviderDesiredState.ACTIVE
    credentials: Annotated[list[Credential], list_map("name", 32), Field(description="Named credentials.")] = Field(
        default_factory=list
    )
    default_credential: Annotated[
        Label | None, Field(description="The credential of pools that name none; absent: the first.")
    ] = None
    local: Annotated[LocalSettings | None, Field(description="For the local adapter.")] = None
    demo: Annotated[DemoSettings | None, Field(description="For the demo adapter.")] = None
    kubernetes: Annotated[KubernetesSettings | None, Field(description="For the k8s adapter.")] = None
    nosana: Annotated[NosanaSettings | None, Field(description="For the nosana adapter.")] = None
    akash: Annotated[AkashSettings | None, Field(description="For the akash adapter.")] = None


class Support(StrEnum):
    """What a provider can do or needs; REST says them as booleans."""

    LOG_STREAMING = "LogStreaming"
    CONFIDENTIAL_COMPUTE = "ConfidentialCompute"
    SPOT_INSTANCES = "SpotInstances"
    MULTI_GPU = "MultiGPU"
    DIRECT_PROVISIONING = "DirectProvisioning"
    EPHEMERAL = "Ephemeral"
    READINESS_POLL = "ReadinessPoll"
    SIDECAR = "Sidecar"


class Capabilities(Model):
    """The capabilities that REST shows, as the adapter states them."""

    adapter_type: Annotated[Word, Field(description="depin or on_prem.")]
    supports: Annotated[list[Support], list_set(16), Field(description="What is so; what is missing here isn't.")] = (
        Field(default_factory=list)
    )
    readiness_timeout_seconds: Annotated[
        int, Field(ge=0, le=86400, description="How long an instance usually may take.")
    ] = 300
    polling_interval_seconds: Annotated[int, Field(ge=0, le=86400, description="How often it is looked at.")] = 20
    pricing_model: Annotated[Word, Field(description="fixed or auction.")] = "fixed"
    features: Annotated[list[Word], list_set(32), Field(description="Names of further features.")] = Field(
        default_factory=list
    )
    pool_type: Annotated[Word, Field(description="job or cluster (REST pool_type).")] = "job"
    provider_pool_id_pattern: Annotated[
        str | None,
        Field(
            max_length=512,
            alias="providerPoolIDPattern",
            description="Regular expression of valid provider pool ids; absent: any.",
        ),
    ] = None
    provider_pool_id_hint: Annotated[
        Message | None, Field(alias="providerPoolIDHint", description="What a valid one looks like, for people.")
    ] = None


class CredentialValidity(StrEnum):
    """Whether the provider accepts a credential."""

    VALID = "Valid"
    INVALID = "Invalid"
    UNKNOWN = "Unknown"


class CredentialStatus(Model):
    """A credential, as the provider sees it."""

    name: Annotated[Label, Field(description="Name of the credential.")]
    validity: Annotated[CredentialValidity, Field(description="Valid, Invalid or Unknown.")]
    account: Annotated[Text | None, Field(description="The account that it opens.")] = None
    balance: Annotated[Money | None, Field(description="US dollars left, where the provider tells.")] = None
    message: Annotated[Message | None, Field(description="What is wrong with it.")] = None


class ProviderStatus(Model):
    """What the operator saw of the provider."""

    observed_generation: Annotated[
        int, Field(ge=-1, le=2**53, description="Generation of the spec that was last seen.")
    ] = -1
    capabilities: Annotated[Capabilities | None, Field(description="What the adapter states.")] = None
    offers: Annotated[
        list[Offer], list_map("id", 500), Field(description="What can be had; refreshed in the background.")
    ] = Field(default_factory=list)
    offers_time: Annotated[Time | None, Field(description="When the offers last changed.")] = None
    offers_error: Annotated[Message | None, Field(description="Why the offers could not be refreshed.")] = None
    balance: Annotated[Money | None, Field(description="US dollars left on the default credential.")] = None
    credentials: Annotated[list[CredentialStatus], list_map("name", 32), Field(description="Each credential.")] = Field(
        default_factory=list
    )
    conditions: Annotated[Conditions, Field(description="Ready, CredentialsValid, Reachable, Funded.")] = Field(
        default_factory=list
    )


class ComputeProvider(Resource):
    """A registered provider of compute."""

    spec: ProviderSpec
    status: ProviderStatus = Field(default_factory=ProviderStatus)
