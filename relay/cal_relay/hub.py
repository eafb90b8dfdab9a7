"""One hub per node: one reading of its log at the provider, shared by all clients that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from cal_relay import frames
from cal_relay.index import NodeRecord
from cal_relay.metrics import Metrics
from cal_relay.ring import Batch, Ring

#: After so many lines without a pause the clients get their turn, or a burst would run over them.
TURN = 64
#: How often a log waits, once, for a client that has kept up so far, and for how many seconds each time: a relay that was itself held up
#: for long has waited once, not all the time.
PATIENCE, WAIT = 30, 0.1


@dataclass(frozen=True)
class Last:
    """The last word of a log: its end, or why it won't go on."""

    message: str
    failed: bool = False

    @property
    def frame(self) -> str:
        return frames.error(self.message) if self.failed else frames.end(self.message)


class Hub:
    """The log of one node as it comes in. Written by one reader of the provider (`upstream.py`), read by many clients."""

    def __init__(self, node: NodeRecord) -> None:
        self.node = node
        self.ring = Ring()
        self.last: Last | None = None
        #: Set as soon as there is something to send: the history, or a word on why it doesn't come yet.
        self.primed = asyncio.Event()
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._readers: set[Reader] = set()
        self._noticed: str | None = None

    def line(self, line: str) -> None:
        """A line of the log, clipped. Call `wake` after the last of several."""
        self._noticed = None
        self.ring.append(frames.log(line), is_line=True)

    def notice(self, text: str) -> None:
        """The relay's own words; the same ones are said once in a row."""
        if text != self._noticed:
            self._noticed = text
            self.ring.append(frames.notice(text), is_line=False)
            self.wake()

    def finish(self, last: Last) -> None:
        """Nothing follows."""
        self.last = last
        self.wake()

    def wake(self) -> None:
        """Let the clients read on."""
        self.primed.set()
        self._news.set()
        self._news = asyncio.Event()

    @contextmanager
    def reader(self, tail: int | None) -> Iterator[Reader]:
        """A client's place in the log, `tail` lines before the end; None: at the oldest line that is kept."""
        reader = Reader(self, self.ring.place_of_last(tail))
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self.progress()

    async def news(self, place: int) -> None:
        """Wait until there is something at `place`, or the log has ended."""
        while place >= self.ring.end and self.last is None:
            await self._news.wait()

    def progress(self) -> None:
        """A client has read on, or left."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def turn(self) -> None:
        """Let the clients read before a burst of lines goes on. Those that kept up so far are given three seconds, once, before they lose any."""
        await asyncio.sleep(0)
        for _ in range(PATIENCE):
            try:
                async with asyncio.timeout(WAIT):
                    await self._all_keep_up()
                    return
            except TimeoutError:
                continue
        for reader in self._readers:
            reader.slow = reader.slow or reader.pressed

    async def _all_keep_up(self) -> None:
        while any(reader.pressed for reader in self._readers):
            await self._progress.wait()


class Reader:
    """One client's place in a hub."""

    def __init__(self, hub: Hub, place: int) -> None:
        self._hub, self._place, self._sent = hub, place, place
        #: Whether it was waited for in vain; nobody waits for it again until it has caught up.
        self.slow = False

    @property
    def pressed(self) -> bool:
        """Whether it is about to lose lines for the first time."""
        return not self.slow and self._hub.ring.spare(self._sent) < 2 * TURN

    async def read(self) -> Batch | None:
        """What comes next, once there is something; None at the end. Asking for more says that what was read before is sent."""
        self._sent = self._place
        self.slow = self.slow and self._hub.ring.end - self._sent > TURN
        self._hub.progress()
        await self._hub.news(self._place)
        batch = self._hub.ring.read(self._place, TURN)
        self._place = batch.next
        return batch if batch.frames else None


#: Reads a node's log into its hub until it has ended; never raises.
Pump = Callable[[Hub], Coroutine[Any, Any, None]]


@dataclass
class _Running:
    hub: Hub
    task: asyncio.Task[None]
    clients: int = 0


class Hubs:
    """The hubs with clients. The first client starts the reading of a log, the last one to leave ends it."""

    def __init__(self, pump: Pump, metrics: Metrics) -> None:
        self._pump = pump
        self._metrics = metrics
        self._running: dict[str, _Running] = {}

    @asynccontextmanager
    async def join(self, node: NodeRecord) -> AsyncIterator[Hub]:
        """The hub of a node, for as long as the client stays."""
        running = self._running.get(node.uid) or self._start(node)
        running.clients += 1
        try:
            yield running.hub
        finally:
            running.clients -= 1
            if not running.clients:
                del self._running[node.uid]
                self._metrics.upstreams.set(len(self._running))
                await _end(running.task)

    def _start(self, node: NodeRecord) -> _Running:
        hub = Hub(node)
        running = _Running(hub, asyncio.create_task(self._pump(hub), name=f"log of {node.name}"))
        self._running[node.uid] = running
        self._metrics.upstreams.set(len(self._running))
        return running


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
