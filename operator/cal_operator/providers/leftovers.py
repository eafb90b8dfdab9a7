"""What a provider that is being deleted may still run for us. It is kept for as long as there is something, or as nobody can tell: without it
nothing could be stopped, and no sweep would look there any more."""

from __future__ import annotations

from cal_adapters.errors import AdapterError, CredentialsRefused
from cal_crds.meta import ANNOTATION_ABANDON, PROVIDER
from cal_crds.provider import ComputeProvider
from cal_operator.accounts import Account
from cal_operator.gate import CircuitOpen
from cal_operator.world import World


async def left_behind(world: World, provider: ComputeProvider) -> str | None:
    """Why a provider without nodes must stay, for people; None: let it go."""
    if not provider.status.offers:
        return None  # nothing was ever offered, so nothing was bought
    reasons = [
        why for account in await world.accounts.all_of(provider) if (why := await _why(world, provider, account))
    ]
    if reasons and provider.metadata.annotations.get(ANNOTATION_ABANDON):
        message = f"it goes, as its annotation says; what runs there may still bill: {'; '.join(reasons)}"
        await world.events.say(provider, PROVIDER.name, "Abandoned", message, warning=True)
        return None
    return "; ".join(reasons) or None


async def _why(world: World, provider: ComputeProvider, account: Account) -> str | None:
    try:
        running = await account.gate.call("list", account.adapter.list_marked)
    except AdapterError as error:
        cause = error.cause if isinstance(error, CircuitOpen) else error
        if isinstance(cause, CredentialsRefused):
            # Nobody can look or stop with such a key, now or later: to keep the object would help nobody.
            message = f"deleted unlooked at: its credential is refused, so nobody can tell whether something of ours runs there ({error.message})"
            await world.events.say(provider, PROVIDER.name, "Abandoned", message, warning=True)
            return None
        return f"it can't be told whether something runs there that no node knows: {error.message}"
    if not running:
        return None
    ids = ", ".join(instance.id for instance in running[:5])
    return f"{len(running)} instances run there that no node knows, and are being stopped: {ids}"
