"""What Nosana answers, as far as we read it. Unknown fields are ignored, unknown words kept: only what we rely on must be there.

Times are the provider's: `datetime` where it sends RFC 3339, seconds since the epoch where it sends numbers. Money is US dollars.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: A base58 address. Checked, since it becomes part of our handles and of paths.
Address = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]
Slug = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
#: Seconds since the epoch, up to the year 9999.
Seconds = Annotated[int, Field(ge=0, le=253402300799)]
Dollars = Annotated[Decimal, Field(ge=-(10**9), le=10**9)]
#: RFC 3339, of this century.
Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC))]


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Market(Answer):
    """A pool of like machines with one price. `GET /api/markets/`."""

    address: Address
    slug: Slug
    type: str = Field(default="", max_length=64)
    #: The contract leaves its type open; a market without a readable one can't be sold.
    usd_reward_per_hour: Any = None
    network_fee_percentage: Annotated[Decimal, Field(ge=0, le=1000)] = Decimal(0)
    gpu_types: list[Annotated[str, Field(max_length=100)]] = Field(default_factory=list)
    #: GB of GPU memory that every machine has at least.
    lowest_vram: Annotated[Decimal, Field(ge=0, le=4096)] | None = None


class Balance(Answer):
    """`GET /api/credits/balance`."""

    assigned: Dollars = Field(alias="assignedCredits")
    reserved: Dollars = Field(alias="reservedCredits")
    settled: Dollars = Field(alias="settledCredits")

    @property
    def available(self) -> Decimal:
        return self.assigned - self.reserved - self.settled


class Vault(Answer):
    """A purse; its owner is the account."""

    vault: str
    owner: Address


class Endpoint(Answer):
    """Where a port answers, the same over all jobs of the deployment."""

    op: str = Field(alias="opId")
    port: int | str
    url: str = Field(max_length=2048)


class Deployment(Answer):
    """What is started and stopped; jobs belong to it. `GET /api/deployments/{id}`."""

    id: Address
    name: str
    owner: Address
    market: str = ""
    status: str
    replicas: int
    endpoints: list[Endpoint] = Field(default_factory=list)
    #: Running jobs; queued ones don't count.
    active_jobs: int = 0
    created_at: Moment
    updated_at: Moment


class Job(Answer):
    """One run on one machine. `GET /api/deployments/{id}/jobs`."""

    job: Address
    #: QUEUED RUNNING COMPLETED STOPPED.
    state: str
    time_start: Seconds = 0
    created_at: Moment


class Diagnosis(Answer):
    """Why an operation ended, other than by itself."""

    host_shut_down: bool = Field(default=False, alias="hostShutDown")
    job_stopped: bool = Field(default=False, alias="jobStopped")
    job_expired: bool = Field(default=False, alias="jobExpired")
    reason: str | None = None


class ContainerState(Answer):
    """What the container engine says."""

    oom_killed: bool = Field(default=False, alias="OOMKilled")
    error: str = Field(default="", alias="Error")


class Diagnostics(Answer):
    """`diagnostics` of an operation."""

    reason: Diagnosis = Diagnosis()
    state: ContainerState | None = None


class OperationError(Answer):
    """Why an operation could not run."""

    event: str = ""
    message: str = ""


class LogEntry(Answer):
    """A piece of output."""

    type: str = ""
    log: str | None = None


class OperationState(Answer):
    """How an operation of a job went."""

    status: str | None = None
    exit_code: Annotated[int, Field(ge=-1000, le=100000)] | None = Field(default=None, alias="exitCode")
    logs: list[LogEntry] = Field(default_factory=list)
    error: OperationError | None = None
    diagnostics: Diagnostics = Diagnostics()


class JobResult(Answer):
    """What a job left behind."""

    status: str
    operations: list[OperationState] = Field(default_factory=list, alias="opStates")


class JobDetail(Answer):
    """`GET /api/deployments/{id}/jobs/{job}`."""

    #: All ones (`NOBODY`) before a machine has taken the job.
    node: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{0,64}$")] = ""
    result: JobResult | None = Field(default=None, alias="jobResult")
    #: Seconds since the epoch; 0 until then.
    time_end: Seconds = Field(default=0, alias="timeEnd")


class Event(Answer):
    """What happened to a deployment."""

    type: str
    message: str


class Pagination(Answer):
    """Where the next page is; None after the last."""

    cursor_next: str | None
    total_items: int


class DeploymentPage(Answer):
    """A page of `GET /api/deployments`."""

    deployments: list[Deployment]
    pagination: Pagination


class JobPage(Answer):
    """A page of `GET /api/deployments/{id}/jobs`."""

    jobs: list[Job]
    pagination: Pagination


class EventPage(Answer):
    """A page of `GET /api/deployments/{id}/events`."""

    events: list[Event]


class Header(Answer):
    """`GET /api/deployments/{id}/header`."""

    header: str = Field(min_length=1)


class StatusChange(Answer):
    """The answer to start, stop and archive."""

    status: str


class ReplicaChange(Answer):
    """The answer to a change of the replica count."""

    replicas: int


class Stopped(Answer):
    """The answer to stopping one job."""

    job: str
