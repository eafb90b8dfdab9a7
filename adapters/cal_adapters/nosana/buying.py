"""The steps of a purchase: what it costs now, which deployment of the mark it is, and its start.

Making a deployment leaves a DRAFT, which costs nothing; starting it is the purchase. So a launch first makes its DRAFT, then looks whether
another launch with this mark was earlier, and starts only one of them, the same for all: two launches at once buy one instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from cal_adapters.contract import LaunchRequest, Mark
from cal_adapters.errors import (
    InstanceNotFound,
    InsufficientFunds,
    NothingBought,
    OutcomeUnknown,
    PriceAboveCap,
    Refused,
)
from cal_adapters.nosana import translate
from cal_adapters.nosana.answers import Deployment
from cal_adapters.nosana.client import Client


async def named(client: Client, mark: Mark) -> list[Deployment]:
    """The mark's deployments, oldest first, archived ones too."""
    name = str(mark)
    # The filter is the provider's promise; the name is the proof.
    found = [item async for item in client.deployments(name=name) if item.name == name]
    return sorted(found, key=lambda item: (item.created_at, item.id))


async def price_within(client: Client, address: str, cap: Decimal | None) -> Decimal:
    """The market's price of this moment, which is what the job will cost."""
    try:
        price = translate.price_of(await client.market(address))
    except InstanceNotFound as error:
        raise Refused(f"Nosana has no market {address}") from error
    if price is None:
        raise Refused(f"Nosana's market {address} has no price")
    if cap is not None and price > cap:
        raise PriceAboveCap(f"Nosana's market {address} now costs {price:f} US dollars per hour, above the cap {cap:f}")
    return price


async def check_funds(client: Client) -> None:
    """Without credits Nosana takes the order all the same, and lets it wait. An offer that isn't paid for is of no use."""
    try:
        available = (await client.balance()).available
    except OutcomeUnknown:
        return
    if available <= 0:
        raise InsufficientFunds(f"the Nosana account has {available:f} US dollars of credits left")


async def draft(client: Client, request: LaunchRequest, body: dict[str, object]) -> Deployment:
    """The mark's deployment: an earlier one, or a new DRAFT."""
    earlier = await named(client, request.mark)
    if earlier:
        return chosen(earlier)
    secrets = [value.value for value in request.env if value.secret] + [login.password for login in request.logins]
    made = await client.create(body, secrets)
    if made.name != str(request.mark):
        raise OutcomeUnknown(f"Nosana made deployment {made.id}, but under another name")
    try:
        together = await named(client, request.mark)
    except NothingBought as error:
        raise OutcomeUnknown(f"deployment {made.id} was made, then: {error.message}") from error
    return chosen([*together, made])


async def start(client: Client, deployment: Deployment) -> None:
    """Starts a DRAFT. Errors that say "nothing bought" are true here: a DRAFT costs nothing, and a next launch finds it."""
    if deployment.status != "DRAFT" or deployment.replicas == 0:
        return
    try:
        await client.start(deployment.id)
    except OutcomeUnknown:
        # Started by somebody else, or without an answer. Which instance it is, is certain: observe tells the rest.
        return


def chosen(found: Sequence[Deployment]) -> Deployment:
    """The one deployment of a mark that is, or may be, started. Refused if it was started once and is gone."""
    # One that was started comes first: an older DRAFT may have become visible only after it.
    first = min(found, key=lambda item: (item.status == "DRAFT", item.created_at, item.id))
    if not translate.may_bill(first):
        # A call that comes late, after the instance was stopped, must not buy it again.
        raise Refused(f"{first.name} was bought before and is gone")
    return first
