"""What a provider that is being deleted may still run for us. It is kept for as long as there is something, or as nobody can tell: without it
nothing could be stopped, and no sweep would look there any more."""

from __future__ import annotations

from cal_adapters.errors import AdapterError, CredentialsRefused
from cal_crds.meta import ANNOTATION_ABANDON, PROVIDER
from cal_crds.provider import ComputeProvider
from cal_operator.accounts import Account, AccountMissing
from cal_operator.gate import CircuitOpen
from cal_operator.known import read
from cal_operator.world import World


async def left_behind(world: World, provider: ComputeProvider) -> str | None:
    """Why a provider without nodes must stay, for people; None: let it go."""
    if provider.status.offers_time is None:
        return None  # nothing was ever offered, so nothing was bought; that nothing is offered now says nothing
    accounts = (await world.accounts.all_of(provider)).values()
    reasons = [why for account in accounts if (why := await _why(world, provider, account))]
    if reasons and provider.metadata.annotations.get(ANNOTATION_ABANDON):
        message = f"it goes, as its annotation says; what runs there may still bill: {'; '.join(reasons)}"
        await world.events.say(provider, PROVIDER.name, "Abandoned", message, warning=True)
        return None
    return "; ".join(reasons) or None


async def _why(world: World, provider: ComputeProvider, account: Account | AccountMissing) -> str | None:
    if isinstance(account, AccountMissing):
        await _unlooked_at(world, provider, account.message)
        return None
    try:
        running = await account.gate.call("list", account.adapter.list_marked)
    except AdapterError as error:
        cause = error.cause if isinstance(error, CircuitOpen) else error
        if isinstance(cause, CredentialsRefused):
            await _unlooked_at(world, provider, f"its credential is refused ({error.message})")
            return None
        return f"it can't be told whether something runs there that no node knows: {error.message}"
    known = await read(world.cluster) if running else None
    # Another provider may lead to the same account: what its nodes know is stopped through that one.
    ids = [instance.id for instance in running if known is None or not known.has(instance)]
    if not ids:
        return None
    return f"{len(ids)} instances run there that no node knows, and are being stopped: {', '.join(ids[:5])}"


async def _unlooked_at(world: World, provider: ComputeProvider, why: str) -> None:
    """Nobody can look or stop without a key, now or later: to keep the object would help nobody. An Event says so."""
    message = f"deleted unlooked at: nobody can tell whether something of ours runs there: {why}"
    await world.events.say(provider, PROVIDER.name, "Abandoned", message, warning=True)
