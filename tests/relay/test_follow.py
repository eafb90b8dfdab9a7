"""Following a log over a real WebSocket, from a real relay process, out of the demo market."""

from __future__ import annotations

import socket
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_history_comes_first_then_what_follows_then_the_end(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("one", "two")
    client = await follow(node.id, f"/{market.provider}", provider=market.provider)
    await client.until_line("two")
    node.say("three")
    await client.until_line("three")
    node.end()
    code, reason = await client.rest()
    assert [line for line in client.lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert client.frames[-1] == {"type": "end", "message": f"the log of node {node.name} has ended"}
    assert code == 1000 and reason == client.frames[-1]["message"]


async def test_a_client_that_knows_only_log_frames_reads_of_the_end(follow: Any, market: Any) -> None:
    node = await market.node()
    node.end()
    client = await follow(node.id)
    await client.rest()
    assert client.frames[-2] == {"type": "log", "data": f"[relay] {client.frames[-1]['message']}", "notice": True}


async def test_the_end_says_how_it_ended_once_the_operator_knows(follow: Any, market: Any) -> None:
    node = await market.node()
    client = await follow(node.id)
    await client.until(lambda seen: seen.lines)
    node.end()
    ended = {"cause": "Completed", "message": "all done", "exitCode": 0, "time": "2026-01-01T00:00:00Z"}
    await node.status(ended=ended)
    await client.rest()
    assert client.frames[-1]["message"].endswith("has ended (Completed, exit code 0: all done)")


async def test_namesakes_at_two_providers_are_told_apart(follow: Any, make_market: Any) -> None:
    markets = [await make_market(), await make_market()]
    nodes = [await market.node() for market in markets]
    assert nodes[0].id == nodes[1].id
    for node in nodes:
        node.say(f"this is {node.name}")
    for node in nodes:
        by_frame = await follow(node.id, provider=node.market.provider)
        await by_frame.until_line(f"this is {node.name}")
        by_path = await follow(node.id, f"/{node.market.provider}")
        await by_path.until_line(f"this is {node.name}")


async def test_a_job_is_of_the_provider_that_the_frame_names_or_of_none(
    follow: Any, market: Any, make_market: Any
) -> None:
    node = await market.node()
    other = await make_market()
    client = await follow(node.uid, provider=other.provider)
    assert (await client.rest())[0] == 1008
    assert client.frames == [
        {"type": "error", "message": f"there is no job '{node.uid}' of provider '{other.provider}'"}
    ]


async def test_a_job_is_found_by_its_nodes_uid_and_by_an_earlier_id(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("here")
    first = await follow(node.id, provider=market.provider)
    await first.until_line("here")
    await node.status(instance={"id": "rolled-over"})
    for name in (node.uid, node.id, "rolled-over"):
        client = await follow(name, provider=market.provider)
        await client.until_line("here")


async def test_a_job_is_known_at_once(follow: Any, market: Any) -> None:
    """No client that was told an id by the api may be told that there is none."""
    for _ in range(10):
        node = await market.node()
        for job in (node.id, node.uid):
            client = await follow(job, provider=market.provider)
            assert (await client.frame())["type"] == "log"


async def test_addresses_sent_by_a_client_are_ignored(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("here")
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        address = f"127.0.0.1:{trap.getsockname()[1]}"
        client = await follow(node.id, provider=market.provider, nodeAddress=address, url=f"http://{address}")
        await client.until_line("here")
        with pytest.raises(BlockingIOError):
            trap.accept()


async def test_a_node_without_an_instance_is_waited_for(follow: Any, market: Any) -> None:
    node = await market.node(bought=False)
    client = await follow(node.uid)
    assert (await client.frame())["data"] == f"[relay] node {node.name} has no instance yet; its log follows"
    await market.buy(node)
    node.say("up")
    await client.until_line("up")


async def test_a_node_that_never_got_an_instance_ends(follow: Any, market: Any) -> None:
    node = await market.node(bought=False)
    client = await follow(node.uid)
    await client.frame()
    ended = {"cause": "NeverLaunched", "message": "no offers", "time": "2026-01-01T00:00:00Z"}
    await node.status(ended=ended, goneTime="2026-01-01T00:00:00Z")
    assert (await client.rest())[0] == 1000
    assert client.frames[-1]["message"].endswith("(NeverLaunched: no offers); no line of it was kept")


async def test_an_interruption_is_said_and_no_line_comes_twice(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("one")
    market.ledger.fail_next("logs", "NotSent")
    market.ledger.fail_next("logs", "RateLimited")
    client = await follow(node.id, provider=market.provider)
    await client.until_line("one")
    assert len(client.notices) == 2
    assert all("can't be read" in notice and "trying again" in notice for notice in client.notices)
    assert client.lines.count("one") == 1


async def test_refused_for_good_is_an_error_and_the_end(follow: Any, market: Any) -> None:
    node = await market.node()
    market.ledger.fail_next("logs", "Refused")
    client = await follow(node.id, provider=market.provider)
    assert (await client.rest())[0] == 1011
    assert client.frames[-1]["type"] == "error"
    assert "Refused on logs" in client.frames[-1]["message"]


async def test_revoked_credentials_are_said_and_heal(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("one")
    market.ledger.revoke()
    client = await follow(node.id, provider=market.provider)
    await client.until(lambda seen: seen.notices)
    assert "refuses these credentials" in client.notices[0]
    market.ledger.revoke(False)
    await client.until_line("one")


async def test_an_unknown_job_is_an_error(follow: Any) -> None:
    client = await follow("nobody's, job=\\ \u00e4")
    assert (await client.rest())[0] == 1008
    assert client.frames == [{"type": "error", "message": 'there is no job "nobody\'s, job=\\\\ \u00e4"'}]


async def test_a_missing_provider_is_said_and_tried_again(follow: Any, market: Any) -> None:
    node = await market.node(providerRef={"name": "nowhere"})
    client = await follow(node.uid)
    await client.until(lambda seen: seen.notices)
    assert "there is no provider 'nowhere' any more; trying again" in client.notices[0]


async def test_a_finished_workload_is_read_from_its_archive(follow: Any, market: Any) -> None:
    node = await market.node()
    await node.keep(["first", "last"])
    await node.status(goneTime="2026-01-01T00:00:00Z")
    # By its uid while the node is there, by its instance id after it was deleted.
    client = await follow(node.uid)
    assert (await client.rest())[0] == 1000
    assert client.lines == ["first", "last"]
    await node.delete()
    client = await follow(node.id, provider=market.provider)
    assert (await client.rest())[0] == 1000
    assert client.lines == ["first", "last"]
    assert client.frames[-1]["type"] == "end"


async def test_the_archive_of_an_earlier_node_of_the_same_name_is_not_shown(follow: Any, market: Any) -> None:
    node = await market.node()
    await node.keep(["of the earlier one"], uid="00000000-0000-4000-8000-000000000000")
    await node.status(goneTime="2026-01-01T00:00:00Z")
    client = await follow(node.uid)
    await client.until(lambda seen: seen.frames and seen.frames[-1]["type"] == "end")
    assert "of the earlier one" not in client.lines


async def test_a_stop_seen_while_following_ends_with_the_archive(follow: Any, market: Any) -> None:
    """The operator archives, then the instance and the node go; the client gets each line once, and the end."""
    node = await market.node()
    node.say("one")
    client = await follow(node.id, provider=market.provider)
    await client.until_line("one")
    await node.keep([*client.lines])
    node.say("after the archive was made")
    await client.until_line("after the archive was made")
    node.end()
    await node.status(goneTime="2026-01-01T00:00:00Z")
    await node.delete()
    assert (await client.rest())[0] == 1000
    assert client.lines.count("one") == 1
    assert client.notices == [f"[relay] the log of node {node.name} has ended"]


async def test_only_so_many_lines_of_history_as_asked_for(follow: Any, market: Any) -> None:
    node = await market.node()
    node.say("one", "two", "three")
    client = await follow(node.id, provider=market.provider, tail=2)
    await client.until_line("three")
    assert client.lines == ["two", "three"]
    none = await follow(node.id, provider=market.provider, tail=0)
    await none.socket.ping()
    node.say("four")
    assert (await none.frame())["data"] == "four"


async def test_odd_lines_arrive_whole(follow: Any, market: Any) -> None:
    node = await market.node()
    odd = ["", "\x1b[31mred\x1b[0m\t\r", "\x00", "\u00e9\U0001f600", '{"type": "end"}', "x" * 16384]
    node.say(*odd, "x" * 20000)
    client = await follow(node.id, provider=market.provider)
    await client.until(lambda seen: seen.lines and seen.lines[-1].endswith("more characters)"))
    assert client.lines[-7:-1] == odd
    assert client.lines[-1] == "x" * 16384 + "... (3616 more characters)"
