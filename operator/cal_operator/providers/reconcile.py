"""One pass over a provider: adapters, credentials, offers. Nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cal_adapters.contract import Traits
from cal_adapters.errors import AdapterError, CredentialsRefused
from cal_crds import money
from cal_crds.conditions import Reason, Status, Type, with_condition
from cal_crds.meta import FINALIZER, PROVIDER
from cal_crds.node import Offer
from cal_crds.provider import (
    ComputeProvider,
    CredentialStatus,
    CredentialValidity,
    ProviderDesiredState,
    ProviderStatus,
)
from cal_operator.accounts import Account, AccountMissing
from cal_operator.providers.guard import hold, let_go
from cal_operator.providers.leftovers import left_behind
from cal_operator.world import World

#: How soon a provider that can't be asked, or must not go yet, is looked at again, in seconds.
_SOON = 5.0


@dataclass(frozen=True)
class Findings:
    """What one round of asking the provider brought."""

    traits: Traits | None = None
    problem: tuple[Reason, str] | None = None
    credentials: Sequence[CredentialStatus] = ()
    offers: Sequence[Offer] | None = None
    error: AdapterError | None = None
    balance: str | None = None
    anonymous: bool = False


async def reconcile(world: World, uid: str) -> float | None:
    """Refresh one provider; the seconds until the next refresh."""
    provider: ComputeProvider | None = world.store.providers.get(uid)
    if provider is None:
        return None
    deleting = provider.metadata.deletion_timestamp is not None
    nodes = sum(fact.provider == provider.metadata.name and not fact.gone for fact in world.store.facts())
    stays = f"{nodes} nodes are not proven gone yet" if nodes else None
    if deleting and not nodes:
        stays = await left_behind(world, provider)
    if stays:
        for credential in provider.spec.credentials:
            await hold(world, provider, credential.name, sure=True)
    else:
        await let_go(world, provider)
    if deleting and not stays:
        await world.accounts.close(provider.metadata.name)
        others = [name for name in provider.metadata.finalizers if name != FINALIZER]
        await world.set_finalizers(PROVIDER, provider, others)
        return None
    if not deleting and FINALIZER not in provider.metadata.finalizers:
        await world.set_finalizers(PROVIDER, provider, [*provider.metadata.finalizers, FINALIZER])
        return 0.0
    found = await ask(world, provider)
    if found.offers is not None:
        for key in [key for key in world.taken if key[0] == provider.metadata.name]:
            del world.taken[key]
    await world.write_status(PROVIDER, provider, provider.status, report(provider, found, stays, world.clock.now()))
    return found.traits.offers_seconds if found.traits and not (deleting and not nodes) else _SOON


async def ask(world: World, provider: ComputeProvider) -> Findings:
    """Open every account, check its credential, and read the offers through the default one."""
    names: list[str | None] = [credential.name for credential in provider.spec.credentials] or [None]
    statuses: list[CredentialStatus] = []
    problem: tuple[Reason, str] | None = None
    for name in names:
        try:
            account = await world.accounts.open(provider, name)
        except AccountMissing as missing:
            problem = problem or (missing.reason, missing.message)
            if name is not None:
                statuses.append(
                    CredentialStatus(name=name, validity=CredentialValidity.UNKNOWN, message=missing.message)
                )
            continue
        status = await _check(account)
        if name is not None:
            statuses.append(status)
    try:
        default = await world.accounts.get(provider, None)
    except AccountMissing as missing:
        return Findings(problem=problem or (missing.reason, missing.message), credentials=statuses)
    return await _ask_offers(default, problem, statuses)


async def _ask_offers(
    account: Account, problem: tuple[Reason, str] | None, statuses: Sequence[CredentialStatus]
) -> Findings:
    traits = account.adapter.traits
    balance = account.opened.balance if account.opened else None
    try:
        offers, error = list(await account.gate.call("offers", account.adapter.offers))[:500], None
    except AdapterError as failed:
        offers, error = None, failed
    return Findings(
        traits=traits,
        problem=problem,
        credentials=statuses,
        offers=offers,
        error=error,
        balance=None if balance is None else money.render(balance),
        anonymous=account.anonymous and traits.needs_credentials,
    )


async def _check(account: Account) -> CredentialStatus:
    """Whether the provider accepts the account's credential."""
    name = account.credential or "none"
    if account.anonymous and account.adapter.traits.needs_credentials:
        return CredentialStatus(name=name, validity=CredentialValidity.UNKNOWN)
    try:
        opened = await account.check()
    except CredentialsRefused as error:
        return CredentialStatus(name=name, validity=CredentialValidity.INVALID, message=error.message)
    except AdapterError as error:
        # No answer unsays nothing: what the provider said last still stands.
        if account.refused is not None:
            return CredentialStatus(name=name, validity=CredentialValidity.INVALID, message=account.refused.message)
        if account.opened is None:
            return CredentialStatus(name=name, validity=CredentialValidity.UNKNOWN, message=error.message)
        opened = account.opened
    balance = None if opened.balance is None else money.render(opened.balance)
    return CredentialStatus(name=name, validity=CredentialValidity.VALID, account=opened.id, balance=balance)


