"""The reading of one log, from a source that breaks, hangs and repeats itself on demand. Nodes and archives are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from cal_adapters.contract import Traits
from cal_adapters.errors import InstanceNotFound, OutcomeUnknown
from cal_crds.provider import Capabilities
from cal_relay.archives import Archives
from cal_relay.hub import Hub, Hubs, Last
from cal_relay.index import NodeIndex, record
from cal_relay.metrics import Metrics
from cal_relay.upstream import Upstreams

pytestmark = pytest.mark.anyio

_TRAITS = Traits(Capabilities(adapter_type="depin"))


@dataclass
class Polled:
    """A provider whose logs can only be read, not followed."""

    log: list[str] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    traits: Traits = _TRAITS
    readings: int = 0

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        self.readings += 1
        if self.faults:
            raise self.faults.pop(0)
        return self.log[-tail:]


@dataclass
class Followed(Polled):
    """A provider that streams the log that there is, then what its next script says: lines, an error, None for hanging."""

    scripts: list[Sequence[str | Exception | None]] = field(default_factory=list)
    streams: int = 0

    async def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        self.streams += 1
        for line in self.log[-tail:]:
            yield line
        for word in self.scripts.pop(0) if self.scripts else [None]:
            match word:
                case None:
                    await asyncio.Event().wait()
                case Exception():
                    raise word
                case str():
                    self.log.append(word)
                    yield word


@dataclass
class Bursting(Followed):
    """One that logs a lot between the reading of its history and the opening of the stream."""

    burst: Sequence[str] = ()

    async def follow(self, handle: str, tail: int) -> AsyncIterator[str]:
        self.log += self.burst
        async for line in super().follow(handle, tail):
            yield line


@dataclass
class Bench:
    """One node, its hub and the task that fills it."""

    hub: Hub
    index: NodeIndex
    node: Any

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.hub.ring.read(0, 10**6).frames]

    @property
    def lines(self) -> list[str]:
        return [frame["data"] for frame in self.frames if "notice" not in frame]

    @property
    def notices(self) -> list[str]:
        return [frame["data"] for frame in self.frames if "notice" in frame]


@pytest.fixture
async def read(cluster: Any, market: Any, eventually_async: Any) -> AsyncIterator[Callable[..., Any]]:
    """`await read(source)`: a node whose log is being read from that source."""
    index, archives, metrics = NodeIndex(cluster), Archives(cluster), Metrics()
    tasks = [asyncio.create_task(index.run())]

    async def start(source: Any) -> Bench:
        @asynccontextmanager
        async def lend(provider: str, credential: str | None) -> AsyncIterator[Any]:
            yield source

        node = await market.node()
        known = await eventually_async(lambda: _now((found := index.get(node.uid)) and found.handle and found))
        hub = Hub(known)
        tasks.append(asyncio.create_task(Upstreams(index, lend, archives, metrics).pump(hub)))
        return Bench(hub, index, node)

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _now(value: Any) -> Any:
    return value


async def test_a_burst_before_the_stream_is_open_is_not_passed_over(read: Any, eventually_async: Any) -> None:
    burst = [f"{number}" for number in range(1500)]
    bench = await read(Bursting(log=["start"], burst=burst))
    await eventually_async(lambda: _now(bench.lines[-1:] == ["1499"]))
    assert bench.lines == ["start", *burst]
    assert bench.notices == []


async def test_a_stream_that_breaks_goes_on_without_doubles(read: Any, eventually_async: Any) -> None:
    cut = OutcomeUnknown("the connection was cut")
    source = Followed(["h1", "h2"], scripts=[["a", "b", cut], ["c", cut], ["d", None]])
    bench = await read(source)
    await eventually_async(lambda: _now("d" in bench.lines))
    assert bench.lines == ["h1", "h2", "a", "b", "c", "d"]
    assert (
        bench.notices
        == [f"[relay] the log of node {bench.node.name} can't be read: the connection was cut; trying again"] * 2
    )


async def test_lines_that_came_while_the_stream_was_broken_are_there(read: Any, eventually_async: Any) -> None:
    source = Followed(["h"], scripts=[["a", OutcomeUnknown("cut")], [None]], faults=[])
    bench = await read(source)
    await eventually_async(lambda: _now(bench.notices))
    source.log += ["missed 1", "missed 2"]
    await eventually_async(lambda: _now("missed 2" in bench.lines))
    assert bench.lines == ["h", "a", "missed 1", "missed 2"]


async def test_a_gap_that_can_not_be_closed_is_said(read: Any, eventually_async: Any) -> None:
    source = Followed(["h"], scripts=[["a", OutcomeUnknown("cut")], [None]])
    bench = await read(source)
    await eventually_async(lambda: _now(bench.notices))
    source.log[:] = [f"much later {number}" for number in range(1000)]
    await eventually_async(lambda: _now("much later 999" in bench.lines))
    assert bench.notices[-1] == "[relay] lines may be missing here: the log went on while it could not be read"
    assert bench.lines == ["h", "a", *source.log]


async def test_a_log_of_many_thousand_lines_is_followed_to_the_end(read: Any, eventually_async: Any) -> None:
    source = Followed([f"old {number}" for number in range(5000)], scripts=[[f"new {n}" for n in range(5000)]])
    bench = await read(source)
    await eventually_async(lambda: _now(bench.hub.ring.end == 6000))
    assert bench.lines == [f"new {number}" for number in range(3000, 5000)]


async def test_a_stream_that_just_ends_again_and_again_has_ended(read: Any, eventually_async: Any) -> None:
    source = Followed(["h"], scripts=[["a"], [], [], []])
    bench = await read(source)
    await eventually_async(lambda: _now(bench.hub.last))
    assert bench.lines == ["h", "a"]
    assert not bench.hub.last.failed
    assert source.streams == 3, "the record said nothing: it looked again before it believed the stream"


async def test_a_stream_that_hangs_ends_when_its_node_is_gone(read: Any, eventually_async: Any, market: Any) -> None:
    bench = await read(Followed(["h"]))
    await eventually_async(lambda: _now(bench.lines))
    await bench.node.keep(["h", "last words"])
    await bench.node.status(goneTime="2026-01-01T00:00:00Z")
    await eventually_async(lambda: _now(bench.hub.last))
    assert bench.lines == ["h", "last words"]


async def test_an_instance_that_the_provider_has_forgotten_ends(read: Any, eventually_async: Any) -> None:
    bench = await read(Followed(faults=[InstanceNotFound("no such job")] * 3))
    await eventually_async(lambda: _now(bench.hub.last))
    assert not bench.hub.last.failed


async def test_a_log_that_can_only_be_read_is_read_again_and_again(read: Any, eventually_async: Any) -> None:
    source = Polled(["one"])
    bench = await read(source)
    await eventually_async(lambda: _now(bench.lines == ["one"]))
    source.log.append("two")
    await eventually_async(lambda: _now(bench.lines == ["one", "two"]))
    ended = {"cause": "Crashed", "message": "", "exitCode": 1, "time": "2026-01-01T00:00:00Z"}
    source.log.append("three")
    await bench.node.status(ended=ended)
    await eventually_async(lambda: _now(bench.hub.last))
    assert bench.lines == ["one", "two", "three"]
    assert bench.hub.last.message.endswith("has ended (Crashed, exit code 1)")


async def test_a_fault_of_ours_is_the_last_word_and_not_a_silence(
    read: Any, eventually_async: Any, caplog: Any
) -> None:
    bench = await read(Followed(faults=[ZeroDivisionError("a bug")]))
    await eventually_async(lambda: _now(bench.hub.last))
    assert bench.hub.last.failed
    assert bench.hub.last.message.endswith("internal fault of the relay")
    assert "ZeroDivisionError" in caplog.text


async def test_the_last_client_to_leave_ends_the_reading(cluster: Any, market: Any) -> None:
    node = record((await market.node()).body)
    running = asyncio.Event()
    ended = asyncio.Event()

    async def pump(hub: Hub) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    hubs = Hubs(pump, Metrics())
    async with hubs.join(node) as first:
        async with hubs.join(node) as second:
            assert first is second
            await running.wait()
        assert not ended.is_set()
    assert ended.is_set()
    async with hubs.join(node) as third:
        assert third is not first


async def test_what_ended_is_in_the_archive_though_its_provider_fails(read: Any, eventually_async: Any) -> None:
    bench = await read(Followed(faults=[OutcomeUnknown("the gateway is down")] * 1000))
    await eventually_async(lambda: _now(bench.notices))
    await bench.node.keep(["kept"])
    ended = {"cause": "Completed", "message": "", "exitCode": 0, "time": "2026-01-01T00:00:00Z"}
    await bench.node.status(ended=ended)
    await eventually_async(lambda: _now(bench.hub.last))
    assert bench.lines == ["kept"] and not bench.hub.last.failed


async def test_a_burst_waits_for_those_who_keep_up_and_once_for_those_who_do_not(market: Any) -> None:
    hub = Hub(record((await market.node()).body))

    async def burst() -> None:
        for number in range(10000):
            hub.line(str(number))
            hub.wake()
            if number % 64 == 0:
                await hub.turn()
        hub.finish(Last("over"))

    async def keep_up() -> list[str]:
        seen: list[str] = []
        with hub.reader(None) as reader:
            while batch := await reader.read():
                assert not batch.lost
                seen += batch.frames
                await asyncio.sleep(0)
        return seen

    with hub.reader(None) as stuck:
        _, seen = await asyncio.gather(burst(), keep_up())
        assert [json.loads(frame)["data"] for frame in seen] == [str(number) for number in range(10000)]
        assert stuck.slow
        batch = await stuck.read()
        assert batch and batch.lost == 8000
