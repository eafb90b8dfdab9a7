"""The Console API on the wire: one method per request, typed in and out, errors as the contract has them.

Reads are tried twice when the connection failed or a gateway said so; nothing that may have an effect is ever sent twice.
Public data is asked for without the key. Nothing comes from the environment: no proxy, no netrc.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final, TypeVar, cast

import httpx
from pydantic import TypeAdapter, ValidationError

from cal_adapters.akash import outcome
from cal_adapters.akash.wire import (
    Balances,
    Bid,
    Bids,
    ChainDeployment,
    Created,
    Deployment,
    Envelope,
    GpuPrices,
    LeaseId,
    Market,
    Page,
    Provider,
    Success,
    Token,
    User,
    Wallet,
)
from cal_adapters.errors import CredentialsRefused, NotSent, OutcomeUnknown, Refused

DEFAULT_ENDPOINT: Final = "https://console-api.akash.network"
#: The Console asks the leases' providers before it answers, up to 15 s each: hence the long reads.
_READ: Final = httpx.Timeout(20.0, connect=3.0, pool=3.0)
#: Shorter than a launch may take as a whole (`Traits.launch_timeout_seconds`).
_CREATE: Final = httpx.Timeout(6.5, connect=2.0, pool=1.0)
#: Creating a lease waits for a block and then hands over the manifest, with retries.
_LEASE: Final = httpx.Timeout(30.0, connect=2.0, pool=2.0)
#: Answers of gateways that never asked the Console.
_PASSING: Final = frozenset({502, 503, 504})
_PAGE: Final = 1000
_MAX_BODY: Final = 32 * 2**20

_KEY: Final = re.compile(r"[\x21-\x7e]{1,1024}")

T = TypeVar("T")


class Console:
    """One account at one Console. `key` None: only public data can be read."""

    def __init__(self, endpoint: str | None, key: str | None) -> None:
        self._key = key
        self._ahead = timedelta(0)
        base, self._misconfigured = _base(endpoint or DEFAULT_ENDPOINT)
        self._http = httpx.AsyncClient(
            base_url=base,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=16, keepalive_expiry=30.0),
            headers={"Accept": "application/json"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    def now(self) -> datetime:
        """The Console's own time, as it told with its last answer: deployments are numbered by it."""
        return datetime.now(UTC) + self._ahead

    async def user(self) -> User:
        return await self._ask(User, "/v1/user/me", "tell whose key this is")

    async def wallets(self, user: str) -> Sequence[Wallet]:
        return await self._ask(list[Wallet], "/v1/wallets", "list the wallets", userId=user)

    async def balances(self) -> Balances:
        return await self._ask(Balances, "/v1/balances", "tell the balance")

    async def deployments(self, skip: int) -> Page:
        """A page of the active ones, oldest first. The server may give fewer than it has."""
        return await self._ask(Page, "/v1/deployments", "list deployments", skip=skip, limit=_PAGE)

    async def deployment(self, dseq: str) -> Deployment:
        """InstanceNotFound if the account has none of that number."""
        return await self._ask(Deployment, f"/v1/deployments/{dseq}", "show a deployment")

    async def bids(self, dseq: str) -> Sequence[Bid]:
        """The bids so far, without those that can't be read."""
        return [item.bid for item in await self._ask(Bids, "/v1/bids", "list bids", dseq=dseq) if item is not None]

    async def create(self, sdl: str, name: str | None, deposit: str | None) -> Created:
        """Opens a deployment, which collects bids from then on. `name` is for people; not all consoles know it."""
        data: dict[str, Any] = {"sdl": sdl} if name is None else {"sdl": sdl, "name": name}
        if deposit is not None:
            data["deposit"] = float(deposit)  # the Console wants a JSON number
        return await self._act(Created, "POST", "/v1/deployments", "create a deployment", {"data": data}, _CREATE)

    async def lease(self, manifest: str, lease: LeaseId) -> Deployment:
        """Takes a bid and hands the manifest to its provider. Where there is a lease already, only the latter."""
        body = {"manifest": manifest, "leases": [lease.model_dump()]}
        return await self._act(Deployment, "POST", "/v1/leases", "take a bid", body, _LEASE)

    async def end(self, dseq: str) -> None:
        """Closes a deployment for good; nothing can be leased on it any more. Harmless on a closed one."""
        await self._act(Success, "DELETE", f"/v1/deployments/{dseq}", "close a deployment", None, _READ)

    async def token(self, provider: str, scope: str, seconds: int) -> Token:
        """A short-lived token that opens one provider's gateway for one purpose."""
        leases = {"access": "granular", "permissions": [{"provider": provider, "access": "scoped", "scope": [scope]}]}
        body = {"data": {"ttl": seconds, "leases": leases}}
        return await self._act(Token, "POST", "/v1/create-jwt-token", "make a token", body, _READ)

    async def on_chain(self, owner: str, dseq: str) -> ChainDeployment:
        """What anybody can see of a deployment. Told from a cache that lags by some seconds; InstanceNotFound as above."""
        return await self._look_up(ChainDeployment, f"/v1/deployment/{owner}/{dseq}", "show a deployment's groups")

    async def gpu_prices(self) -> GpuPrices:
        return await self._look_up(GpuPrices, "/v1/gpu-prices", "tell GPU prices")

    async def akt(self) -> Market:
        return await self._look_up(Market, "/v1/market-data/akt", "tell the price of AKT")

    async def provider(self, address: str) -> Provider:
        return await self._look_up(Provider, f"/v1/providers/{address}", "show a provider")

    # --- the wire ----------------------------------------------------------------------------------------------------

    async def _ask(self, kind: type[T], path: str, what: str, **query: Any) -> T:
        """A read of the account's own."""
        return _read(kind, await self._get(path, what, query, self._headers()), what)

    async def _look_up(self, kind: type[T], path: str, what: str) -> T:
        """A read of public data: not enveloped, and the key isn't shown."""
        return _read(kind, await self._get(path, what, {}, {}), what, enveloped=False)

    async def _act(self, kind: type[T], method: str, path: str, what: str, body: object, timeout: httpx.Timeout) -> T:
        """A request that may have an effect: sent once."""
        request = self._http.build_request(method, path, json=body, headers=self._headers(), timeout=timeout)
        return _read(kind, await self._send(request, what), what)

    async def _get(self, path: str, what: str, query: dict[str, Any], headers: dict[str, str]) -> bytes:
        """The body of a read, tried twice: the only requests that are."""
        request = self._http.build_request("GET", path, params=query, headers=headers, timeout=_READ)
        try:
            return await self._send(request, what)
        except (NotSent, _Passing):
            await asyncio.sleep(random.uniform(0.1, 0.4))
            return await self._send(request, what)

    async def _send(self, request: httpx.Request, what: str) -> bytes:
        if self._misconfigured:
            raise Refused(self._misconfigured)
        try:
            # httpx bounds each step; a server that drips must not hold us for ever either.
            async with asyncio.timeout(request.extensions["timeout"]["read"] + 1.0):
                answer = await self._http.send(request, stream=True)
                try:
                    body = await _bounded(answer, what)
                finally:
                    await answer.aclose()
        except httpx.RemoteProtocolError as error:
            raise _Passing(outcome.of_exception(error, what).message) from error
        except httpx.HTTPError as error:
            raise outcome.of_exception(error, what) from error
        except TimeoutError as error:
            raise OutcomeUnknown(f"Akash took too long to {what}") from error
        return self._judged(answer, body, what)

    def _judged(self, answer: httpx.Response, body: bytes, what: str) -> bytes:
        if "x-api-key" in answer.request.headers:  # public answers may come from a cache, with its time
            self._learn_time(answer)
        if answer.is_success:
            return body
        failed = outcome.of_status(answer.status_code, body, answer.headers, what)
        raise _Passing(failed.message) if answer.status_code in _PASSING else failed

    def _headers(self) -> dict[str, str]:
        if self._key is None:
            raise CredentialsRefused("Akash needs a Console API key: a credential whose Secret has the key apiKey")
        if not _KEY.fullmatch(self._key):
            raise CredentialsRefused("The Secret's apiKey holds characters that no Console API key has")
        return {"x-api-key": self._key}

    def _learn_time(self, answer: httpx.Response) -> None:
        try:
            told = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return
        if told.tzinfo is not None:
            self._ahead = told - datetime.now(UTC)


class _Passing(OutcomeUnknown):
    """No answer of the Console's own: a read may be asked again at once."""


async def _bounded(answer: httpx.Response, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > _MAX_BODY:
            raise OutcomeUnknown(f"Akash gave an answer of more than {_MAX_BODY} bytes when asked to {what}")
        parts.append(part)
    return b"".join(parts)


def _base(endpoint: str) -> tuple[str, str | None]:
    """The endpoint without its last slash; if it is none, what to tell whoever calls."""
    try:
        return str(httpx.URL(endpoint)).rstrip("/"), None
    except httpx.InvalidURL as error:
        return "", f"The provider's endpoint is no address: {outcome.quoted(str(error))}"


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    """The reader of a type, made once."""
    return TypeAdapter(cast(Any, kind))


def _read(kind: type[T], body: bytes, what: str, *, enveloped: bool = True) -> T:
    try:
        if enveloped:
            return cast(T, _adapter(cast(Hashable, kind)).validate_python(Envelope.model_validate_json(body).data))
        return cast(T, _adapter(cast(Hashable, kind)).validate_json(body))
    except ValidationError as error:
        # The cause would quote what was received.
        raise outcome.of_garbage(error, what) from None