def report(provider: ComputeProvider, found: Findings, stays: str | None, now: datetime) -> ProviderStatus:
    """The whole status; `stays` says why it can't go yet. Offers that can't be refreshed stay as they were, with the error
    beside them. Pure."""
    old = provider.status
    changed = found.offers is not None and list(found.offers) != old.offers
    status = old.model_copy(
        update={
            "observed_generation": provider.metadata.generation,
            "capabilities": found.traits.capabilities if found.traits else old.capabilities,
            "offers": list(found.offers) if found.offers is not None else old.offers,
            "offers_time": now.replace(microsecond=0) if changed else old.offers_time,
            "offers_error": found.error.message if found.error else None,
            "balance": found.balance,
            "credentials": list(found.credentials),
        }
    )
    conditions = list(old.conditions)
    for type_, holds, reason, message in _conditions(provider, found, stays):
        conditions = with_condition(
            conditions, type_, holds, reason, message, generation=provider.metadata.generation, now=now
        )
    if (funds := _funds(found.credentials)) is not None:
        generation = provider.metadata.generation
        conditions = with_condition(conditions, Type.FUNDED, *funds, generation=generation, now=now)
    return status.model_copy(update={"conditions": conditions})


def _funds(credentials: Sequence[CredentialStatus]) -> tuple[bool, Reason, str] | None:
    """Whether every account can pay; None where none tells what is left."""
    told = [status for status in credentials if status.balance is not None]
    empty = [status for status in told if money.parse(status.balance or "0") <= 0]
    if empty:
        words = [
            f"{status.name}: {status.balance} US dollars left: nothing is bought until it is topped up"
            for status in empty
        ]
        return False, Reason.INSUFFICIENT_FUNDS, "; ".join(words)
    return (True, Reason.FUNDS_LEFT, "") if told else None


def _why_ready(provider: ComputeProvider) -> tuple[Reason, str]:
    if provider.spec.desired_state is ProviderDesiredState.PAUSED:
        return Reason.PAUSED, "paused as wanted: it buys nothing, and still stops"
    return Reason.AS_WANTED, ""


def _why_not_ready(
    provider: ComputeProvider, valid: tuple[bool | Status, Reason, str], reach_message: str, stays: str | None
) -> tuple[Reason, str]:
    if provider.metadata.deletion_timestamp is not None:
        return Reason.DELETING, f"{stays or 'nothing runs there'}: until then it stays, and its Secrets do"
    return valid[1:] if valid[0] is not True else (Reason.UNREACHABLE, reach_message)


def _validity(found: Findings) -> tuple[bool | Status, Reason, str]:
    """Whether the provider accepts every credential."""
    if found.problem is not None:
        return False, *found.problem
    if bad := _of(found, CredentialValidity.INVALID):
        return False, Reason.CREDENTIALS_REFUSED, bad
    if found.anonymous:
        return (
            False,
            Reason.NO_CREDENTIALS,
            "no credential is configured: pools are accepted, their deployments wait",
        )
    if unsure := _of(found, CredentialValidity.UNKNOWN):
        return Status.UNKNOWN, Reason.UNREACHABLE, unsure
    return True, Reason.CREDENTIALS_ACCEPTED, ""


def _of(found: Findings, validity: CredentialValidity) -> str:
    """What is said of the credentials of one kind."""
    return "; ".join(f"{status.name}: {status.message}" for status in found.credentials if status.validity is validity)


def _conditions(
    provider: ComputeProvider, found: Findings, stays: str | None
) -> list[tuple[Type, bool | Status, Reason, str]]:
    valid = _validity(found)
    unknown = found.problem is not None and found.problem[0] is Reason.UNKNOWN_ADAPTER
    reached = found.traits is not None and found.error is None
    reach_message = found.error.message if found.error else (found.problem[1] if found.problem else "")
    ready = valid[0] is True and reached and provider.metadata.deletion_timestamp is None
    why = _why_ready(provider) if ready else _why_not_ready(provider, valid, reach_message, stays)
    return [
        (Type.READY, ready, *why),
        (Type.CREDENTIALS_VALID, *valid),
        (Type.REACHABLE, reached, Reason.REACHED if reached else Reason.UNREACHABLE, reach_message),
        (
            Type.RECONCILING,
            not ready and not unknown,
            Reason.IN_PROGRESS if not ready else Reason.AS_WANTED,
            "" if ready or unknown else why[1],
        ),
        (
            Type.STALLED,
            unknown,
            found.problem[0] if unknown and found.problem else Reason.AS_WANTED,
            reach_message if unknown else "",
        ),
    ]
