"""Nosana's REST API on the wire: typed in, typed out, explicit timeouts, one retry policy, and one place that maps what goes wrong.

Paths and bodies follow the provider's OpenAPI document of npm `@nosana/api` 2.1.8. Only reads are repeated, once, when no answer
came: a request that changes something is sent at most once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from cal_adapters.errors import CredentialsRefused, InstanceNotFound, NotSent, OutcomeUnknown, Refused
from cal_adapters.nosana.answers import (
    Balance,
    Deployment,
    DeploymentPage,
    Event,
    EventPage,
    Header,
    Job,
    JobDetail,
    JobPage,
    Market,
    ReplicaChange,
    StatusChange,
    Stopped,
    Vault,
)
from cal_adapters.nosana.faults import from_exception, from_response

#: Seconds. A launch is four or five requests and must end within ten.
TIMEOUT: Final = httpx.Timeout(connect=3, read=6, write=3, pool=3)
_READ_TRIES: Final = 2
_READ_PAUSE: Final = 0.25
#: The largest page that the provider gives.
_PAGE: Final = 100
#: A list that doesn't end is a fault of the provider, not a long list.
_MAX_PAGES: Final = 1000
#: What a path segment may hold: ids are base58, a market's slug has dashes. Anything else could leave the path.
_SEGMENT: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")

T = TypeVar("T")


class Client:
    """One account's connection. `api_key` None: only what the provider publishes can be asked, and `lack` says why."""

    def __init__(self, base_url: str, api_key: str | None, lack: str = "no API key") -> None:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._secrets = (api_key,) if api_key else ()
        self._lack = lack
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/"), headers=headers, timeout=TIMEOUT, follow_redirects=False, trust_env=False
        )
        #: Provider's clock minus ours, in seconds, as the last answer told.
        self._skew = 0.0

    def now(self) -> datetime:
        """The provider's time: what its timestamps are compared with."""
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self._skew, UTC)

    async def close(self) -> None:
        await self._http.aclose()

    # -- public

    async def markets(self) -> list[Market]:
        """All markets that can be read: one that can't doesn't hide the others."""
        listed = await self._read("/api/markets/", list[dict[str, Any]], public=True)
        readable = [market for item in listed if (market := _market(item))]
        if listed and not readable:
            raise OutcomeUnknown("none of Nosana's markets can be read")
        return readable

    async def market(self, market: str) -> Market:
        """One market, by its address or slug, with the price of this moment."""
        return await self._read(f"/api/markets/{_segment(market)}/", Market, public=True, named=True)

    # -- the account

    async def balance(self) -> Balance:
        return await self._read("/api/credits/balance", Balance)

    async def vaults(self) -> list[Vault]:
        return await self._read("/api/deployments/vaults", list[Vault])

    # -- deployments

    async def create(self, body: Mapping[str, Any], secrets: Collection[str]) -> Deployment:
        """Makes a DRAFT, which costs nothing until it is started. `secrets` are kept out of error messages."""
        return await self._call("POST", "/api/deployments/create", Deployment, body=body, secrets=secrets)

    async def start(self, deployment: str) -> StatusChange:
        """The purchase. Legal from DRAFT, STOPPED, ERROR and INSUFFICIENT_FUNDS; else WrongState."""
        return await self._call("POST", f"/api/deployments/{_segment(deployment)}/start", StatusChange)

    async def stop(self, deployment: str) -> StatusChange:
        """Legal from RUNNING, ERROR and INSUFFICIENT_FUNDS; else WrongState."""
        return await self._call("POST", f"/api/deployments/{_segment(deployment)}/stop", StatusChange)

    async def archive(self, deployment: str) -> StatusChange:
        """Legal from STOPPED; else WrongState. Nothing starts an archived deployment."""
        return await self._call("POST", f"/api/deployments/{_segment(deployment)}/archive", StatusChange)

    async def empty(self, deployment: str) -> ReplicaChange:
        """Sets the replica count to 0: a start that comes later buys nothing."""
        path = f"/api/deployments/{_segment(deployment)}/update-replica-count"
        return await self._call("PATCH", path, ReplicaChange, body={"replicas": 0})

    async def stop_job(self, job: str) -> Stopped:
        """Stops one job, whatever its deployment does."""
        return await self._call("POST", f"/api/jobs/{_segment(job)}/stop", Stopped)

    async def deployment(self, deployment: str) -> Deployment:
        return await self._read(f"/api/deployments/{_segment(deployment)}", Deployment, named=True)

    async def count(self, **filters: str) -> int:
        """How many deployments pass the filters."""
        page = await self._read("/api/deployments", DeploymentPage, params={"limit": "10", **filters})
        return page.pagination.total_items

    async def first(self) -> Deployment | None:
        """Any deployment of the account, if it ever had one."""
        page = await self._read("/api/deployments", DeploymentPage, params={"limit": "10"})
        return page.deployments[0] if page.deployments else None

    async def deployments(self, **filters: str) -> AsyncIterator[Deployment]:
        """Every deployment that passes the filters, oldest first, to the end of the list."""
        # Oldest first: what is made while we read comes at the end and is seen.
        params, seen = {"limit": str(_PAGE), "sort_order": "asc", **filters}, set[str]()
        for _ in range(_MAX_PAGES):
            page = await self._read("/api/deployments", DeploymentPage, params=params)
            for item in page.deployments:
                yield item
            cursor = page.pagination.cursor_next
            if cursor is None:
                return
            if cursor in seen:
                break
            seen.add(cursor)
            params = {**params, "cursor": cursor}
        raise OutcomeUnknown("Nosana's list of deployments doesn't come to an end")

    async def jobs(self, deployment: str, *states: str) -> list[Job]:
        """The newest ten jobs, newest first; with `states` only those."""
        params = {"limit": "10", "sort_order": "desc"} | ({"state": ",".join(states)} if states else {})
        page = await self._read(f"/api/deployments/{_segment(deployment)}/jobs", JobPage, params=params)
        return page.jobs

    async def has_job(self, deployment: str, job: str, *states: str) -> bool:
        """Whether the job belongs to the deployment, and is in one of these states."""
        path = f"/api/deployments/{_segment(deployment)}/jobs"
        page = await self._read(path, JobPage, params={"limit": "10", "job": job})
        return any(found.job == job and found.state in states for found in page.jobs)

    async def job(self, deployment: str, job: str) -> JobDetail:
        return await self._read(f"/api/deployments/{_segment(deployment)}/jobs/{_segment(job)}", JobDetail)

    async def events(self, deployment: str) -> list[Event]:
        """The newest ten events, newest first."""
        path = f"/api/deployments/{_segment(deployment)}/events"
        page = await self._read(path, EventPage, params={"limit": "10", "sort_order": "desc"})
        return page.events

    async def header(self, deployment: str) -> str:
        """What a host wants to see before it shows the deployment's logs. A secret."""
        path = f"/api/deployments/{_segment(deployment)}/header"
        return (await self._read(path, Header)).header

    # -- the wire

    async def _read(
        self,
        path: str,
        kind: type[T],
        *,
        params: Mapping[str, str] | None = None,
        public: bool = False,
        named: bool = False,
    ) -> T:
        """A GET, repeated once when no answer came or none that can be read."""
        for attempt in range(1, _READ_TRIES + 1):
            try:
                return await self._call("GET", path, kind, params=params, public=public, named=named)
            except (OutcomeUnknown, NotSent):
                if attempt == _READ_TRIES:
                    raise
                await asyncio.sleep(_READ_PAUSE)
        raise AssertionError("unreachable")

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        secrets: Collection[str] = (),
        public: bool = False,
        named: bool = False,
    ) -> T:
        """One request, sent once. Raises errors of the contract, and WrongState.

        InstanceNotFound comes only with `named`, where the path asks for that very thing: that a part isn't found (a job of a
        deployment), or that nothing is there to be changed, is no proof.
        """
        if not (public or self._secrets):
            raise CredentialsRefused(self._lack)
        what = f"{method} {path}"
        try:
            response = await self._http.request(method, path, params=params, json=body)
        # ValueError: what httpx itself can't put on the wire (a URL, a header); InvalidURL and CookieConflict have no common base.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, ValueError) as error:
            raise from_exception(what, error) from error
        if response.status_code < 500:
            self._note_clock(response)
        if response.status_code >= 300:
            fault = from_response(what, response, (*self._secrets, *secrets))
            raise OutcomeUnknown(fault.message) if isinstance(fault, InstanceNotFound) and not named else fault
        return parse(what, response.content, kind)

    def _note_clock(self, response: httpx.Response) -> None:
        # Server errors come from whatever stands in front of the provider, with its own clock.
        try:
            told = parsedate_to_datetime(response.headers["Date"])
        except (KeyError, ValueError):
            return
        self._skew = told.timestamp() - datetime.now(UTC).timestamp()


def parse(what: str, content: bytes, kind: type[T]) -> T:
    """A body as what it should be. OutcomeUnknown, which doesn't quote it, if it isn't."""
    try:
        # Prices come as JSON numbers: never through a float.
        return TypeAdapter(kind).validate_python(json.loads(content, parse_float=Decimal))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise OutcomeUnknown(f"{what}: Nosana's answer can't be read: {where or 'body'}: {first['msg']}") from None
    except (ValueError, ArithmeticError, RecursionError):
        # Not JSON, a number beyond all bounds, nested too deeply.
        raise OutcomeUnknown(f"{what}: Nosana's answer is not JSON") from None


def _market(item: dict[str, Any]) -> Market | None:
    try:
        return Market.model_validate(item)
    except ValidationError:
        return None


def _segment(text: str) -> str:
    if not _SEGMENT.fullmatch(text):
        raise Refused(f"not an identifier of Nosana's: {text[:64]!r}")
    return text
