"""The contract between the operator and a provider. Everything that the core knows of a provider stands here; rely on nothing else.

Rules, numbered as the contract suite numbers them:

 1. Every verb returns at once (one or a few requests); waiting is the operator's. Nothing blocks the event loop.
 2. Every verb is idempotent.
 3. `launch` carries the caller's mark to the provider, and returns only an instance that bears it. Called twice with one mark it
    yields one instance, wherever the provider or a look-up can make it so; where neither can, the operator's rules do.
 4. `launch` never buys above `max_price_per_hour`, also when the final price differs from the offer.
 5. `find` and `list_marked` say what exists *now or still bills*, paged to the very end. They raise rather than guess: an empty
    answer means that the provider, asked with working credentials, knows no such instance.
 6. `observe` returns a closed state, never the provider's word (that goes in the message); an unknown word is UNKNOWN.
 7. `observe` and `stop` raise InstanceNotFound only for the provider's own "doesn't exist", given to credentials that work.
 8. `stop` makes an instance end and says whether it is *proven gone*: that it can't bill again, by itself or by a late call of ours.
    Stopping what is gone is `GONE`, not an error. A stop that can't be carried out yet is `STOPPING`; the operator asks again.
 9. Errors come from `errors.py` and from nothing else; a spending call whose outcome isn't certain raises OutcomeUnknown.
10. Nothing is read from the environment; nothing happens at import; a secret is never in a message, a log line or a repr.
11. An adapter holds no state that a restart would lose.
12. `offers` may be asked without credentials where the provider publishes its prices; else it raises CredentialsRefused.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import Capabilities, ProviderSpec
from cal_crds.workload import ServedModel, Workload

_MARK = re.compile(r"cal-([0-9a-f]{10})-([a-z0-9]{8,40})")


@dataclass(frozen=True)
class Mark:
    """What an instance bears at its provider: which installation bought it, for which node.

    `installation` is 10 hex digits, `token` lower-case letters and digits. As text: `cal-<installation>-<token>`, a DNS label.
    """

    installation: str
    token: str

    def __str__(self) -> str:
        return f"cal-{self.installation}-{self.token}"

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """The mark in a name, or None if it bears none of ours."""
        found = _MARK.fullmatch(text)
        return cls(found[1], found[2]) if found else None


@dataclass(frozen=True)
class Credentials:
    """The decoded data of a credential's Secret. Never printed."""

    name: str
    data: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Context:
    """What an adapter is made from: one per ComputeProvider and credential (None where none is configured)."""

    provider: str
    settings: ProviderSpec
    installation: str
    credentials: Credentials | None = None
    #: A folder that local adapters may use; it survives restarts.
    state_dir: Path | None = None
    #: The kubeconfig of the operator itself, None in a cluster. Only adapters whose instances are Kubernetes objects look at it.
    kubeconfig: str | None = None
    #: The operator's own namespace, where no instance may be put.
    system_namespace: str = "cal-system"


@dataclass(frozen=True)
class EnvValue:
    """An environment variable, resolved. A `secret` one is put where the provider keeps secrets, if it has such a place."""

    name: str
    value: str = field(repr=False)
    secret: bool = False


@dataclass(frozen=True)
class RegistryLogin:
    """A login for pulling an image, out of a dockerconfigjson Secret."""

    server: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class LaunchRequest:
    """One purchase: all that the adapter needs, with nothing left to look up."""

    mark: Mark
    #: The ComputeNode's name and namespace, and the uids of its deployment and pool: for labels.
    node: str
    namespace: str
    deployment_uid: str
    pool_uid: str
    offer: Offer
    #: Where at the provider (a market, a namespace), as the pool says; None: the offer or the provider's settings tell.
    provider_pool_id: str | None
    tenancy: Tenancy
    gpu_count: int
    #: Nothing dearer is bought; None: no cap.
    max_price_per_hour: Decimal | None
    model: ServedModel
    #: `env` of this workload is not looked at: `env` below has the resolved values.
    workload: Workload
    env: Sequence[EnvValue] = ()
    logins: Sequence[RegistryLogin] = ()


class State(StrEnum):
    """What an instance does, in the contract's own words."""

    #: Bought, not running yet: queued, scheduled, pulling its image, restarting.
    STARTING = "Starting"
    RUNNING = "Running"
    #: It ended by itself with success (exit 0).
    SUCCEEDED = "Succeeded"
    #: It ended by itself without success: a crash, a command that doesn't exist, an image that can't be pulled.
    FAILED = "Failed"
    #: Somebody ended it at the provider, or its paid time is over.
    TERMINATED = "Terminated"
    #: The machine under it is lost, or it was preempted.
    LOST = "Lost"
    #: The provider uses a word that we don't know; nothing may follow from it.
    UNKNOWN = "Unknown"


#: States from which an instance doesn't come back by itself.
ENDED_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.TERMINATED, State.LOST})


class Readiness(StrEnum):
    """Whether the endpoint answers, as far as the adapter can tell."""

    YES = "Yes"
    NO = "No"
    #: The adapter can't tell: the operator probes the endpoint itself.
    PROBE = "Probe"


