"""From an open deployment to a lease: bids have their time, the cheapest acceptable one is taken, or the deployment is closed again.

Every step may be repeated, by this process or another, at any moment: an order has one lease, taking a bid where there is a lease already
only hands over the manifest again, and a closed deployment takes no bid. So nothing here has to be remembered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from cal_adapters.akash import states, translate
from cal_adapters.akash.account import Holdings
from cal_adapters.akash.client import Console
from cal_adapters.akash.manifest import manifest_hash, manifest_text
from cal_adapters.akash.outcome import quoted
from cal_adapters.akash.sdl import build, gpu_of
from cal_adapters.akash.translate import Wish
from cal_adapters.akash.wire import Bid, Deployment, Lease, LeaseId
from cal_adapters.contract import LaunchRequest, Observation, State
from cal_adapters.errors import NoCapacity, NothingBought, OutcomeUnknown, PriceAboveCap, Refused
from cal_crds.base import rfc3339

#: Bids are waited for this many times as long as `bidWaitSeconds` before the deployment is given up.
PATIENCE: Final = 3
#: How often a provider that says nothing of its lease is handed the manifest again.
_RESEND: Final = timedelta(seconds=30)
#: A bid is taken with a block, and then the provider is handed the manifest: this may take longer than anybody should wait here.
_PATIENT_SECONDS: Final = 7.0
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """What is needed to go on with a purchase: what bids must meet, and the manifest that goes with the lease."""

    wish: Wish
    manifest: str = field(repr=False)

    @property
    def hash(self) -> str:
        return manifest_hash(self.manifest)


def wish_of(request: LaunchRequest) -> Wish:
    """What a bid has to meet."""
    return Wish(request.max_price_per_hour, request.gpu_count, gpu_of(request.offer) if request.gpu_count else None)


def order_of(request: LaunchRequest) -> Order:
    """The order, out of the node's frozen request: the manifest doesn't depend on prices."""
    return Order(wish_of(request), manifest_text(build(request, translate.UACT, "1")))


#: What came of a step: how things stand, or why nothing was bought after all (the deployment is closed, for certain).
Step = Observation | NothingBought


class Bidding:
    """The steps of one account's purchases. `wait` is how long bids are collected."""

    def __init__(self, console: Console, holdings: Holdings, wait: timedelta) -> None:
        self._console, self._holdings, self._wait = console, holdings, wait
        self._handed: dict[str, datetime] = {}

    async def step(self, handle: str, shown: Deployment, order: Order | None) -> Step:
        """The next step of a deployment without a lease. Without the order nothing is done to it."""
        state, digest = shown.deployment.state, shown.deployment.hash
        if state == "closed":
            return NoCapacity(
                "the deployment was closed before it had a lease: no bid was taken in time, or somebody closed it"
            )
        if state != "active":
            return so_far(shown, State.UNKNOWN, f"Akash says that the deployment is {quoted(state)!r}")
        if order is None:
            return so_far(shown, State.STARTING, "the deployment is open for bids; none has been taken yet")
        if digest == translate.UNKNOWN_VALUE:
            return so_far(
                shown, State.STARTING, "Akash answers without the chain: the deployment can't be verified just now"
            )
        if digest != order.hash:
            return await self._close(
                handle,
                shown,
                so_far(shown, State.LOST, "the deployment's hash isn't that of our manifest; it is closed"),
            )
        opened = translate.created(shown.deployment.id.dseq)
        if self._console.now() < opened + self._wait:
            return so_far(shown, State.STARTING, f"collecting bids until {rfc3339(opened + self._wait)}")
        return await self._choose(handle, shown, order, opened)

    async def hand_over(self, handle: str, shown: Deployment, lease: Lease, order: Order) -> None:
        """Hands a silent provider the manifest again: the first time may have failed after the lease was made."""
        now = self._console.now()
        if order.hash == shown.deployment.hash and now - self._handed.get(handle, _NEVER) >= _RESEND:
            self._handed[handle] = now
            await self._lease(order, lease.id)

    def forget(self, handle: str) -> None:
        """What is kept for pacing."""
        self._handed.pop(handle, None)

    async def _choose(self, handle: str, shown: Deployment, order: Order, opened: datetime) -> Step:
        dseq = shown.deployment.id.dseq
        bids = [bid for bid in await self._console.bids(dseq) if bid.id.dseq == dseq]
        if taken := next((bid for bid in bids if bid.state == "active"), None):
            # The node that showed no lease lags behind the one that listed the bids: what is bought is not given up.
            return so_far(
                shown, State.STARTING, f"the bid of {quoted(taken.id.provider)} is taken; its lease isn't shown yet"
            )
        rates = await self._holdings.rates(*(bid.price.denom for bid in bids))
        chosen, why = translate.cheapest(bids, order.wish, rates)
        if chosen is not None:
            return await self._take(handle, shown, order, chosen)
        if self._console.now() < opened + self._wait * PATIENCE:
            return so_far(shown, State.STARTING, f"no acceptable bid yet: {why}")
        why = f"no acceptable bid within {(self._wait * PATIENCE).total_seconds():.0f} s: {why}"
        dear = any(_above(rates.per_hour(bid.price), order.wish.cap) for bid in bids)
        return await self._close(handle, shown, PriceAboveCap(why) if dear else NoCapacity(why))

    async def _take(self, handle: str, shown: Deployment, order: Order, bid: Bid) -> Observation:
        self._handed[handle] = self._console.now()
        try:
            leased = await self._lease(order, bid.id)
        except Refused as error:
            # Somebody was faster, or the bid was withdrawn: the next look tells.
            return so_far(shown, State.STARTING, error.message)
        if leased is None:
            return so_far(shown, State.STARTING, f"taking the bid of {bid.id.provider}")
        lease = states.current(leased)
        if lease is None or translate.handle(leased.deployment.id.owner, leased.deployment.id.dseq) != handle:
            raise OutcomeUnknown(f"Akash took a bid on the deployment {bid.id.dseq}, but doesn't show its lease")
        rates = await self._holdings.rates_if_known(lease.price.denom)
        return starting(states.observed(leased, lease, rates))

    async def _lease(self, order: Order, bid: LeaseId) -> Deployment | None:
        """Takes a bid, or hands over the manifest again. None if it takes its time: then the next look tells what came of it."""
        try:
            async with asyncio.timeout(_PATIENT_SECONDS):
                return await self._console.lease(order.manifest, bid)
        except TimeoutError:
            return None

    async def _close(self, handle: str, shown: Deployment, verdict: Step) -> Step:
        """The verdict, once the deployment is closed beyond doubt."""
        await self._console.end(shown.deployment.id.dseq)
        if (await self._holdings.show(handle)).deployment.state == "closed":
            return verdict
        return so_far(shown, State.STARTING, f"being closed: {verdict.message}")


def so_far(shown: Deployment, state: State, message: str) -> Observation:
    """How a deployment without a lease stands."""
    dseq = shown.deployment.id.dseq
    return Observation(state=state, message=message, id=dseq, started=translate.created(dseq))


def starting(seen: Observation) -> Observation:
    """As seen of a lease whose workload was never up: a silent provider only means that it isn't up yet."""
    if seen.state is not State.UNKNOWN:
        return seen
    return replace(
        seen, state=State.STARTING, message="the bid is taken; its provider has not told of the workload yet"
    )


def _above(price: Decimal | None, cap: Decimal | None) -> bool:
    return price is not None and cap is not None and price > cap
