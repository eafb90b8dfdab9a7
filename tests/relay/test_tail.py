"""`GET /tail/...`: the last lines of a deployment, over all its nodes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from cal_crds.modelkeys import derive

pytestmark = pytest.mark.anyio


async def _tail(relay: Any, market: Any, eventually_async: Any, count: int | None = None, nodes: int = 1) -> Any:
    """The answer, once the relay knows of the nodes."""
    query = f"?tail={count}" if count is not None else ""

    async def known() -> Any:
        status, body = relay.get(f"/tail/{market.namespace}/{market.deployment_uid}{query}")
        assert status != 200 or nodes == 0 or body["provider"] is not None
        return status, body

    return await eventually_async(known)


async def test_a_running_node_through_its_adapter(relay: Any, market: Any, eventually_async: Any) -> None:
    node = await market.node()
    node.say("one", "two", "three")
    status, body = await _tail(relay, market, eventually_async, 2)
    assert status == 200
    assert body == {"lines": ["two", "three"], "provider": market.provider}


async def test_the_key_that_a_model_prints_is_not_told(
    relay: Any, market: Any, follow: Any, eventually_async: Any
) -> None:
    node = await market.node()
    key = derive(b"x" * 32, market.deployment_uid)
    node.say(f'api_key: Some("{key}")')
    told = 'api_key: Some("[the model\'s API key]")'
    _, body = await _tail(relay, market, eventually_async)
    assert body["lines"][-1] == told
    follower = await follow(node.id)
    await follower.until_line(told)
    node.say(key)
    await follower.until_line("[the model's API key]")
    assert not [frame for frame in follower.frames if key in str(frame)]


async def test_a_hundred_lines_unless_told(relay: Any, market: Any, eventually_async: Any) -> None:
    node = await market.node()
    node.say(*(str(number) for number in range(150)))
    _, body = await _tail(relay, market, eventually_async)
    assert body["lines"] == [str(number) for number in range(50, 150)]


async def test_an_ended_node_from_its_archive_even_when_it_is_deleted(
    relay: Any, market: Any, eventually_async: Any
) -> None:
    node = await market.node()
    node.say("at the provider")
    await node.keep(["kept", "last"])
    await node.status(goneTime="2026-01-01T00:00:00Z")

    async def kept() -> None:
        _, body = await _tail(relay, market, eventually_async)
        assert body == {"lines": ["kept", "last"], "provider": market.provider}

    await eventually_async(lambda: _true(kept()))
    await node.delete()
    await kept()
    _, body = await _tail(relay, market, eventually_async, 1)
    assert body["lines"] == ["last"]


async def _true(check: Any) -> bool:
    await check
    return True


async def test_several_nodes_share_the_room_and_are_named(relay: Any, market: Any, eventually_async: Any) -> None:
    first, second = await market.node(), await market.node()
    for node in (first, second):
        node.say(*(f"line {number}" for number in range(9)))

    async def both() -> bool:
        _, body = await _tail(relay, market, eventually_async, 4)
        assert body["lines"] == [f"[{node.name}] line {number}" for node in (first, second) for number in (7, 8)]
        return True

    await eventually_async(both)


async def test_a_node_that_can_not_be_read_does_not_hide_the_others(
    relay: Any, market: Any, make_market: Any, eventually_async: Any
) -> None:
    node, broken = await market.node(), await market.node(providerRef={"name": "nowhere"})
    node.say("fine")

    async def both() -> bool:
        status, body = await _tail(relay, market, eventually_async)
        assert status == 200
        fault = f"the log of node {broken.name} can't be read: there is no provider 'nowhere' any more"
        assert body["lines"][-2:] == [f"[{node.name}] fine", f"[{broken.name}] {fault}"]
        return True

    await eventually_async(both)


@pytest.mark.parametrize("fault", ["NotSent", "OutcomeUnknown", "RateLimited", "Refused"])
async def test_a_provider_that_fails_is_a_502_that_says_why(
    relay: Any, market: Any, eventually_async: Any, fault: str
) -> None:
    node = await market.node()
    assert (await _tail(relay, market, eventually_async))[0] == 200
    market.ledger.fail_next("logs", fault)
    status, body = relay.get(f"/tail/{market.namespace}/{market.deployment_uid}")
    assert status == 502
    assert body["detail"].startswith(f"the log of node {node.name} can't be read: demo market: {fault} on logs")


async def test_an_instance_that_the_provider_forgot_has_no_lines(
    relay: Any, market: Any, eventually_async: Any
) -> None:
    node = await market.node()
    await node.status(instance={"handle": "demo-999999999"})

    async def seen() -> bool:
        status, body = await _tail(relay, market, eventually_async)
        assert (status, body["lines"]) == (200, [])
        return True

    await eventually_async(seen)


def test_an_unknown_deployment_has_no_lines(relay: Any, namespace: str) -> None:
    answer = relay.get(f"/tail/{namespace}/00000000-0000-0000-0000-000000000000")
    assert answer == (200, {"lines": [], "provider": None})


@pytest.mark.parametrize("tail", ["0", "-1", "1001", "ten", "", "1e2", "9" * 5000, "\u0663"])
def test_a_bad_tail_is_a_400(relay: Any, namespace: str, tail: str) -> None:
    status, body = relay.get(f"/tail/{namespace}/1?tail={quote(tail)}")
    assert status == 400
    assert body["detail"] == f"tail: {tail[:50]!r} isn't a whole number from 1 to 1000"


@pytest.mark.parametrize(
    "path", ["/tail/..%2f../1", "/tail/%2e%2e/1", "/tail/a/b%2Cc=d", "/tail/a/%00", "/tail/a/" + "x" * 64]
)
def test_a_bad_name_is_refused(relay: Any, path: str) -> None:
    status, body = relay.get(path)
    assert status in (400, 404)
    assert "detail" in body
