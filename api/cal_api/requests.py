"""What clients send. Unknown fields are ignored, never refused; null means absent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cal_api.values import ZERO_UUID, Dollars, Id, OwnerWord, Policy, Whole
from cal_crds.base import URL, Message, Text, Word

Name = Annotated[Text, Field(min_length=1)]
#: An HTTP address, without spaces.
Address = Annotated[URL, Field(pattern=r"^https?://[^\s\x00-\x1f\x7f]+$")]


def _no_doubles(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _blank(value: object) -> object:
    return None if value == "" else value


#: "" is absent: what clients send that know no null, or send back what an answer showed.
Blank = BeforeValidator(_blank)
Words = Annotated[list[Annotated[Word, Field(min_length=1)]], Field(max_length=64), AfterValidator(_no_doubles)]


class Request(BaseModel):
    """A request body. Strict: "3" is no number and 1 no boolean."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())


class CreatePool(Request):
    """POST /createpool."""

    pool_name: Annotated[Name, Field(description="Unique per owner.")]
    owner_type: Annotated[OwnerWord, Field(description="user or organization.", validate_default=True)] = "user"
    owner_id: Annotated[Name, Field(description="Any characters but control characters.")]
    provider: Annotated[Name, Field(description="A registered provider; see /inventory/providers.")]
    allowed_gpu_types: Annotated[Words, Field(description="Empty: any.")] = []
    max_cost_per_hour: Annotated[Dollars | None, Field(description="US dollars per node; absent: no cap.")] = None
    is_dedicated: Annotated[bool, Field(description="Machines that serve no other pool.")] = False
    provider_pool_id: Annotated[
        Text, Field(description="Where to buy at the provider; the format is the provider's.")
    ] = ""
    scheduling_policy_json: Annotated[Policy, Field(description='Like {"strategy": "best_fit"}.')] = "{}"
    provider_credential_name: Annotated[
        str, Field(max_length=63, description="One of the provider's named credentials; absent: its default.")
    ] = ""
    gpu_count: Annotated[Whole, Field(ge=0, le=64, description="GPUs per replica where a deployment doesn't say.")] = 1
    region_constraint: Annotated[Words, Field(description="Empty: any.")] = []
    metadata: Annotated[dict[str, Any], Field(description="Kept and given back.")] = {}


class UpdatePool(Request):
    """PATCH /updatepool/{pool_id}."""

    metadata: Annotated[dict[str, Any] | None, Field(description="Replaces what was kept; null only reads.")] = None


class Deploy(Request):
    """POST /deploy."""

    pool_id: Annotated[Id, Field(description="The zero UUID for workload_type external.")] = ZERO_UUID
    model_id: Annotated[Text | None, Blank] = None
    model_name: Annotated[Name | None, Field(description="Absent: model_id, or the configuration's.")] = None
    model_version: Text | None = None
    replicas: Annotated[Whole, Field(ge=0, le=1000)] = 1
    gpu_per_replica: Annotated[Whole | None, Field(ge=0, le=64, description="Absent: the pool's gpu_count.")] = None
    configuration: Annotated[dict[str, Any], Field(description="What runs; see docs/api.md.")] = {}
    workload_type: Annotated[
        str | None, Field(description="inference, embedding, training, batch, external."), Blank
    ] = None
    job_definition: Annotated[dict[str, Any] | None, Field(description="A job definition with one operation.")] = None
    engine: Annotated[
        str | None, Field(max_length=63, description="vllm, sglang, ollama, infinity, tei, ..."), Blank
    ] = None
    owner_id: Annotated[Text | None, Field(description="Absent: the pool's owner.")] = None
    org_id: Annotated[Text | None, Field(description="A model is deployed once per organization.")] = None
    endpoint: Annotated[Address | None, Field(description="Where an external one answers."), Blank] = None
    policies: Annotated[dict[str, Any], Field(description="Bounds like max_runtime_seconds; see docs/api.md.")] = {}
    inference_model: Annotated[Text | None, Field(description="Name under which the endpoint serves it.")] = None
    model_type: Text | None = None
    hf_token_name: Annotated[
        str | None, Field(max_length=253, description="Secret that holds a Hugging Face token."), Blank
    ] = None


class UpdateDeployment(Request):
    """PATCH /update/{deployment_id}. Absent fields change nothing."""

    configuration: Annotated[dict[str, Any] | None, Field(description="Fields named here are replaced.")] = None
    inference_model: Text | None = None
    endpoint: Annotated[Address | None, Field(description="Of an external deployment."), Blank] = None
    replicas: Annotated[Whole | None, Field(ge=0, le=1000)] = None


class DeploymentId(Request):
    """POST /terminate and POST /start."""

    deployment_id: Id


class Beat(Request):
    """POST /inventory/heartbeat. Absent fields change nothing."""

    provider: Name
    provider_instance_id: Name
    state: Annotated[str, Field(description="READY, BUSY, UNHEALTHY, TERMINATED, COMPLETED or FAILED; in any case.")]
    gpu_allocated: Annotated[Whole | None, Field(ge=0, le=64)] = None
    vcpu_allocated: Annotated[Whole | None, Field(ge=0, le=100000)] = None
    ram_gb_allocated: Annotated[Whole | None, Field(ge=0, le=1000000)] = None
    health_score: Annotated[Whole | None, Field(ge=0, le=100)] = None
    expose_url: Annotated[Address | None, Field(description="Where the node answers."), Blank] = None
    deployment_id: str | None = None
    old_provider_instance_id: Annotated[
        Text | None, Field(description="A redeploy: the node of this id takes the new one."), Blank
    ] = None
    error_message: Message | None = None


class TailQuery(BaseModel):
    """Query of GET /logs/{deployment_id}."""

    tail: Annotated[int, Field(ge=1, le=1000, description="Lines to return.")] = 100


class Page(BaseModel):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0


class WholeList(BaseModel):
    """Which part of a list that is whole by default."""

    limit: Annotated[int | None, Field(ge=1, le=500)] = None
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0


class OrganizationPage(Page):
    """Query of GET /deployments."""

    org_id: Text | None = None


class PoolPage(WholeList):
    """Query of GET /list."""

    pool_id: str | None = None


class ProviderQuery(BaseModel):
    """Query of GET /provider/resources."""

    provider: Text | None = None
