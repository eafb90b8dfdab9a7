"""The client on the wire: what goes wrong there becomes the contract's errors, all of it, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from cal_adapters.contract import Credentials
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    InsufficientFunds,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from cal_adapters.nosana.client import Client
from cal_adapters.nosana.faults import NEVER_SENT, WrongState, from_exception, from_response

pytestmark = pytest.mark.anyio
HANDLE = f"{'a' * 44}/{'b' * 44}/1700000000"


# --- the mapping is total


def _exceptions() -> list[type[Exception]]:
    """Every exception that httpx can raise."""
    bases: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)
    found: set[type[Exception]] = set(bases)
    waiting = list(bases)
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind not in found:
                found.add(kind)
                waiting.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def _instance(kind: type[Exception]) -> Exception:
    """One of them, whatever its constructor wants."""
    error = kind.__new__(kind)
    Exception.__init__(error, "what was said: nos_secret_key")
    return error


def test_httpx_has_no_exception_beside_these() -> None:
    public = [getattr(httpx, name) for name in dir(httpx)]
    exceptions = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Exception)}
    assert exceptions <= set(_exceptions())


@pytest.mark.parametrize("kind", _exceptions())
def test_every_exception_of_httpx_becomes_one_of_the_contract(kind: type[Exception]) -> None:
    error = from_exception("GET /x", _instance(kind))
    assert isinstance(error, NotSent if issubclass(kind, NEVER_SENT) else OutcomeUnknown)
    assert "GET /x" in error.message


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "no"}', b'"Unauthorized"', b"[]", b"null", b"\xff"])
def test_every_status_becomes_one_of_the_contract(body: bytes) -> None:
    for status in range(300, 600):
        error = from_response("GET /x", httpx.Response(status, content=body), ())
        # Only these say for certain that nothing happened.
        certain = isinstance(error, CredentialsRefused | InsufficientFunds | RateLimited | Refused)
        assert certain == (400 <= status < 500 and status not in (404, 408, 409, 425)), status
        assert certain or type(error) is OutcomeUnknown


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "Invalid request body.", Refused),
        (401, "Unauthorized", CredentialsRefused),
        (402, "Payment required", InsufficientFunds),
        (403, "Forbidden", CredentialsRefused),
        (404, "Deployment not found.", InstanceNotFound),
        (404, "no such route", OutcomeUnknown),
        (409, "Conflict", OutcomeUnknown),
        (429, "Too many requests", RateLimited),
        (500, "Deployment is in the incorrect state.", WrongState),
        (500, "Cannot modify an archived deployment.", WrongState),
        (500, "Ops something went wrong, please again.", OutcomeUnknown),
        (500, "Insufficient credits. Available: $0.000", InsufficientFunds),
        (503, "Deployment is in the incorrect state.", OutcomeUnknown),
        (302, "Found", OutcomeUnknown),
    ],
)
def test_the_providers_words_are_told_apart(status: int, words: str, kind: type[AdapterError]) -> None:
    assert type(from_response("x", httpx.Response(status, json={"error": words}), ())) is kind


def test_secrets_and_control_characters_never_come_through() -> None:
    words = "bad value s3cret\x1b[31m in s3cret-and-more of nos_secret_key\n" + "x" * 5000
    error = from_response(
        "x", httpx.Response(400, json={"error": words}), ("nos_secret_key", "s3cret", "s3cret-and-more")
    )
    assert "s3cret" not in error.message
    assert "nos_secret_key" not in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


def test_retry_after_comes_in_both_forms() -> None:
    def told(value: str) -> float | None:
        return from_response("x", httpx.Response(429, headers={"Retry-After": value}), ()).retry_after

    assert told("7") == 7
    assert 50 < (told(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) or 0) <= 60
    assert told("soon") is None


# --- real sockets


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_refused_connection_was_never_sent(at_url: Any, free_port: int) -> None:
    adapter = at_url(f"http://127.0.0.1:{free_port}")
    for call in (adapter.check, adapter.offers, lambda: adapter.observe(HANDLE), lambda: adapter.stop(HANDLE)):
        with pytest.raises(NotSent):
            await call()


async def test_an_endpoint_that_is_no_url_is_refused_by_every_verb(at_url: Any) -> None:
    adapter = at_url("http://[::1")
    for call in (adapter.check, adapter.offers, adapter.list_marked, lambda: adapter.stop(HANDLE)):
        with pytest.raises(Refused, match="is no URL"):
            await call()


async def test_an_unknown_host_was_never_sent(at_url: Any) -> None:
    with pytest.raises(NotSent):
        await at_url("http://nosana.invalid").check()


async def test_a_server_that_speaks_no_http_leaves_the_outcome_unknown(at_url: Any) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(OutcomeUnknown):
            await at_url(f"http://{host}:{port}").check()


async def test_a_silent_server_times_out(at_url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cal_adapters.nosana.client.TIMEOUT", httpx.Timeout(0.3))
    with _listening() as (_, url), pytest.raises(OutcomeUnknown, match="ReadTimeout"):
        await at_url(url).check()


# --- retries


async def test_a_read_is_repeated_once(rig: Any) -> None:
    for kind in ("cut", "garbage", "html"):
        await rig.fault("^GET /api/markets/$", kind, status=503)
        assert await rig.adapter.offers()
        await rig.fault("^GET /api/markets/$", kind, status=503, times=2)
        with pytest.raises(OutcomeUnknown):
            await rig.adapter.offers()


async def test_a_refusal_is_not_repeated(rig: Any) -> None:
    for status, kind in ((401, CredentialsRefused), (429, RateLimited), (400, Refused)):
        before = (await rig.ask("stats"))["faults"]
        await rig.fault("^GET /api/credits", "status", status=status)
        with pytest.raises(kind):
            await rig.adapter.check()
        assert (await rig.ask("stats"))["faults"] == before + 1


@pytest.mark.parametrize("field", ["id", "name", "owner", "status", "replicas", "created_at", "updated_at"])
async def test_an_answer_without_what_we_rely_on_is_unreadable(rig: Any, field: str) -> None:
    mark, instance = await rig.running()
    whole = await rig.deployment(mark)
    for broken in ({k: v for k, v in whole.items() if k != field}, {**whole, field: None}, {**whole, field: {}}):
        await rig.fault(r"^GET /api/deployments/\w+$", "status", status=200, body=broken, times=2)
        for_it = pytest.raises(OutcomeUnknown, match=field)
        with for_it:
            await rig.adapter.observe(instance.handle)


async def test_an_id_that_would_leave_its_path_is_unreadable(rig: Any) -> None:
    mark, instance = await rig.running()
    broken = {**(await rig.deployment(mark)), "id": "../markets"}
    await rig.fault(r"^GET /api/deployments/\w+$", "status", status=200, body=broken, times=2)
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.observe(instance.handle)


# --- the rest


async def test_without_a_key_only_public_things_are_asked(rig: Any) -> None:
    client = Client(rig.url, None)
    try:
        assert len(await client.markets()) == 4
        with pytest.raises(CredentialsRefused, match="no API key"):
            await client.balance()
    finally:
        await client.close()


async def test_the_providers_clock_is_the_one_that_counts(rig: Any) -> None:
    client = Client(rig.url, rig.key)
    try:
        await rig.advance(3600)
        await client.balance()
        assert abs((client.now() - datetime.now(UTC)).total_seconds() - 3600) < 5
    finally:
        await client.close()


async def test_money_never_goes_through_a_float(rig: Any) -> None:
    body = b'{"assignedCredits": 0.1, "reservedCredits": 0.2, "settledCredits": -0.3000000000000000001}'
    client = Client(rig.url, rig.key)
    try:
        await rig.fault("^GET /api/credits", "raw", body=body.decode())
        assert str((await client.balance()).available) == "0.2000000000000000001"
    finally:
        await client.close()


async def test_the_environments_proxy_is_not_used(
    rig: Any, free_port: int, monkeypatch: pytest.MonkeyPatch, at_url: Callable[[str], Any]
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("NO_PROXY", "")
    assert await at_url(rig.url).offers()


def test_the_key_is_in_no_repr() -> None:
    credentials = Credentials("main", {"apiKey": "nos_secret_key"})
    assert "nos_secret_key" not in repr(credentials)
    assert "nos_secret_key" not in repr(vars(Client("http://127.0.0.1:1", "nos_secret_key"))["_http"])


async def test_a_market_that_can_not_be_read_hides_no_other(rig: Any) -> None:
    markets = (await rig.http.get("/api/markets/")).json()
    await rig.fault("^GET /api/markets/$", "status", status=200, body=[{**markets[0], "slug": "a b"}, *markets[1:]])
    assert [offer.id for offer in await rig.adapter.offers()] == [market["slug"] for market in markets[1:]]
    await rig.fault("^GET /api/markets/$", "status", status=200, body=[{"slug": "a b"}])
    with pytest.raises(OutcomeUnknown, match="none of"):
        await rig.adapter.offers()
