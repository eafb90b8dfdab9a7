"""Logs from a running host and from an ended job's result: history once, news as they come, the end said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cal_adapters.contract import State
from cal_adapters.errors import CredentialsRefused, InstanceNotFound, OutcomeUnknown
from cal_adapters.nosana import logs

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps, in less time."""
    monkeypatch.setattr(logs, "_PAUSE", 0.05)
    monkeypatch.setattr(logs, "_SILENCE", 0.3)


async def collect(lines: AsyncIterator[str], into: list[str]) -> None:
    async for line in lines:
        into.append(line)


async def said(rig: Any, mark: Any, *lines: str) -> None:
    for line in lines:
        await rig.tell("job", name=str(mark), do="say", line=line)


async def test_a_tail_of_what_runs_then_of_what_ended(rig: Any) -> None:
    mark, instance = await rig.running()
    await said(rig, mark, "one", "two\nthree", "four\r\n")
    assert await rig.adapter.logs(instance.handle, 3) == ["two", "three", "four"]
    assert (await rig.adapter.logs(instance.handle, 100))[0] == "Pulling image"
    await rig.tell("job", name=str(mark), do="end", exit_code=1)
    assert await rig.adapter.logs(instance.handle, 2) == ["three", "four"]
    await rig.gone(instance.handle)
    assert await rig.adapter.logs(instance.handle, 2) == ["three", "four"]


async def test_before_it_runs_there_is_nothing(rig: Any) -> None:
    await rig.tell("delays", claim=3600)
    _, instance = await rig.launched()
    assert await rig.adapter.logs(instance.handle, 10) == []
    await rig.advance(2)
    assert (await rig.adapter.observe(instance.handle)).state is State.STARTING
    assert await rig.adapter.logs(instance.handle, 10) == []


async def test_following_starts_before_the_job_and_brings_every_line_once(rig: Any, eventually_async: Any) -> None:
    await rig.tell("delays", claim=5)
    mark, instance = await rig.launched()
    heard: list[str] = []
    following = asyncio.create_task(collect(rig.adapter.follow(instance.handle, 10), heard))
    await rig.advance(10)
    await said(rig, mark, "one", "two")

    async def both() -> bool:
        return heard[-2:] == ["one", "two"]

    await eventually_async(both, 15)
    await said(rig, mark, "three")
    await rig.tell("job", name=str(mark), do="end")
    await asyncio.wait_for(following, 15)
    assert heard == ["Pulling image", "one", "two", "three"]


async def test_following_survives_a_host_that_breaks_off(rig: Any, eventually_async: Any) -> None:
    mark, instance = await rig.running()
    await said(rig, mark, "one", "same", "same")
    heard: list[str] = []
    following = asyncio.create_task(collect(rig.adapter.follow(instance.handle, 3), heard))

    async def first() -> bool:
        return heard == ["one", "same", "same"]

    await eventually_async(first, 15)
    await rig.tell("hosts", drop=True)
    await said(rig, mark, "two")

    async def second() -> bool:
        return heard == ["one", "same", "same", "two"]

    await eventually_async(second, 15)
    await rig.tell("job", name=str(mark), do="end")
    await asyncio.wait_for(following, 15)
    assert heard == ["one", "same", "same", "two"]


async def test_equal_lines_of_one_moment_are_all_said_and_none_twice(rig: Any, eventually_async: Any) -> None:
    mark, instance = await rig.running()
    heard: list[str] = []
    following = asyncio.create_task(collect(rig.adapter.follow(instance.handle, 5), heard))
    await rig.tell("job", name=str(mark), do="say", line="dot", times=3)

    async def there() -> bool:
        return heard.count("dot") == 3

    await eventually_async(there, 15)
    await rig.tell("hosts", drop=True)
    await said(rig, mark, "end")

    async def again() -> bool:
        return heard[-1:] == ["end"]

    await eventually_async(again, 15)
    await rig.tell("job", name=str(mark), do="end")
    await asyncio.wait_for(following, 15)
    assert heard.count("dot") == 3


async def test_following_ends_although_the_host_keeps_the_connection(rig: Any) -> None:
    await rig.tell("delays", hosts_linger=True)
    mark, instance = await rig.running()
    await said(rig, mark, "one")
    heard: list[str] = []
    following = asyncio.create_task(collect(rig.adapter.follow(instance.handle, 1), heard))
    await asyncio.sleep(0)
    await rig.tell("job", name=str(mark), do="end")
    await asyncio.wait_for(following, 15)
    assert heard == ["one"]


async def test_following_what_has_ended_gives_the_result_and_ends(rig: Any) -> None:
    mark, instance = await rig.running()
    await said(rig, mark, "one", "two")
    await rig.tell("job", name=str(mark), do="end", exit_code=3)
    heard: list[str] = []
    await asyncio.wait_for(collect(rig.adapter.follow(instance.handle, 1), heard), 15)
    assert heard == ["two"]


async def test_following_what_never_ran_ends(rig: Any) -> None:
    await rig.tell("delays", list=3600)
    _, instance = await rig.launched()
    await rig.advance(1)
    await rig.gone(instance.handle)
    heard: list[str] = []
    await asyncio.wait_for(collect(rig.adapter.follow(instance.handle, 1), heard), 15)
    assert heard == []


async def test_a_header_without_its_message_gets_it(rig: Any) -> None:
    await rig.tell("delays", bare_header=True)
    mark, instance = await rig.running()
    await said(rig, mark, "one")
    assert await rig.adapter.logs(instance.handle, 1) == ["one"]


async def test_a_refused_header_is_said(rig: Any) -> None:
    _, instance = await rig.running()
    forged = {"header": "DEPLOYMENT_HEADER:forged"}
    await rig.fault(r"/header$", "status", status=200, body=forged, times=0)
    with pytest.raises(CredentialsRefused, match="header"):
        await rig.adapter.logs(instance.handle, 1)
    with pytest.raises(CredentialsRefused, match="header"):
        await collect(rig.adapter.follow(instance.handle, 1), [])


async def test_a_host_out_of_reach_is_said_not_passed_over(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.tell("hosts", down=True)
    with pytest.raises(OutcomeUnknown, match="doesn't show the log"):
        await rig.adapter.logs(instance.handle, 1)
    with pytest.raises(OutcomeUnknown, match="doesn't show the log"):
        await asyncio.wait_for(collect(rig.adapter.follow(instance.handle, 1), []), 30)


async def test_frames_that_can_not_be_read_are_said_without_their_content(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.tell("hosts", frame="hunter2 {")
    with pytest.raises(OutcomeUnknown, match="can't be read") as raised:
        await rig.adapter.logs(instance.handle, 1)
    assert "hunter2" not in str(raised.value)


async def test_following_what_was_deleted_is_not_found(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.advance(60)
    await rig.tell("deployment", name=str(mark), delete=True)
    with pytest.raises((InstanceNotFound, OutcomeUnknown)):
        await asyncio.wait_for(collect(rig.adapter.follow(instance.handle, 1), []), 15)
