"""Logs over the provider proxy: the last lines, news as they come, and an end or a break that is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from worlds.akash_state import address
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter, logs
from cal_adapters.akash.wire import LeaseId
from cal_adapters.contract import FollowsLogs, Instance
from cal_adapters.errors import CredentialsRefused, NotSent, OutcomeUnknown, Refused

pytestmark = pytest.mark.anyio

Make = Callable[..., AkashAdapter]
NewRequest = Callable[..., Any]
_LEASE = LeaseId(dseq="1795410420788", gseq=1, oseq=1, provider="akash1" + "q" * 38)


async def running(world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest) -> Instance:
    request = await new_request()
    instance: Instance = await adapter.launch(request)
    await world.advance(21)
    await adapter.advance(instance.handle, request)
    await world.advance(4)
    return instance


async def test_the_last_lines_are_told_in_order(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    instance = await running(world, adapter, new_request)
    assert instance.mark is not None
    for number in range(30):
        await world.say(instance.mark, f"line {number} é {'<&>' * number}")
    assert [line.split()[1] for line in await adapter.logs(instance.handle, 3)] == ["27", "28", "29"]
    assert len(await adapter.logs(instance.handle, 100)) == 30


async def test_the_token_opens_one_providers_logs_for_a_minute_and_is_one_that_providers_accept(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, oracle: Callable[..., Any]
) -> None:
    instance = await running(world, adapter, new_request)
    await adapter.logs(instance.handle, 1)
    claims = world.akash.state.claims
    assert claims["leases"] == {
        "access": "granular",
        "permissions": [{"provider": address("cheap"), "access": "scoped", "scope": ["logs"]}],
    }
    assert claims["exp"] - claims["iat"] == 60
    good, bad = oracle([claims, {**claims, "leases": {"access": "everything"}}])
    assert good["errors"] == [] and bad["errors"] != []


async def test_without_a_lease_there_are_none(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    instance = await adapter.launch(await new_request())
    assert list(await adapter.logs(instance.handle, 10)) == []


async def test_following_brings_history_and_news_and_ends_with_the_lease(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    assert isinstance(adapter, FollowsLogs)
    instance = await running(world, adapter, new_request)
    assert instance.mark is not None
    for line in ("one", "two"):
        await world.say(instance.mark, line)
    async with aclosing(adapter.follow(instance.handle, 1)) as lines:  # type: ignore[type-var]
        assert await _next(lines) == "two"
        await world.say(instance.mark, "three")
        assert await _next(lines) == "three"
        await world.lose(instance.mark)
        with pytest.raises(StopAsyncIteration):
            await _next(lines)


async def test_a_stream_that_breaks_off_is_opened_again_and_says_so(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    instance = await running(world, adapter, new_request)
    assert instance.mark is not None
    await world.say(instance.mark, "before")
    (item,) = world.akash.state.deployments.values()
    async with aclosing(adapter.follow(instance.handle, 10)) as lines:  # type: ignore[type-var]
        assert await _next(lines) == "before"
        item.dropped += 1
        assert "opened again" in await _next(lines)
        following = asyncio.ensure_future(anext(lines))
        for _ in range(100):  # the new stream starts with what comes after it was opened
            await world.say(instance.mark, "after")
            await asyncio.wait([following], timeout=0.1)
            if following.done():
                break
        assert following.result() == "after"


async def test_another_console_needs_its_own_proxy(world: AkashWorld, make: Make, new_request: NewRequest) -> None:
    context = world.context()
    assert context.settings.akash is not None
    unset = context.settings.akash.model_copy(update={"provider_proxy": None})
    adapter = make(replace(context, settings=context.settings.model_copy(update={"akash": unset})))
    instance = await running(world, adapter, new_request)
    with pytest.raises(Refused, match="providerProxy"):
        await adapter.logs(instance.handle, 10)


async def test_a_proxy_that_is_not_there_is_told(free_port: int) -> None:
    with pytest.raises(NotSent):
        await logs.tail(_source(f"ws://127.0.0.1:{free_port}"), 10)


# --- a proxy that speaks as it likes


def _source(proxy: str) -> logs.Source:
    return logs.Source(proxy, "https://provider.invalid:8443", _LEASE, "eyJh.eyJi.c2ln")


@asynccontextmanager
async def proxy(*frames: str, cut: bool = False) -> AsyncIterator[tuple[str, list[Any]]]:
    """Sends these frames to whoever subscribes, and then waits, or cuts the connection. Its address, and what it was asked."""
    asked: list[Any] = []

    async def speak(connection: ServerConnection) -> None:
        asked.append(json.loads(await connection.recv()))
        for frame in frames:
            await connection.send(frame)
        if cut:
            connection.transport.abort()
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def said(line: str) -> str:
    return json.dumps({"type": "websocket", "message": json.dumps({"name": "pod", "message": line})})


_CLOSED = json.dumps({"type": "websocket", "message": "", "closed": True, "code": 1000, "reason": ""})


async def test_the_subscription_names_the_lease_and_hands_over_the_token_alone() -> None:
    async with proxy(_CLOSED) as (url, asked):
        await logs.tail(_source(url), 7)
    lease = "https://provider.invalid:8443/lease/1795410420788/1/1"
    auth = {"type": "jwt", "token": "eyJh.eyJi.c2ln"}
    assert asked == [
        {
            "type": "websocket",
            "url": f"{lease}/logs?follow=false&tail=7",
            "auth": auth,
            "providerAddress": _LEASE.provider,
        }
    ]


async def test_frames_of_any_form_are_borne() -> None:
    raw = json.dumps({"name": "pod", "message": "as bytes\n"}).encode()
    frames = [
        said("plain\r\n"),
        json.dumps({"type": "websocket", "message": {"type": "Buffer", "data": list(raw)}}),
        json.dumps({"type": "websocket", "message": {"type": "Buffer", "data": ["x", 999]}}),
        json.dumps({"type": "websocket", "message": "no json"}),
        json.dumps({"type": "websocket", "message": json.dumps(["a", "list"])}),
        json.dumps({"type": "pong"}),
        json.dumps([1, 2]),
        said("last"),
        _CLOSED,
    ]
    async with proxy(*frames) as (url, _):
        assert list(await logs.tail(_source(url), 10)) == ["plain", "as bytes", "last"]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (json.dumps({"type": "websocket", "error": "tokenExpired"}), CredentialsRefused),
        (
            json.dumps({"type": "websocket", "message": "x", "error": "Received error from provider websocket"}),
            OutcomeUnknown,
        ),
        (json.dumps({"closed": True, "code": 1008, "reason": "invalidCertificate.unknownCertificate"}), OutcomeUnknown),
        (json.dumps({"closed": True, "code": 4001, "reason": "lease not found"}), OutcomeUnknown),
        ("no json at all", OutcomeUnknown),
    ],
)
async def test_what_went_wrong_is_raised(frame: str, kind: type[Exception]) -> None:
    async with proxy(said("one"), frame) as (url, _):
        with pytest.raises(kind):
            await logs.tail(_source(url), 10)


async def test_a_cut_connection_is_no_end() -> None:
    async with proxy(said("one"), cut=True) as (url, _):
        with pytest.raises(OutcomeUnknown):
            await logs.tail(_source(url), 10)


def test_the_token_is_in_no_repr() -> None:
    assert "eyJ" not in repr(_source("ws://x"))


async def _next(lines: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(lines), 30)
