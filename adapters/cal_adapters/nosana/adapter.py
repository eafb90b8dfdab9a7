"""The contract's verbs for Nosana, a network of GPU hosts (https://learn.nosana.com; API as of npm `@nosana/api` 2.1.8).

Nosana's words: a *market* is a kind of machine at one price; a *deployment* keeps jobs of one definition in a market; a *job* is one
run on one host. An instance is a deployment with one replica: its name is the mark, its handle is account and deployment, its id the
job that runs just now. The strategy is SIMPLE-EXTEND: Nosana extends the job until the deployment is stopped.

Making a deployment leaves a DRAFT, which costs nothing; starting it is the purchase. So a launch first makes its DRAFT, then looks
whether another launch with this mark was earlier, and starts only one of them, the same for all: two launches at once buy one instance. A launch that was
cut off in between is finished by `advance`.

Proven gone: ARCHIVED without a queued or running job, or unknown to the account that bought it. From every other state a deployment
can be started again, by itself (INSUFFICIENT_FUNDS) or by a late call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

import httpx

from cal_adapters.contract import (
    Account,
    Adapter,
    Context,
    Credentials,
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
    InsufficientFunds,
    NothingBought,
    OutcomeUnknown,
    PriceAboveCap,
    Refused,
)
from cal_adapters.nosana import logs, states, translate
from cal_adapters.nosana.answers import Deployment
from cal_adapters.nosana.client import Client
from cal_adapters.nosana.faults import WrongState
from cal_adapters.unusable import Unusable
from cal_crds.node import Offer
from cal_crds.provider import Capabilities, NosanaSettings, Support

ENDPOINT: Final = "https://dashboard.k8s.prd.nos.ci"

TRAITS: Final = Traits(
    capabilities=Capabilities(
        adapter_type="depin",
        supports=[
            Support.LOG_STREAMING,
            Support.CONFIDENTIAL_COMPUTE,
            Support.MULTI_GPU,
            Support.EPHEMERAL,
            Support.READINESS_POLL,
            Support.SIDECAR,
            Support.DIRECT_PROVISIONING,
        ],
        readiness_timeout_seconds=300,
        polling_interval_seconds=20,
        pricing_model="fixed",
        features=["job_based", "market_based_pricing", "blockchain_backed"],
        pool_type="job",
        provider_pool_id_pattern=r"^([1-9A-HJ-NP-Za-km-z]{32,44}|[a-z0-9][a-z0-9-]{0,62})$",
        provider_pool_id_hint="a market's address (32 to 44 base58 characters) or slug, like nvidia-3060",
    ),
    # The database behind the API is replicated; its lists are expected to be current within seconds. Nosana promises nothing.
    settle_seconds=30,
    launch_timeout_seconds=10,
    observe_seconds=20,
    poll_seconds=3,
    offers_seconds=60,
    concurrency=8,
    calls_per_second=10,
)


class Nosana:
    """One Nosana account. See the module's head for what its words mean here."""

    traits = TRAITS

    def __init__(self, context: Context) -> None:
        settings = context.settings.nosana or NosanaSettings()
        try:
            key, lack = _api_key(context.credentials), ""
        except CredentialsRefused as error:
            # What Nosana publishes can be had all the same.
            key, lack = None, error.message
        self._client = Client(context.settings.endpoint or ENDPOINT, key, lack)
        self._node_url = settings.node_url
        self._installation = context.installation
        self._timeout = translate.Minutes(settings.job_timeout_minutes)

    async def close(self) -> None:
        await self._client.close()

    # -- the account and its market

    async def check(self) -> Account:
        balance = await self._client.balance()
        return Account(id=await self._account(), balance=balance.available)

    async def _account(self) -> str | None:
        """Whose key this is; None as long as the account has never had a deployment or a vault."""
        deployment = await self._client.first()
        if deployment:
            return deployment.owner
        vaults = await self._client.vaults()
        return vaults[0].owner if vaults else None

    async def offers(self) -> Sequence[Offer]:
        return translate.offers_of(await self._client.markets())[:500]

    # -- look-up

    async def find(self, mark: Mark) -> Sequence[Instance]:
        return [translate.instance_of(found) for found in await self._named(mark) if translate.may_bill(found)]

    async def _named(self, mark: Mark) -> list[Deployment]:
        """The mark's deployments, oldest first, archived ones too."""
        name = str(mark)
        # The filter is the provider's promise; the name is the proof.
        found = [item async for item in self._client.deployments(name=name) if item.name == name]
        return sorted(found, key=lambda item: (item.created_at, item.id))

    async def list_marked(self) -> Sequence[Instance]:
        search = f"cal-{self._installation}-"
        filters = {"search": search}
        if await self._known_statuses(search):
            # Archived ones gather for ever; without them the list stays as short as what is there.
            filters["status"] = ",".join(sorted(states.STATUSES - {"ARCHIVED"}))
        found = [item async for item in self._client.deployments(**filters) if translate.may_bill(item)]
        instances = [translate.instance_of(item) for item in found]
        return [item for item in instances if item.mark and item.mark.installation == self._installation]

    async def _known_statuses(self, search: str) -> bool:
        """Whether every deployment has a status that we know: else a filter by status would hide some."""
        known = await self._client.count(search=search, status=",".join(sorted(states.STATUSES)))
        return known == await self._client.count(search=search)

    # -- launch

    async def launch(self, request: LaunchRequest) -> Instance:
        address = translate.market_of(request)
        body = translate.create_body(request, address, self._timeout)
        try:
            async with asyncio.timeout(TRAITS.launch_timeout_seconds):
                price = await self._price(address, request.max_price_per_hour)
                await self._check_funds()
                chosen = await self._draft(request, body)
                await self._start(chosen)
        except TimeoutError as error:
            raise OutcomeUnknown(f"Nosana took more than {TRAITS.launch_timeout_seconds:g} s for a launch") from error
        return translate.instance_of(chosen, price)

    async def _price(self, address: str, cap: Decimal | None) -> Decimal:
        """The market's price of this moment, which is what the job will cost."""
        try:
            price = translate.price_of(await self._client.market(address))
        except InstanceNotFound as error:
            raise Refused(f"Nosana has no market {address}") from error
        if price is None:
            raise Refused(f"Nosana's market {address} has no price")
        if cap is not None and price > cap:
            raise PriceAboveCap(
                f"Nosana's market {address} now costs {price:f} US dollars per hour, above the cap {cap:f}"
            )
        return price

    async def _check_funds(self) -> None:
        """Without credits Nosana takes the order all the same, and lets it wait. An offer that isn't paid for is of no use."""
        try:
            available = (await self._client.balance()).available
        except OutcomeUnknown:
            return
        if available <= 0:
            raise InsufficientFunds(f"the Nosana account has {available:f} US dollars of credits left")

    async def _draft(self, request: LaunchRequest, body: dict[str, object]) -> Deployment:
        """The mark's deployment: an earlier one, or a new DRAFT."""
        earlier = await self._named(request.mark)
        if earlier:
            return _chosen(earlier)
        secrets = [value.value for value in request.env if value.secret] + [login.password for login in request.logins]
        made = await self._client.create(body, secrets)
        if made.name != str(request.mark):
            raise OutcomeUnknown(f"Nosana made deployment {made.id}, but under another name")
        try:
            together = await self._named(request.mark)
        except NothingBought as error:
            raise OutcomeUnknown(f"deployment {made.id} was made, then: {error.message}") from error
        return _chosen([*together, made])

    async def _start(self, deployment: Deployment) -> None:
        """Starts a DRAFT. Errors that say "nothing bought" are true here: a DRAFT costs nothing, and a next launch finds it."""
        if deployment.status != "DRAFT" or deployment.replicas == 0:
            return
        try:
            await self._client.start(deployment.id)
        except OutcomeUnknown:
            # Started by somebody else, or without an answer. Which instance it is, is certain: observe tells the rest.
            return

    # -- watch

    async def observe(self, handle: str) -> Observation:
        deployment = await self._deployment(handle)
        job = states.current_job(await self._client.jobs(deployment.id))
        detail = await self._client.job(deployment.id, job.job) if job and job.state != "QUEUED" else None
        trouble = ""
        if deployment.status == "ERROR":
            events = await self._client.events(deployment.id)
            trouble = events[0].message if events else ""
        return states.observation(deployment, job, detail, trouble, self._client.now())

    async def advance(self, handle: str, request: LaunchRequest) -> Observation:
        """Starts the DRAFT that a launch made and then, cut off, didn't start: if it is the mark's chosen one, and within the cap."""
        deployment = await self._deployment(handle)
        if deployment.status == "DRAFT" and deployment.replicas > 0:
            try:
                await self._finish_launch(deployment, request)
            except (PriceAboveCap, Refused) as error:
                return Observation(State.FAILED, f"Nosana: deployment DRAFT: never started: {error.message}")
        return await self.observe(handle)

    async def _finish_launch(self, draft: Deployment, request: LaunchRequest) -> None:
        chosen = _chosen([*await self._named(request.mark), draft])
        if chosen.id != draft.id:
            raise Refused(f"{chosen.id} was bought in its place")
        await self._price(draft.market, request.max_price_per_hour)
        await self._start(draft)

    async def confirm(self, handle: str, instance_id: str) -> bool:
        """Jobs of a deployment come and go; each of them is this instance."""
        deployment = await self._deployment(handle)
        if instance_id == deployment.id:
            return True
        return (
            instance_id.isascii() and instance_id.isalnum() and await self._client.has_job(deployment.id, instance_id)
        )

    async def _deployment(self, handle: str) -> Deployment:
        """The deployment of a handle. Its "not found" counts only from the account that bought it, and not while reads may lag."""
        wanted = translate.read_handle(handle)
        try:
            return await self._client.deployment(wanted.deployment)
        except InstanceNotFound as error:
            if self._client.now() - wanted.created < timedelta(seconds=TRAITS.settle_seconds):
                raise OutcomeUnknown(
                    f"{error.message}; it was made so lately that it may only not be seen yet"
                ) from error
            account = await self._account()
            if account is None:
                raise OutcomeUnknown(f"{error.message}; which account the key opens can't be told") from error
            if account != wanted.owner:
                lost = f"the key opens account {account}, but {wanted.deployment} belongs to {wanted.owner}"
                raise CredentialsRefused(lost) from error
            raise

    # -- stop

    async def stop(self, handle: str) -> Stop:
        try:
            deployment = await self._deployment(handle)
        except InstanceNotFound:
            return Stop.GONE
        try:
            return await self._stop(deployment)
        except WrongState:
            if deployment.status not in states.STATUSES:
                raise
            # It moved on between our look and our call; the next look tells where to.
            return Stop.STOPPING

    async def _stop(self, deployment: Deployment) -> Stop:
        match deployment.status:
            case "DRAFT":
                await self._take_back(deployment)
            case "STARTING" | "STOPPING":
                pass
            case "STOPPED":
                if not await self._stop_jobs(deployment):
                    await self._client.archive(deployment.id)
                    return await self._proof(await self._client.deployment(deployment.id))
            case "ARCHIVED":
                return await self._proof(deployment)
            case _:
                await self._client.stop(deployment.id)
        return Stop.STOPPING

    async def _take_back(self, deployment: Deployment) -> None:
        """A DRAFT can be neither stopped nor archived, and a late start would buy it. With 0 replicas a start buys nothing: so it is
        emptied, then started to get it to where it can be stopped and archived."""
        if (await self._client.empty(deployment.id)).replicas != 0:
            raise OutcomeUnknown(f"Nosana didn't empty deployment {deployment.id}")
        await self._client.start(deployment.id)

    async def _stop_jobs(self, deployment: Deployment) -> bool:
        """Stops the jobs that run on without their deployment; whether there were any."""
        jobs = await self._client.jobs(deployment.id, *states.ACTIVE_JOBS)
        for job in jobs:
            await self._client.stop_job(job.job)
        return bool(jobs)

    async def _proof(self, deployment: Deployment) -> Stop:
        """Whether it is proven gone."""
        if deployment.status != "ARCHIVED" or await self._stop_jobs(deployment):
            return Stop.STOPPING
        # With a job on record the one listing that its start asked for is done. Without, that listing may still be on its way.
        listed = bool(await self._client.jobs(deployment.id))
        waited = self._client.now() - deployment.updated_at >= states.LISTING_WINDOW
        return Stop.GONE if listed or waited else Stop.STOPPING

    # -- logs

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        return await logs.tail(self._client, self._node_url, await self._deployment(handle), tail)

    def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        return logs.follow(self._client, self._node_url, translate.read_handle(handle).deployment, tail)


def create(context: Context) -> Adapter:
    """The adapter of one provider and credential; the credential's Secret has the key `apiKey`. No call is made."""
    try:
        return Nosana(context)
    except (httpx.InvalidURL, ValueError) as error:
        # What the schema takes for a URL and isn't one, like http://[::1
        return Unusable(TRAITS, f"endpoint {context.settings.endpoint!r} is no URL: {error}")


def _chosen(found: Sequence[Deployment]) -> Deployment:
    """The one deployment of a mark that is, or may be, started. Refused if it was started once and is gone."""
    # One that was started comes first: an older DRAFT may have become visible only after it.
    chosen = min(found, key=lambda item: (item.status == "DRAFT", item.created_at, item.id))
    if not translate.may_bill(chosen):
        # A call that comes late, after the instance was stopped, must not buy it again.
        raise Refused(f"{chosen.name} was bought before and is gone")
    return chosen


def _api_key(credentials: Credentials | None) -> str:
    """The key of a credential. CredentialsRefused if there is none, or none that can be sent."""
    if credentials is None:
        raise CredentialsRefused("no API key is configured for Nosana")
    key = credentials.data.get("apiKey", "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CredentialsRefused(f"credential {credentials.name!r} has no usable `apiKey`")
    return key
