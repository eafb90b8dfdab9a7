"""Akash: a market where providers bid for deployments, through the Console API and its managed wallet.

An *instance* is a deployment with one group. Akash sells in steps: a deployment opens an order, providers bid on it for some seconds,
the owner takes a bid, which makes the *lease* that bills, and hands the provider the manifest. `launch` opens the deployment; `advance`
takes the later steps, each of them idempotent and harmless when raced: one order has one lease, and on a closed deployment nothing can be
leased. So *gone* is: the deployment is closed.
API: https://akash.network/docs/api-documentation/console-api/ (v1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from cal_adapters.akash import logs as gateway
from cal_adapters.akash import states, translate
from cal_adapters.akash.account import Holdings
from cal_adapters.akash.bidding import Bidding, Order, Step, order_of, starting
from cal_adapters.akash.client import Console
from cal_adapters.akash.opening import Opening, marked
from cal_adapters.contract import (
    ENDED_STATES,
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
from cal_adapters.errors import (
    CredentialsRefused,
    InstanceNotFound,
    NothingBought,
    NotSent,
    OutcomeUnknown,
    Refused,
)
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
#: Times in a row that a log stream may break off without a line in between.
_BREAKS: Final = 5


def create(context: Context) -> AkashAdapter:
    """The Akash adapter. Never fails: what is wrong with its settings is said by the calls that need them."""
    settings = context.settings.akash or AkashSettings()
    key = context.credentials.data.get("apiKey") if context.credentials else None
    return AkashAdapter(context, settings, Console(context.settings.endpoint, key))


class AkashAdapter:
    """One managed wallet. What it remembers saves requests: a new process learns it again, or is told by `advance`."""

    traits = TRAITS

    def __init__(self, context: Context, settings: AkashSettings, console: Console) -> None:
        self._context, self._settings, self._console = context, settings, console
        self._holdings = Holdings(console, settings.denom)
        self._bidding = Bidding(console, self._holdings, timedelta(seconds=settings.bid_wait_seconds))
        self._opening = Opening(console, self._holdings, settings.deposit)

    async def check(self) -> Account:
        wallet = await self._holdings.wallet()
        return Account(id=wallet.address, balance=await self._holdings.balance())

    async def offers(self) -> Sequence[Offer]:
        return translate.offers((await self._console.gpu_prices()).models)

    async def find(self, mark: Mark) -> Sequence[Instance]:
        return [instance for instance in await marked(self._holdings) if instance.mark == mark]

    async def list_marked(self) -> Sequence[Instance]:
        ours = self._context.installation
        return [
            item for item in await marked(self._holdings) if item.mark is not None and item.mark.installation == ours
        ]

    async def launch(self, request: LaunchRequest) -> Instance:
        """Opens the deployment. What bills comes with the lease; but from here on there is something to close."""
        return await self._opening.launch(request)

    async def observe(self, handle: str) -> Observation:
        step = await self._look(handle, None)
        return step if isinstance(step, Observation) else Observation(State.FAILED, step.message)

    async def advance(self, handle: str, request: LaunchRequest) -> Observation:
        """Takes the next step of a purchase if it is due: the cheapest acceptable bid once bids had their time, or giving up."""
        step = await self._look(handle, self._opening.order(handle) or order_of(request))
        if isinstance(step, NothingBought):
            raise step
        return step

    async def stop(self, handle: str) -> Stop:
        try:
            gone = await self._closed(handle) or await self._ended(handle)
        except InstanceNotFound:
            # Right after its creation this may only mean that the node that was asked lags behind.
            gone = not self._fresh(handle)
        if gone:
            self._opening.forget(handle)
            self._bidding.forget(handle)
        return Stop.GONE if gone else Stop.STOPPING

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        source = await self._source(handle)
        return [] if source is None else await gateway.tail(source, tail)

    async def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        """The lines as they come. Where the stream ends but not the lease, it is opened again, and a line says so."""
        lines, breaks = tail, 0
        while (source := await self._source(handle)) is not None:
            try:
                async with aclosing(gateway.follow(source, lines)) as stream:
                    async for line in stream:
                        breaks = 0
                        yield line
            except (OutcomeUnknown, NotSent, CredentialsRefused):
                if breaks >= _BREAKS:
                    raise
            breaks += 1
            await asyncio.sleep(gateway.AGAIN_SECONDS)
            if (await self.observe(handle)).state in ENDED_STATES:
                return
            yield "[the log stream broke off and is opened again; lines may be missing]"
            lines = 0

    async def close(self) -> None:
        await self._console.close()

    # --- looking -------------------------------------------------------------------------------------------------------

    async def _look(self, handle: str, order: Order | None) -> Step:
        shown = await self._holdings.show(handle)
        lease = states.current(shown)
        if lease is None:
            return await self._bidding.step(handle, shown, order)
        seen = states.observed(shown, lease, await self._holdings.rates_if_known(lease.price.denom))
        if seen.state is State.RUNNING:
            self._opening.forget(handle)  # from here on there is only looking
        elif order is not None and lease.state == "active" and lease.status is None:
            await self._bidding.hand_over(handle, shown, lease, order)
            return starting(seen)
        return seen

    async def _closed(self, handle: str) -> bool:
        return (await self._holdings.show(handle)).deployment.state == "closed"

    async def _ended(self, handle: str) -> bool:
        """Asks for the end, and looks whether it came about."""
        try:
            await self._console.end(await self._holdings.own(handle))
        except Refused:
            return False  # not now: the chain has to settle the escrow first
        return await self._closed(handle)

    def _fresh(self, handle: str) -> bool:
        age = self._console.now() - translate.created(translate.read_handle(handle)[1])
        return age < timedelta(seconds=TRAITS.settle_seconds)

    async def _source(self, handle: str) -> gateway.Source | None:
        """Where the logs of the running lease are; None if there is none."""
        lease = states.current(await self._holdings.show(handle))
        if lease is None or lease.state not in ("active", "reclaiming"):
            return None
        host = (await self._console.provider(lease.id.provider)).host_uri
        token = (await self._console.token(lease.id.provider, "logs", gateway.TOKEN_SECONDS)).token
        return gateway.Source(gateway.proxy_url(self._context.settings), host, lease.id, token)
