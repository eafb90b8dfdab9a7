"""The reading of one node's log at its provider: history first, then as it comes; through interruptions, until it has ended.

Every way out is said to the clients. A log that breaks off is read again and laid over what was sent (`overlap.py`), so that no line
comes twice. It has ended when the operator's record says so, or when the provider's stream ends again and again without a new line.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

from cal_adapters.contract import FollowsLogs, Traits
from cal_adapters.errors import AdapterError, InstanceNotFound
from cal_adapters.registry import UnknownAdapter
from cal_crds.cluster import ClusterError, NotFound
from cal_relay.archives import Archives
from cal_relay.frames import clip
from cal_relay.hub import TURN, Hub, Last
from cal_relay.index import NodeIndex, NodeRecord
from cal_relay.metrics import Metrics
from cal_relay.overlap import HISTORY, Known

_log = logging.getLogger(__name__)

#: Seconds between two readings of a log that can't be followed.
_POLL = 2.0
#: How long a stream may go on after its node's end was seen; some lines may still be under way. Seconds.
_GRACE = 5.0
#: How long the history of a stream may take to come once it is open. Seconds.
_REPLAY = 10.0
#: Lines that a stream is asked to begin with where the whole log was short just now: what a burst adds until the stream is open must not
#: push its beginning out of sight.
_YOUNG = 50 * HISTORY
#: A stream that ends so often without a new line has ended, whatever the record says.
_ENDS = 3
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
#: However long a provider asks to be left alone. Seconds.
_LONGEST_WAIT = 300.0


class Source(Protocol):
    """The part of an adapter that logs are read with; one that also FollowsLogs is followed."""

    @property
    def traits(self) -> Traits: ...

    async def logs(self, handle: str, tail: int) -> Sequence[str]: ...


#: Lends the source of a provider and credential, as `Adapters.lend` does.
Lend = Callable[[str, str | None], AbstractAsyncContextManager[Source]]


class Upstreams:
    """Makes the pump of the hubs out of what they all share."""

    def __init__(self, index: NodeIndex, lend: Lend, archives: Archives, metrics: Metrics) -> None:
        self.index, self.lend, self.archives, self.metrics = index, lend, archives, metrics

    async def pump(self, hub: Hub) -> None:
        """Fill a hub until its log has ended; whatever happens, the hub is told."""
        try:
            hub.finish(await Upstream(self, hub).run())
        except Exception:  # noqa: BLE001
            # The boundary: without it, a fault of ours or of an adapter would leave clients waiting for lines that never come.
            _log.exception("the log of node %s can't be read", hub.node.name)
            hub.finish(Last(f"the log of node {hub.node.name} can't be read: internal fault of the relay", failed=True))


class Upstream:
    """One node's log on its way into its hub."""

    def __init__(self, shared: Upstreams, hub: Hub) -> None:
        self._shared, self._hub = shared, hub
        self._known = Known()
        self._delay = _FIRST_DELAY
        self._ends = 0

    async def run(self) -> Last:
        """Read until the end; its last word."""
        while True:
            node = self._node()
            try:
                last = await self._attempt(node)
            except (AdapterError, ClusterError, UnknownAdapter, TimeoutError) as error:
                last = await self._interrupted(node, error)
            if last:
                return last

    def _node(self) -> NodeRecord:
        """The node as it is now. One that is deleted meanwhile has nothing left but its archive."""
        return self._shared.index.get(self._hub.node.uid) or replace(self._hub.node, gone=True)

    async def _attempt(self, node: NodeRecord) -> Last | None:
        """Read for as long as it goes; the last word if that was the end."""
        if node.gone or (node.over and node.handle is None):
            return await self._end(node)
        if node.handle is None:
            self._hub.notice(f"node {node.name} has no instance yet; its log follows")
            await self._wait(_LONGEST_DELAY)
            return None
        try:
            await self._read(node, node.handle)
        except InstanceNotFound:
            _log.info("provider %s has forgotten the instance of node %s", node.provider, node.name)
        except AdapterError:
            # What ended is in the archive, whether or not its provider still answers.
            if not self._node().over or not await self._shared.archives.of_node(node):
                raise
        return await self._after_stream()

    async def _read(self, node: NodeRecord, handle: str) -> None:
        """The log from the provider, until its stream ends."""
        async with self._shared.lend(node.provider, node.credential) as adapter:
            history = await _history(adapter, handle)
            self._take(history)
            self._hub.wake()
            self._delay = _FIRST_DELAY
            if isinstance(adapter, FollowsLogs):
                tail = HISTORY if len(history) >= HISTORY else _YOUNG
                await self._until_over(self._follow(adapter.follow(handle, tail), len(history)))
            else:
                await self._poll(adapter, handle)

    async def _follow(self, lines: AsyncIterator[str], history: int) -> None:
        """Take lines as they come. A stream repeats the history first, so many lines of it at least: they are laid over what is known."""
        replay: list[str] = []
        try:
            async with asyncio.timeout(_REPLAY):
                while len(replay) < history:
                    replay.append(await anext(lines))
        except (StopAsyncIteration, TimeoutError):
            return self._take(replay)
        self._take(replay)
        count = 0
        async for line in lines:
            self._add(clip(line))
            self._hub.wake()
            count += 1
            if count % TURN == 0:
                await self._hub.turn()
        return None

    async def _until_over(self, stream: Coroutine[Any, Any, None]) -> None:
        """Let a stream run until it ends by itself, or hangs although its node is known to be over."""
        following = asyncio.create_task(stream)
        over = asyncio.create_task(self._over())
        try:
            await asyncio.wait([following, over], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([following], timeout=_GRACE)
        finally:
            over.cancel()
            following.cancel()
            await asyncio.wait([following])
        if not following.cancelled():
            following.result()

    async def _over(self) -> None:
        while not self._node().over:
            await self._shared.index.change(self._hub.node.uid)

    async def _poll(self, adapter: Source, handle: str) -> None:
        """In place of following: read the end of the log again and again."""
        while not self._node().over:
            await self._wait(_POLL)
            self._take(await _history(adapter, handle))

    async def _after_stream(self) -> Last | None:
        """A stream has ended. That is the end if the record says so too, or if it happens again and again without a new line."""
        self._ends += 1
        node = self._node()
        if node.over or self._ends >= _ENDS:
            return await self._end(node)
        await self._wait(_FIRST_DELAY * 2 ** (self._ends - 1))
        return None

    async def _end(self, node: NodeRecord) -> Last:
        """The last word, after what the operator kept, as far as it wasn't sent already."""
        kept = await self._shared.archives.of_node(node)
        # Archived before the stop, so it may well be older than the last line that was followed.
        if kept and not self._known.covers(kept):
            self._take(kept)
        message = f"the log of node {node.name} has ended" + (f" ({node.ended})" if node.ended else "")
        return Last(message if self._known or not node.gone else f"{message}; no line of it was kept")

    async def _interrupted(self, node: NodeRecord, error: Exception) -> Last | None:
        """Say it and wait before the next attempt; the last word if no attempt can help."""
        text = explain(node, error)
        retryable = error.retryable if isinstance(error, AdapterError) else not isinstance(error, UnknownAdapter)
        if not retryable:
            return Last(text, failed=True)
        self._shared.metrics.interruptions.labels(node.provider).inc()
        self._hub.notice(f"{text}; trying again")
        asked = (isinstance(error, AdapterError) and error.retry_after) or 0.0
        await self._wait(max(min(asked, _LONGEST_WAIT), self._delay * random.uniform(0.75, 1.25)))
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        return None

    async def _wait(self, seconds: float) -> None:
        """That long, or until the operator records something about the node."""
        try:
            async with asyncio.timeout(seconds):
                await self._shared.index.change(self._hub.node.uid)
        except TimeoutError:
            return

    def _take(self, read: Sequence[str]) -> None:
        """The end of the log, read again or for the first time."""
        lines = [clip(line) for line in read]
        new = self._known.new(lines)
        if new is None:
            self._hub.notice("lines may be missing here: the log went on while it could not be read")
            self._known.broken()
            new = lines
        for line in new:
            self._add(line)
        if new:
            self._hub.wake()

    def _add(self, line: str) -> None:
        self._known.add(line)
        self._ends = 0
        self._hub.line(line)
        self._shared.metrics.lines.inc()


async def _history(adapter: Source, handle: str) -> Sequence[str]:
    async with asyncio.timeout(adapter.traits.call_timeout_seconds):
        return await adapter.logs(handle, HISTORY)


def explain(node: NodeRecord, error: Exception) -> str:
    """For people: why a node's log can't be read just now."""
    match error:
        case NotFound():
            why = f"there is no provider {node.provider!r} any more"
        case ClusterError():
            why = f"the API server can't be asked: {error.message}"
        case TimeoutError():
            why = f"provider {node.provider!r} does not answer in time"
        case _:
            why = str(error)
    return f"the log of node {node.name} can't be read: {why}"
