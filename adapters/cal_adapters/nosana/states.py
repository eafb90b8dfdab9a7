"""What Nosana says of a deployment, as the contract's closed words. Pure: no I/O, time is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cal_adapters.contract import Observation, Readiness, State
from cal_adapters.nosana.answers import Deployment, Job, JobDetail, JobResult, OperationState

#: The node of a job that nobody has taken.
NOBODY: Final = "1" * 32
#: How long a listing may still be on its way after the deployment was stopped. Nosana's own tasks hold theirs for 120 s at most.
LISTING_WINDOW: Final = timedelta(seconds=120)
#: How long after its end a job's result may still come.
RESULT_WINDOW: Final = timedelta(seconds=120)


STATUSES: Final = frozenset(
    {"DRAFT", "ERROR", "STARTING", "RUNNING", "STOPPING", "STOPPED", "INSUFFICIENT_FUNDS", "ARCHIVED"}
)
ACTIVE_JOBS: Final = ("QUEUED", "RUNNING")
_JOB_STATES: Final = frozenset({*ACTIVE_JOBS, "COMPLETED", "STOPPED"})


def current_job(jobs: Sequence[Job]) -> Job | None:
    """The job that counts, of the newest first: a running one, else a queued one, else the last."""
    for state in ("RUNNING", "QUEUED"):
        for job in jobs:
            if job.state == state:
                return job
    return jobs[0] if jobs else None


def observation(
    deployment: Deployment, job: Job | None, detail: JobDetail | None, trouble: str, now: datetime
) -> Observation:
    """What a deployment does. `trouble` is the provider's last event; `now` is the provider's time."""
    state, message = _state(deployment, job, detail, trouble, now)
    node = detail.node if detail and detail.node not in ("", NOBODY) else None
    return Observation(
        state=state,
        message=message,
        id=job.job if job else deployment.id,
        endpoint=deployment.endpoints[0].url if deployment.endpoints else None,
        readiness=_readiness(deployment, state),
        exit_code=_exit_code(detail),
        started=datetime.fromtimestamp(job.time_start, UTC) if job and job.time_start > 0 else None,
        node_address=node,
    )


def _readiness(deployment: Deployment, state: State) -> Readiness:
    if state is not State.RUNNING:
        return Readiness.NO
    # Without a port there is nothing to probe.
    return Readiness.PROBE if deployment.endpoints else Readiness.YES


def _state(
    deployment: Deployment, job: Job | None, detail: JobDetail | None, trouble: str, now: datetime
) -> tuple[State, str]:
    status, said = deployment.status, f"Nosana: deployment {deployment.status}"
    if status not in STATUSES or (job and job.state not in _JOB_STATES):
        return State.UNKNOWN, said + (f", job {job.state}" if job else "")
    if status == "DRAFT":
        return _draft(deployment, said)
    if job is None:
        return _without_job(deployment, said, trouble)
    said += f", job {job.state}"
    if job.state not in ACTIVE_JOBS:
        return _ended(job, detail, said, now)
    if status in ("STOPPING", "STOPPED", "ARCHIVED"):
        return State.TERMINATED, f"{said}: it is being stopped"
    if status == "INSUFFICIENT_FUNDS":
        said += ": the account can't pay for more time"
    if job.state == "RUNNING":
        return State.RUNNING, said
    return State.STARTING, f"{said}: waits for a machine of market {deployment.market}"


def _draft(deployment: Deployment, said: str) -> tuple[State, str]:
    if deployment.replicas == 0:
        return State.TERMINATED, f"{said}: it is being taken back"
    return State.STARTING, f"{said}: it is made, but not started"


def _without_job(deployment: Deployment, said: str, trouble: str) -> tuple[State, str]:
    if deployment.replicas == 0 or deployment.status in ("STOPPING", "STOPPED", "ARCHIVED"):
        return State.TERMINATED, f"{said}: stopped before it ran"
    if deployment.status == "ERROR":
        return State.FAILED, f"{said}: {trouble or 'no reason given'}"
    if deployment.status == "INSUFFICIENT_FUNDS":
        return State.STARTING, f"{said}: the account can't pay; Nosana tries again by itself"
    return State.STARTING, f"{said}: the job is being listed"


def _ended(job: Job, detail: JobDetail | None, said: str, now: datetime) -> tuple[State, str]:
    if detail and detail.result:
        state, reason = _verdict(detail.result)
        return state, f"{said}: {reason}"
    if job.state == "STOPPED":
        return State.TERMINATED, f"{said}: stopped at Nosana"
    ended = datetime.fromtimestamp(detail.time_end, UTC) if detail and detail.time_end > 0 else None
    if ended and now - ended < RESULT_WINDOW:
        return State.UNKNOWN, f"{said}: its result isn't there yet"
    return State.LOST, f"{said}: it ended without a result"


def _verdict(result: JobResult) -> tuple[State, str]:
    # Reasons before exit codes: a host that stops an operation may report exit code 0 for it.
    reasons = [operation.diagnostics.reason for operation in result.operations]
    for reason in reasons:
        if reason.host_shut_down:
            return State.LOST, reason.reason or "the host shut down"
        if reason.job_expired:
            return State.TERMINATED, reason.reason or "its paid time is over"
        if reason.job_stopped:
            return State.TERMINATED, reason.reason or "stopped at Nosana"
    for operation in result.operations:
        if operation.error or operation.exit_code or operation.status == "failed":
            return State.FAILED, _failure(operation)
    if result.status == "success":
        return State.SUCCEEDED, "exit code 0"
    if result.status == "stopped":
        return State.TERMINATED, "stopped at Nosana"
    return State.FAILED, f"the result is {result.status!r}"


def _failure(operation: OperationState) -> str:
    parts = []
    if operation.diagnostics.state and operation.diagnostics.state.oom_killed:
        parts.append("out of memory")
    if operation.error:
        parts.append(operation.error.message or operation.error.event)
    if operation.exit_code is not None:
        parts.append(f"exit code {operation.exit_code}")
    lines = log_lines([operation])
    return (", ".join(parts) or "failed") + (f"; last line: {lines[-1][:200]}" if lines else "")


def _exit_code(detail: JobDetail | None) -> int | None:
    operations = detail.result.operations if detail and detail.result else []
    codes = [operation.exit_code for operation in operations if operation.exit_code is not None]
    return next((code for code in codes if code), codes[0] if codes else None)


# --- logs ----------------------------------------------------------------------------------------------------------------


def log_lines(operations: Iterable[OperationState]) -> list[str]:
    """The output that a result carries, line by line."""
    return [line for operation in operations for entry in operation.logs for line in split_lines(entry.log or "")]


def split_lines(text: str) -> list[str]:
    """Lines without their ends; of a line that was overwritten (a progress bar) only what stood last."""
    return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n") if line.strip("\r")]
