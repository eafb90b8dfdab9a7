"""Akash: a market where providers bid for deployments, through the Console API and its managed wallet.

An *instance* is a deployment with one group. Akash sells in steps: a deployment opens an order, providers bid on it for some seconds,
the owner takes a bid, which makes the *lease* that bills, and hands the provider the manifest. `launch` opens the deployment; the later
steps are taken by `advance` (or by `observe` in the process that launched), each of them idempotent and harmless when raced: one order
has one lease, and on a closed deployment nothing can be leased. So *gone* is: the deployment is closed.
API: https://akash.network/docs/api-documentation/console-api/ (v1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from cal_adapters.akash import logs as gateway
from cal_adapters.akash import manifest, sdl, translate
from cal_adapters.akash.account import Holdings, checked_denom
from cal_adapters.akash.client import Console
from cal_adapters.akash.outcome import quoted
from cal_adapters.akash.translate import Wish
from cal_adapters.akash.wire import Created, Deployment, Lease
from cal_adapters.contract import (
    Account,
    Context,
    Instance,
    LaunchRequest,
    Mark,
    Observation,
    State,
    Stop,
    Traits,
)
from cal_adapters.errors import InstanceNotFound, NotSent, OutcomeUnknown, PriceAboveCap, Refused
from cal_crds.base import rfc3339
from cal_crds.node import Offer
from cal_crds.provider import AkashSettings, Capabilities, Support

TRAITS: Final = Traits(
    capabilities=Capabilities(
        adapter_type="depin",
        supports=[
            Support.LOG_STREAMING,
            Support.MULTI_GPU,
            Support.DIRECT_PROVISIONING,
            Support.EPHEMERAL,
            Support.READINESS_POLL,
        ],
        readiness_timeout_seconds=900,
        polling_interval_seconds=20,
        pricing_model="auction",
        features=["sdl_based", "auction_based_pricing", "blockchain_backed"],
        pool_type="job",
        provider_pool_id_pattern=r"^(akash-gpu-market)?$",
        provider_pool_id_hint="akash-gpu-market, or nothing: Akash has one market",
    ),
    # A create that timed out may still be waiting for its block; then the lists' node has to catch up.
    settle_seconds=90.0,
    launch_timeout_seconds=10.0,
    # Taking a bid waits for a block, and for the provider to accept the manifest.
    call_timeout_seconds=45.0,
    observe_seconds=30.0,
    poll_seconds=5.0,
    offers_seconds=120.0,
    concurrency=8,
    calls_per_second=10.0,
)
#: Bids are waited for this many times as long as `bidWaitSeconds` before the deployment is given up.
_PATIENCE: Final = 3
#: The price that is asked for where there is no cap: Akash wants one, and the cheapest bid is taken anyway.
_UNCAPPED_FACTOR: Final = 4
#: How often a provider that says nothing of a new lease is handed the manifest again.
_RESEND: Final = timedelta(seconds=30)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_REMEMBERED: Final = 1000


def create(context: Context) -> AkashAdapter:
    """The Akash adapter. Refused if the settings name a denomination that it doesn't know."""
    settings = context.settings.akash or AkashSettings()
    key = context.credentials.data.get("apiKey") if context.credentials else None
    return AkashAdapter(context, settings, Console(context.settings.endpoint, key))


@dataclass(frozen=True)
class Order:
    """What is needed to go on with a purchase: what bids must meet, and the manifest that goes with the lease."""

    wish: Wish
    manifest: str = field(repr=False)

    @property
    def hash(self) -> str:
        return manifest.manifest_hash(self.manifest)


