"""The log of a local workload: bounded, and followed without a gap or a repetition."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from worlds.contract_local import LocalWorld

from cal_adapters.contract import Mark, Observation, State
from cal_adapters.local.adapter import LocalAdapter
from cal_adapters.local.home import SEGMENT_BYTES, SEGMENTS, Home
from cal_adapters.local.logs import follow, last_lines
from cal_adapters.local.segments import LogWriter
from cal_crds.workload import Workload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_a_chatty_workload_keeps_a_bounded_log_with_the_latest_lines(
    here: LocalWorld, local: LocalAdapter, mark: Mark, reach: Callable[..., Awaitable[Observation]]
) -> None:
    code = "for n in range(300000): print(f'{n:08d}' + 'x' * 60)"
    instance = await local.launch(await here.request(mark, workload=Workload(command=[sys.executable, "-uc", code])))
    await reach(instance.handle, State.SUCCEEDED)
    home = Home(here.state_dir / "local" / "instances" / instance.handle)
    sizes = [home.segment(number).stat().st_size for number in home.segments()]
    assert len(sizes) <= SEGMENTS
    assert max(sizes) <= SEGMENT_BYTES + (1 << 16)
    assert sum(sizes) > SEGMENT_BYTES
    lines = await local.logs(instance.handle, 1000)
    assert [int(line[:8]) for line in lines] == list(range(299000, 300000))


class Follower:
    """Collects what `follow` brings, until `over` is set."""

    def __init__(self, home: Home, tail: int) -> None:
        self.seen: list[str] = []
        self.over = False
        self.task = asyncio.create_task(self._collect(home, tail))

    async def _collect(self, home: Home, tail: int) -> None:
        async for line in follow(home, tail, lambda: self.over):
            self.seen.append(line)


async def test_following_over_many_segments_misses_and_repeats_nothing(
    tmp_path: Path, eventually_async: Callable[..., Any]
) -> None:
    home = Home(tmp_path)
    writer = LogWriter(home, limit=500)
    for number in range(100):
        writer.write(f"line {number}\n".encode())
    follower = Follower(home, 10)

    async def has_read(count: int) -> bool:
        return len(follower.seen) >= count

    await eventually_async(partial(has_read, 10))
    for number in range(100, 400):
        # Two writes to a line, and never further ahead than the kept segments reach.
        writer.write(f"line {number}".encode())
        await eventually_async(partial(has_read, number - 120), interval=0)
        writer.write(b"\n")
    writer.write(b"unfinished")
    follower.over = True
    await follower.task
    writer.close()
    assert follower.seen == [f"line {number}" for number in range(90, 400)] + ["unfinished"]
    assert len(home.segments()) <= SEGMENTS


async def test_a_follower_that_is_too_slow_is_told_that_lines_are_missing(
    tmp_path: Path, eventually_async: Callable[..., Any]
) -> None:
    home = Home(tmp_path)
    writer = LogWriter(home, limit=500)
    writer.write(b"first\n")
    follower = Follower(home, 10)

    async def has_begun() -> bool:
        return follower.seen == ["first"]

    await eventually_async(has_begun)
    for number in range(1000):  # without a pause, so that segments come and go unread
        writer.write(f"line {number}\n".encode())
    follower.over = True
    await follower.task
    writer.close()
    assert follower.seen[-1] == "line 999"
    assert len([line for line in follower.seen if "lines are missing" in line]) == 1
    assert len(follower.seen) < 1000


async def test_lines_of_any_kind(tmp_path: Path) -> None:
    home = Home(tmp_path)
    writer = LogWriter(home)
    writer.write(b"carriage\r\n\nnot utf-8 \xff\n" + b"x" * 200_000 + b"\nlast, without an end")
    writer.close()
    lines = last_lines(home, 10)
    assert lines == ["carriage", "", "not utf-8 �", "x" * 200_000, "last, without an end"]
    assert last_lines(home, 2) == lines[-2:]
    assert last_lines(home, 0) == []


async def test_who_never_ends_a_line_is_bounded_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    writer = LogWriter(home, limit=1000)
    for _ in range(100):
        writer.write(b"x" * 300)
    writer.close()
    assert max(home.segment(number).stat().st_size for number in home.segments()) <= 3000


async def test_a_log_that_nobody_has_written_is_empty(tmp_path: Path) -> None:
    assert last_lines(Home(tmp_path), 10) == []
    lines: list[Any] = [line async for line in follow(Home(tmp_path), 10, lambda: True)]
    assert lines == []
