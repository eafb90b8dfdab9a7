"""Whom a log waits for: a client that has kept up, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cal_relay.hub import TURN, Hub, Reader
from cal_relay.index import NodeRecord

pytestmark = pytest.mark.anyio


class _Clock:
    """The event loop's, which can be moved on: to the loop that is as if the whole process had not run for so long."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._real, self._ahead = self._loop.time, 0.0
        self._loop.time = lambda: self._real() + self._ahead  # type: ignore[method-assign]

    def move(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def clock() -> AsyncIterator[_Clock]:
    loop = asyncio.get_running_loop()
    before = loop.time
    yield _Clock()
    loop.time = before  # type: ignore[method-assign]


@pytest.fixture
def hub() -> Hub:
    return Hub(NodeRecord("n", "default", "uid", "deployment", 0, "", "demo", None))


async def _pressed(hub: Hub, reader: Reader) -> asyncio.Task[None]:
    """Lines up to the last that fits before the reader loses one, and the log waiting for it."""
    while not reader.pressed:
        hub.line("x")
    waiting = asyncio.create_task(hub.turn())
    await _pass()
    assert not waiting.done()
    return waiting


async def _pass() -> None:
    """A few rounds of the loop: what is due is done."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _read_all(hub: Hub, reader: Reader) -> int:
    """How many lines it lost."""
    lost = 0
    for _ in range(hub.ring.end // TURN):
        batch = await reader.read()
        assert batch is not None
        lost += batch.lost
    return lost


async def test_a_relay_that_was_held_up_itself_does_not_blame_its_clients(hub: Hub, clock: _Clock) -> None:
    with hub.reader(None) as reader:
        waiting = await _pressed(hub, reader)
        clock.move(60)
        await _pass()
        assert await _read_all(hub, reader) == 0
        await waiting
        assert not reader.slow


async def test_a_client_that_reads_nothing_is_waited_for_once(hub: Hub, clock: _Clock) -> None:
    with hub.reader(None) as reader:
        waiting = await _pressed(hub, reader)
        while not waiting.done():
            clock.move(1)
            await asyncio.sleep(0)
        assert reader.slow
        for _ in range(3 * TURN):
            hub.line("x")
        await asyncio.wait_for(hub.turn(), 60)
        assert await _read_all(hub, reader) > 0


async def test_a_client_that_leaves_is_not_waited_for(hub: Hub) -> None:
    with hub.reader(None) as reader:
        waiting = await _pressed(hub, reader)
    await waiting
    assert not reader.slow