@dataclass(frozen=True)
class Instance:
    """A paid thing at the provider."""

    #: What it is stopped by; opaque to the core, at most 512 characters.
    handle: str
    #: What clients see as provider_instance_id, at most 256 characters.
    id: str
    mark: Mark | None
    account: str | None
    #: The final price. None where the provider doesn't tell: then the offer's counts.
    price_per_hour: Decimal | None = None
    started: datetime | None = None


@dataclass(frozen=True)
class Observation:
    """What the provider says of an instance just now."""

    state: State
    #: For people: the provider's own word, and why it waits or failed.
    message: str = ""
    #: May change over the instance's life (a job that rolls over); the handle doesn't.
    id: str | None = None
    #: URL of the workload's first port, when there is one.
    endpoint: str | None = None
    readiness: Readiness = Readiness.PROBE
    exit_code: int | None = None
    started: datetime | None = None
    price_per_hour: Decimal | None = None
    #: The provider's name of the machine.
    node_address: str | None = None


class Stop(StrEnum):
    """Where a stop stands."""

    #: Proven: it can't bill again.
    GONE = "Gone"
    #: Asked for, or not possible yet; ask again.
    STOPPING = "Stopping"


@dataclass(frozen=True)
class Account:
    """What a credential opens."""

    #: Identifier of the account that pays; None where the provider has no such thing.
    id: str | None = None
    #: US dollars left; None where the provider doesn't tell.
    balance: Decimal | None = None


@dataclass(frozen=True)
class Traits:
    """What the core may know about an adapter, so that it never asks for its name. Times in seconds."""

    capabilities: Capabilities
    #: How long the provider's lists and look-ups may lag behind an accepted launch.
    settle_seconds: float = 0.0
    #: Upper bound of one `launch` call as a whole.
    launch_timeout_seconds: float = 10.0
    #: Upper bound of any other call.
    call_timeout_seconds: float = 30.0
    #: How often a running instance is observed; while starting or stopping it is looked at more often (`poll_seconds`).
    observe_seconds: float = 20.0
    poll_seconds: float = 2.0
    #: How often offers are refreshed.
    offers_seconds: float = 60.0
    #: Calls at once, and calls a second.
    concurrency: int = 8
    calls_per_second: float = 20.0
    #: Whether anything can be bought without a credential.
    needs_credentials: bool = True


class Adapter(Protocol):
    """One provider account. Made by `create(context)` of its sub-package; `traits` may be read without any call."""

    @property
    def traits(self) -> Traits: ...

    async def check(self) -> Account:
        """Whether the credentials work, and which account they open. CredentialsRefused if they don't."""
        ...

    async def offers(self) -> Sequence[Offer]:
        """What can be had just now (at most 500, cheapest first). `Offer.attributes` named `pool` (comma-separated) names the
        provider pool ids that lead to an offer; an offer without it is to be had through any pool."""
        ...

    async def find(self, mark: Mark) -> Sequence[Instance]:
        """All instances that bear the mark and may still bill; usually none or one. See rule 5."""
        ...

    async def launch(self, request: LaunchRequest) -> Instance:
        """Buy. The price cap holds (rule 4). NothingBought and its kin if certainly nothing was; else OutcomeUnknown."""
        ...

    async def observe(self, handle: str) -> Observation:
        """What it does. InstanceNotFound as rule 7 says."""
        ...

    async def stop(self, handle: str) -> Stop:
        """End it. See rule 8."""
        ...

    async def list_marked(self) -> Sequence[Instance]:
        """Every instance of this account that bears a mark of `context.installation` and may still bill. See rule 5."""
        ...

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        """The last `tail` lines, oldest first, without line ends; also of an ended instance, while the provider keeps them."""
        ...

    async def close(self) -> None:
        """Let go of connections. Instances are not touched."""
        ...


@runtime_checkable
class FollowsLogs(Protocol):
    """An adapter whose running instances' logs can be followed (capability LogStreaming)."""

    def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        """The last `tail` lines, then each further one as it comes; ends when the instance has ended and all was said."""
        ...


@runtime_checkable
class ConfirmsIds(Protocol):
    """An adapter whose instances may change their id (a job that rolls over)."""

    async def confirm(self, handle: str, instance_id: str) -> bool:
        """Whether `instance_id`, which a heartbeat claims, belongs to this instance."""
        ...


@runtime_checkable
class LaunchesInSteps(Protocol):
    """An adapter whose `launch` only opens a purchase (an order that collects bids): further steps follow before anything runs."""

    async def advance(self, handle: str, request: LaunchRequest) -> Observation:
        """Take the next step if it is due, and observe. To be called in place of `observe` until the instance has been RUNNING.

        `request` is the one that it was launched with, made anew from what was recorded before the launch: a new process goes on
        where another one stopped. A step may spend, so what holds for `launch` before it is called holds here, and rule 4 too.
        Repeated or raced it does no more than once; after `stop` it does nothing. Raises what `observe` raises; and NoCapacity or
        PriceAboveCap, with the reason, once a purchase that can't succeed (no acceptable bid in time) is undone and proven gone:
        `observe` says the same as FAILED.
        """
        ...


class Factory(Protocol):
    """`create` of an adapter's sub-package. Makes no call and doesn't raise: for settings that can't be carried out it gives an
    adapter whose verbs raise Refused with the reason (`unusable.py`)."""

    def __call__(self, context: Context) -> Adapter: ...
