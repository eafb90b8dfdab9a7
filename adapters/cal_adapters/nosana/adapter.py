"""The contract's verbs for Nosana, a network of GPU hosts (https://learn.nosana.com; API as of npm `@nosana/api` 2.1.8).

Nosana's words: a *market* is a kind of machine at one price; a *deployment* keeps jobs of one definition in a market; a *job* is one
run on one host. An instance is a deployment with one replica: its name is the mark, its handle is account and deployment, its id the
job that runs just now. The strategy is SIMPLE-EXTEND: Nosana extends the job until the deployment is stopped.

How one is bought, once, stands in `buying.py`; how it is ended, and what proves it gone, in `ending.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
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
    OutcomeUnknown,
    PriceAboveCap,
    Refused,
)
from cal_adapters.nosana import buying, ending, logs, states, translate
from cal_adapters.nosana.answers import Deployment
from cal_adapters.nosana.client import Client
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
        return [
            translate.instance_of(found)
            for found in await buying.named(self._client, mark)
            if translate.may_bill(found)
        ]

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
                price = await buying.price_within(self._client, address, request.max_price_per_hour)
                await buying.check_funds(self._client)
                chosen = await buying.draft(self._client, request, body)
                await buying.start(self._client, chosen)
        except TimeoutError as error:
            raise OutcomeUnknown(f"Nosana took more than {TRAITS.launch_timeout_seconds:g} s for a launch") from error
        return translate.instance_of(chosen, price)

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
        chosen = buying.chosen([*await buying.named(self._client, request.mark), draft])
        if chosen.id != draft.id:
            raise Refused(f"{chosen.id} was bought in its place")
        await buying.price_within(self._client, draft.market, request.max_price_per_hour)
        await buying.start(self._client, draft)

    async def confirm(self, handle: str, instance_id: str) -> bool:
        """Jobs of a deployment come and go; the one that runs, or waits to, is this instance. An ended one never becomes it again."""
        deployment = await self._deployment(handle)
        if instance_id == deployment.id:
            return True
        return (
            instance_id.isascii()
            and instance_id.isalnum()
            and await self._client.has_job(deployment.id, instance_id, *states.ACTIVE_JOBS)
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
        return await ending.stop(self._client, deployment)

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


def _api_key(credentials: Credentials | None) -> str:
    """The key of a credential. CredentialsRefused if there is none, or none that can be sent."""
    if credentials is None:
        raise CredentialsRefused("no API key is configured for Nosana")
    key = credentials.data.get("apiKey", "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CredentialsRefused(f"credential {credentials.name!r} has no usable `apiKey`")
    return key
