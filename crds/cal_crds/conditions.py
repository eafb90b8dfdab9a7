"""Conditions: their types, their reasons, and the one setter with the rules inside.

`Ready` means that the wish is met (also when the wish is zero, stopped or terminated); `Available` that it serves;
`Reconciling` and `Stalled` are abnormal-true, so that `kubectl wait`, Helm and Flux read all our kinds alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cal_crds.base import Model, Time, list_map


class Status(StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Type(StrEnum):
    """The condition types of all kinds."""

    #: The wish is met and this generation was seen.
    READY = "Ready"
    #: A deployment serves: at least one replica answers.
    AVAILABLE = "Available"
    #: Something is under way towards the wish.
    RECONCILING = "Reconciling"
    #: Nothing will change without a change of the spec, or somebody's help.
    STALLED = "Stalled"
    #: A pool's provider is registered, reachable and has the named credential.
    PROVIDER_READY = "ProviderReady"
    #: A provider answered lately.
    REACHABLE = "Reachable"
    #: A provider accepted every credential of its ComputeProvider.
    CREDENTIALS_VALID = "CredentialsValid"
    #: Every account of a provider can pay, where the provider tells what is left.
    FUNDED = "Funded"
    #: A node's instance exists at the provider and is recorded.
    LAUNCHED = "Launched"
    #: A node's endpoint answered the probe (or the provider says so).
    ANSWERING = "Answering"
    #: The provider did not confirm a stop that was asked for; it is tried again.
    STOP_FAILED = "StopFailed"


class Reason(StrEnum):
    """Why a condition is as it is. Messages are for people; code may compare these."""

    # -- any kind
    #: All is as the spec wants it.
    AS_WANTED = "AsWanted"
    #: On the way to what the spec wants.
    IN_PROGRESS = "InProgress"
    #: The object is being deleted.
    DELETING = "Deleting"
    #: The spec can't be carried out as it stands; the message says which field, and what is allowed.
    INVALID = "Invalid"
    #: An error of the operator itself; it is tried again.
    INTERNAL_ERROR = "InternalError"

    # -- provider
    #: The adapter that the spec names doesn't exist or isn't enabled here.
    UNKNOWN_ADAPTER = "UnknownAdapter"
    #: The provider answered.
    REACHED = "Reached"
    #: The provider did not answer, or not in a form that can be read.
    UNREACHABLE = "Unreachable"
    #: A Secret or key that the spec refers to isn't there.
    SECRET_MISSING = "SecretMissing"
    #: No credential is configured; pools are accepted, their deployments wait.
    NO_CREDENTIALS = "NoCredentials"
    #: The provider refused a credential.
    CREDENTIALS_REFUSED = "CredentialsRefused"
    #: The provider accepted the credentials.
    CREDENTIALS_ACCEPTED = "CredentialsAccepted"
    #: An admin paused this provider: it buys nothing, and still stops.
    PAUSED = "Paused"
    #: There is money left.
    FUNDS_LEFT = "FundsLeft"
    #: The account can't pay.
    INSUFFICIENT_FUNDS = "InsufficientFunds"

    # -- pool
    #: No ComputeProvider of that name, or it isn't ready.
    PROVIDER_NOT_READY = "ProviderNotReady"
    #: The provider is registered and ready.
    PROVIDER_IS_READY = "ProviderIsReady"
    #: Another, older pool of this owner has the same display name.
    NAME_CONFLICT = "NameConflict"
    #: The pool is stopped (desiredState: Stopped); its nodes go, the pool stays.
    POOL_STOPPED = "PoolStopped"

    # -- deployment: what it waits for
    #: No pool of that name.
    POOL_MISSING = "PoolMissing"
    #: The pool this deployment was bound to is gone (a new one of that name doesn't revive it).
    POOL_GONE = "PoolGone"
    #: The pool isn't ready.
    POOL_NOT_READY = "PoolNotReady"
    #: No offer is acceptable; `status.waiting.refused` says why, offer by offer.
    NO_OFFER = "NoOffer"
    #: One of the pool's limits is reached.
    LIMIT_REACHED = "LimitReached"
    #: The provider fails; it is left alone until the time given.
    PROVIDER_BACKOFF = "ProviderBackoff"
    #: At least one node is being obtained.
    PROVISIONING = "Provisioning"
    #: Instances exist; the endpoint does not answer yet.
    DEPLOYING = "Deploying"
    #: All wanted replicas answer.
    ALL_ANSWER = "AllReplicasAnswer"
    #: Some wanted replicas answer.
    SOME_ANSWER = "SomeReplicasAnswer"
    #: No replica answers.
    NONE_ANSWERS = "NoReplicaAnswers"
    #: Replacing a replica.
    REPLACING = "Replacing"
    #: Rolling out a new workload.
    ROLLING_OUT = "RollingOut"

    # -- deployment: how it ended
    #: It did what it was for and ended (Training with exit 0, or a beat `completed`).
    COMPLETED = "Completed"
    #: The user asked for it.
    TERMINATED = "Terminated"
    #: Its instance was ended at the provider.
    ENDED_BY_PROVIDER = "EndedByProvider"
    #: `maxRuntimeSeconds` is over.
    MAX_RUNTIME = "MaxRuntimeExceeded"
    #: The pool's `limits.maxTotalCost` is spent.
    BUDGET_SPENT = "BudgetSpent"
    #: The workload crashed, or said that it failed.
    CRASHED = "Crashed"
    #: `backoffLimit` replacements in a row never served.
    BACKOFF_LIMIT = "BackoffLimitExceeded"
    #: `pendingTimeoutSeconds` is over and nothing was to be had.
    PENDING_TIMEOUT = "PendingTimeout"
    #: It didn't answer within `readinessTimeoutSeconds`.
    READINESS_TIMEOUT = "ReadinessTimeout"

    # -- node
    #: Intent is recorded, nothing is bought yet.
    INTENDED = "Intended"
    #: The provider is asked whether this node's instance exists already.
    LOOKING_UP = "LookingUp"
    #: The instance exists and its handle is recorded.
    LAUNCHED = "Launched"
    #: The provider has no room for this just now.
    NO_CAPACITY = "NoCapacity"
    #: The provider refused the request for good.
    REFUSED = "Refused"
    #: The final price is above the node's cap; nothing was bought.
    ABOVE_PRICE_CAP = "AbovePriceCap"
    #: A call's outcome is unknown: nothing is bought again until look-ups settle it.
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    #: The probe was answered.
    ANSWERED = "Answered"
    #: The probe wasn't answered yet.
    NOT_ANSWERING = "NotAnswering"
    #: The instance is lost or was preempted.
    LOST = "Lost"
    #: The node missed heartbeats, and the provider or the probe agrees.
    BEATS_MISSED = "BeatsMissed"
    #: The instance is proven gone: it can't bill again.
    GONE = "Gone"
    #: A stop was asked for and isn't proven yet.
    STOPPING = "Stopping"
    #: The provider didn't carry out or confirm the stop.
    STOP_REFUSED = "StopRefused"
    #: The node's account isn't the one that the credential opens.
    WRONG_ACCOUNT = "WrongAccount"


# The bounds and patterns of `metav1.Condition`, which checkers of CRDs compare with.
_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)
_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


class Condition(Model):
    """One condition, as `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316, pattern=_TYPE, description="What the condition is about.")]
    status: Annotated[Status, Field(description="Whether it holds: True, False or Unknown.")]
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, pattern=_REASON, description="Why, as one documented word.")
    ]
    message: Annotated[str, Field(max_length=32768, description="Why, for a person.")] = ""
    observed_generation: Annotated[
        int, Field(ge=0, le=2**53, description="The generation of the spec that this was said of.")
    ] = 0
    last_transition_time: Annotated[Time, Field(description="When the status last changed.")]


Conditions = Annotated[list[Condition], list_map("type", 16)]

_FIRST = (Type.READY, Type.AVAILABLE)


def with_condition(
    conditions: Sequence[Condition],
    type_: Type,
    status: Status | bool,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """The conditions with this one set: the transition time moves only with the status; Ready and Available come first."""
    wanted = status if isinstance(status, Status) else (Status.TRUE if status else Status.FALSE)
    old = next((c for c in conditions if c.type == type_), None)
    since = old.last_transition_time if old is not None and old.status == wanted else now
    new = Condition(
        type=type_,
        status=wanted,
        reason=reason,
        message=message[:4096],
        observed_generation=generation,
        last_transition_time=since,
    )
    rest = [c for c in conditions if c.type != type_]
    return sorted([*rest, new], key=lambda c: (_FIRST.index(Type(c.type)) if c.type in _FIRST else len(_FIRST), c.type))


def condition(conditions: Sequence[Condition], type_: Type) -> Condition | None:
    """The condition of that type, if it was ever set."""
    return next((c for c in conditions if c.type == type_), None)


def is_true(conditions: Sequence[Condition], type_: Type) -> bool:
    """Whether the condition is set and True."""
    found = condition(conditions, type_)
    return found is not None and found.status == Status.TRUE