class AkashAdapter:
    """One managed wallet. What it remembers saves requests: a new process learns it again, or is told by `advance`."""

    traits = TRAITS

    def __init__(self, context: Context, settings: AkashSettings, console: Console) -> None:
        self._context, self._settings, self._console = context, settings, console
        self._holdings = Holdings(console, checked_denom(settings.denom))
        self._orders: dict[str, Order] = {}
        self._launched: dict[Mark, Instance] = {}
        self._sent: dict[str, datetime] = {}
        self._given_up: dict[str, str] = {}
        self._locks: dict[Mark, asyncio.Lock] = {}

    async def check(self) -> Account:
        wallet = await self._holdings.wallet()
        return Account(id=wallet.address, balance=await self._holdings.balance())

    async def offers(self) -> Sequence[Offer]:
        return translate.offers((await self._console.gpu_prices()).models)

    async def find(self, mark: Mark) -> Sequence[Instance]:
        return [instance for instance in await self._marked() if instance.mark == mark]

    async def list_marked(self) -> Sequence[Instance]:
        ours = self._context.installation
        return [item for item in await self._marked() if item.mark is not None and item.mark.installation == ours]

    async def launch(self, request: LaunchRequest) -> Instance:
        """Opens the deployment. What bills comes with the lease; but from here on there is something to close."""
        lock = self._locks.setdefault(request.mark, asyncio.Lock())
        try:
            async with lock:
                return await self._adopted(request.mark) or await self._bought(request)
        finally:
            if not lock.locked():
                self._locks.pop(request.mark, None)

    async def observe(self, handle: str) -> Observation:
        """Takes the next step only in the process that launched, which knows the order; otherwise it only looks."""
        return await self._look(handle, self._orders.get(handle))

    async def advance(self, handle: str, request: LaunchRequest) -> Observation:
        """Takes the next step of a purchase if it is due: the cheapest acceptable bid once bids had their time, or giving up."""
        order = self._orders.get(handle)
        if order is None:
            order = _order(request)
        return await self._look(handle, order)

    async def stop(self, handle: str) -> Stop:
        try:
            if (await self._holdings.show(handle)).deployment.state == "closed":
                return self._gone(handle)
            await self._console.end(await self._holdings.own(handle))
            closed = (await self._holdings.show(handle)).deployment.state == "closed"
        except InstanceNotFound:
            # Right after its creation "not found" may only mean that the node asked lags behind.
            closed = not self._fresh(handle)
        return self._gone(handle) if closed else Stop.STOPPING

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        source = await self._source(handle)
        return [] if source is None else await gateway.tail(source, tail)

    async def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        """The lines as they come. Where the provider ends the stream but not the lease, it is opened again, and a line says so."""
        lines = tail
        while (source := await self._source(handle)) is not None:
            async with aclosing(gateway.follow(source, lines)) as stream:
                async for line in stream:
                    yield line
            observation = await self.observe(handle)
            if observation.state not in (State.RUNNING, State.STARTING, State.UNKNOWN):
                return
            yield "[the provider ended the log stream; it is opened again, lines may be missing]"
            await asyncio.sleep(gateway.AGAIN_SECONDS)
            lines = 0

    async def close(self) -> None:
        await self._console.close()

    # --- looking up ----------------------------------------------------------------------------------------------------

    async def _marked(self) -> Sequence[Instance]:
        return [
            self._instance(item, mark)
            for mark, item in await self._holdings.marks((await self._holdings.active()).values())
        ]

    def _instance(self, item: Deployment, mark: Mark) -> Instance:
        owner, dseq = item.deployment.id.owner, item.deployment.id.dseq
        return Instance(translate.handle(owner, dseq), dseq, mark, owner, started=translate.created(dseq))

    async def _adopted(self, mark: Mark) -> Instance | None:
        """The instance that bears the mark already; of several the oldest. Errors of this look-up mean that nothing was bought."""
        try:
            remembered = self._launched.get(mark)
            if remembered is not None and (await self._holdings.show(remembered.handle)).deployment.state != "closed":
                return remembered
            found = await self.find(mark)
        except (OutcomeUnknown, InstanceNotFound) as error:
            raise NotSent(f"Nothing was bought, as it can't be told what was bought before: {error.message}") from error
        return min(found, key=lambda instance: int(instance.id), default=None)

    def _fresh(self, handle: str) -> bool:
        age = self._console.now() - translate.created(translate.read_handle(handle)[1])
        return age < timedelta(seconds=TRAITS.settle_seconds)

    def _gone(self, handle: str) -> Stop:
        self._orders.pop(handle, None)
        self._sent.pop(handle, None)
        return Stop.GONE

    # --- buying --------------------------------------------------------------------------------------------------------

    async def _bought(self, request: LaunchRequest) -> Instance:
        owner, text = await self._holdings.owner(), await self._sdl(request)
        made = await self._console.create(text, str(request.mark), self._settings.deposit)
        handle = translate.handle(owner, made.dseq)
        _check_mark(made, request.mark)
        instance = Instance(handle, made.dseq, request.mark, owner, started=translate.created(made.dseq))
        self._remember(instance, request.mark, Order(_wish(request), made.manifest))
        self._holdings.remember(made.dseq, owner, [str(request.mark)])
        return instance

    async def _sdl(self, request: LaunchRequest) -> str:
        coin = await self._holdings.coin()
        highest = request.max_price_per_hour
        if highest is None:
            highest = max(Decimal(request.offer.price_per_hour) * _UNCAPPED_FACTOR, Decimal(1))
        amount = (await self._holdings.rates(coin)).per_block(highest, coin)
        if not amount:
            raise PriceAboveCap(f"Akash has nothing for {highest} USD per hour: every bid costs something")
        return sdl.dump(sdl.build(request, coin, format(amount.normalize(), "f")))

    def _remember(self, instance: Instance, mark: Mark, order: Order) -> None:
        while len(self._orders) >= _REMEMBERED:
            del self._orders[next(iter(self._orders))]
        while len(self._launched) >= _REMEMBERED:
            del self._launched[next(iter(self._launched))]
        self._orders[instance.handle], self._launched[mark] = order, instance

    # --- the steps after it --------------------------------------------------------------------------------------------

    async def _look(self, handle: str, order: Order | None) -> Observation:
        shown = await self._holdings.show(handle)
        lease = translate.current(shown)
        if lease is None:
            return await self._without_lease(handle, shown, order)
        seen = translate.observed(shown, lease, await self._holdings.rates_if_known(lease.price.denom))
        if order is not None and lease.state == "active" and lease.status is None:
            await self._hand_over(handle, order, shown, lease)
            return _starting(seen)
        return seen

    async def _without_lease(self, handle: str, shown: Deployment, order: Order | None) -> Observation:
        state = shown.deployment.state
        if state == "closed":
            why = self._given_up.get(
                handle, "it was closed before it had a lease: no bid was taken in time, or by hand"
            )
            return self._so_far(shown, State.FAILED, why)
        if state != "active":
            return self._so_far(shown, State.UNKNOWN, f"Akash says that the deployment is {quoted(state)!r}")
        if order is None:
            return self._so_far(shown, State.STARTING, "the deployment is open for bids; none has been taken yet")
        if shown.deployment.hash == translate.UNKNOWN_VALUE:
            return self._so_far(
                shown, State.STARTING, "Akash answers without the chain: the deployment can't be verified"
            )
        if shown.deployment.hash != order.hash:
            return await self._give_up(
                handle, shown, "the deployment's hash isn't that of our manifest: it was closed, not leased"
            )
        return await self._take_bid(handle, shown, order)

    async def _take_bid(self, handle: str, shown: Deployment, order: Order) -> Observation:
        dseq, wait = shown.deployment.id.dseq, timedelta(seconds=self._settings.bid_wait_seconds)
        opened, now = translate.created(dseq), self._console.now()
        if now < opened + wait:
            return self._so_far(shown, State.STARTING, f"collecting bids until {rfc3339(opened + wait)}")
        bids = [item.bid for item in await self._console.bids(dseq) if item.bid.id.dseq == dseq]
        rates = await self._holdings.rates(*(bid.price.denom for bid in bids))
        chosen, why = translate.cheapest(bids, order.wish, rates)
        if chosen is None and now < opened + wait * _PATIENCE:
            return self._so_far(shown, State.STARTING, f"no acceptable bid yet: {why}")
        if chosen is None:
            return await self._give_up(handle, shown, f"no acceptable bid in {wait * _PATIENCE}: {why}")
        try:
            leased = await self._console.lease(order.manifest, chosen.id)
        except Refused as error:
            # Somebody was faster, or the bid was withdrawn: the next look tells, and takes another one.
            return self._so_far(shown, State.STARTING, error.message)
        lease = translate.current(leased)
        if lease is None or translate.handle(leased.deployment.id.owner, leased.deployment.id.dseq) != handle:
            raise OutcomeUnknown(f"Akash took a bid on the deployment {dseq}, but doesn't show its lease")
        self._sent[handle] = now
        return _starting(translate.observed(leased, lease, rates))

    async def _give_up(self, handle: str, shown: Deployment, why: str) -> Observation:
        await self._console.end(shown.deployment.id.dseq)
        if (await self._holdings.show(handle)).deployment.state != "closed":
            return self._so_far(shown, State.STARTING, f"giving up: {why}")
        self._given_up[handle] = why
        return self._so_far(shown, State.FAILED, why)

    async def _hand_over(self, handle: str, order: Order, shown: Deployment, lease: Lease) -> None:
        """Hands a silent provider the manifest again: the answer to the first time may have been lost with us."""
        now = self._console.now()
        if order.hash == shown.deployment.hash and now - self._sent.get(handle, _NEVER) >= _RESEND:
            self._sent[handle] = now
            await self._console.lease(order.manifest, lease.id)

    def _so_far(self, shown: Deployment, state: State, message: str) -> Observation:
        dseq = shown.deployment.id.dseq
        return Observation(state=state, message=message, id=dseq, started=translate.created(dseq))

    async def _source(self, handle: str) -> gateway.Source | None:
        """Where the logs of the running lease are; None if there is none."""
        lease = translate.current(await self._holdings.show(handle))
        if lease is None or lease.state not in ("active", "reclaiming"):
            return None
        host = (await self._console.provider(lease.id.provider)).host_uri
        token = (await self._console.token(lease.id.provider, "logs", gateway.TOKEN_SECONDS)).token
        return gateway.Source(gateway.proxy_url(self._context.settings), host, lease.id, token)


def _order(request: LaunchRequest) -> Order:
    """The order, out of the node's frozen request: the manifest doesn't depend on prices."""
    return Order(_wish(request), manifest.manifest_text(sdl.build(request, translate.UACT, "1")))


def _wish(request: LaunchRequest) -> Wish:
    return Wish(request.max_price_per_hour, request.gpu_count, sdl.gpu_of(request.offer) if request.gpu_count else None)


def _check_mark(made: Created, mark: Mark) -> None:
    """Rule 3: what the Console made must bear the mark. OutcomeUnknown if it doesn't."""
    try:
        names = manifest.group_names(made.manifest)
    except ValueError as error:
        raise OutcomeUnknown(f"Akash made the deployment {made.dseq} with a manifest that can't be read") from error
    if names != [str(mark)]:
        raise OutcomeUnknown(f"Akash made the deployment {made.dseq} without the name {mark}")


def _starting(seen: Observation) -> Observation:
    """As seen of a lease that was just made: a provider that is silent has not been asked long."""
    if seen.state is not State.UNKNOWN:
        return seen
    return replace(
        seen, state=State.STARTING, message="the bid is taken; its provider has not told of the workload yet"
    )
