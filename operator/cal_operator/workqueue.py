"""A keyed work queue: one key is never worked on twice at once, and a wake-up during its work runs it once more.

Keys wait in a heap until they are due, then in the line of their lane. Each lane works on a bounded number at once: a provider that hangs
fills its own lane and holds up nothing else, and the event loop is never so full that the Lease can't be renewed.

A lane may feed another one: it begins nothing while that one is crowded. So what is under way is finished before more is begun, and a
thousand new objects pass one after the other, each at once, instead of all of them slowly. Where what is under way never ends (a provider
that stops nothing), one is begun all the same from time to time.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from time import monotonic

from cal_operator.store import Key

log = logging.getLogger(__name__)

Work = Callable[[Key], Awaitable[float | None]]


class WorkQueue:
    """`work(key)` returns after how many seconds it wants to run again (None: only when woken). `lane(key)` names its lane, and
    `feeds(lane)` the lane that it makes work for (None: no such lane).

    `lane_size`: how many keys a lane works on at once. `ahead`: how many keys, in line or at work, are begun for a lane that is fed.
    `patience_seconds`: after so long one is begun for it however much it has to do.
    """

    def __init__(
        self,
        work: Work,
        lane: Callable[[Key], str] = lambda key: key.kind,
        feeds: Callable[[str], str | None] = lambda lane: None,
        *,
        lane_size: int = 24,
        ahead: int = 12,
        patience_seconds: float = 5.0,
        retry_seconds: float = 1.0,
        retry_max_seconds: float = 60.0,
    ) -> None:
        self._work, self._lane, self._feeds = work, lane, feeds
        self._lane_size, self._ahead, self._patience = lane_size, ahead, patience_seconds
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._waiting: defaultdict[str, deque[Key]] = defaultdict(deque)
        self._busy: defaultdict[str, int] = defaultdict(int)
        #: When a lane last began something, or had something to begin again.
        self._begun: dict[str, float] = {}
        #: The lanes that feed a lane.
        self._feeders: defaultdict[str, set[str]] = defaultdict(set)
        self._lined_up: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._retry, self._retry_max = retry_seconds, retry_max_seconds
        self._draining = False

    def __len__(self) -> int:
        """Keys that are due or worked on."""
        return len(self._lined_up) + len(self._running)

    def wake(self, key: Key, after: float = 0.0) -> None:
        """Run the key in `after` seconds, or earlier if it is already due earlier."""
        due = monotonic() + after
        if key not in self._lined_up and due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    async def run(self) -> None:
        """Hand out due keys until cancelled or drained."""
        while not self._draining:
            self._changed.clear()
            wait = self._line_up()
            try:
                # Not `wait_for`: on Python 3.11 it may swallow a cancellation.
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def drain(self, timeout: float) -> None:
        """Start nothing more, and wait for what runs; cancel what is not done in time."""
        self._draining = True
        self._changed.set()
        tasks = list(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _line_up(self) -> float | None:
        """Move what is due into its lane; the seconds until the next one is."""
        now = monotonic()
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) == due and due > now:
                return due - now
            heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # woken earlier since: the earlier entry counted
            del self._due[key]
            if key in self._running:
                self._again.add(key)
            else:
                self._lined_up.add(key)
                lane = self._lane(key)
                if not self._waiting[lane]:
                    self._begun[lane] = now
                self._waiting[lane].append(key)
                if (fed := self._feeds(lane)) is not None:
                    self._feeders[fed].add(lane)
                self._start(lane)
        return None

    def _start(self, lane: str) -> None:
        """Begin what the lane has room for."""
        line = self._waiting[lane]
        while line and self._busy[lane] < self._lane_size and not self._draining and not self._crowded(lane):
            key = line.popleft()
            self._lined_up.discard(key)
            self._busy[lane] += 1
            self._begun[lane] = monotonic()
            self._running[key] = asyncio.create_task(self._run_one(key, lane), name=f"reconcile {key.kind} {key.uid}")

    def _crowded(self, lane: str) -> bool:
        """Whether the lane that this one feeds has enough to do, with what this one is making for it."""
        fed = self._feeds(lane)
        if fed is None or self._busy[lane] + self._busy[fed] + len(self._waiting[fed]) < self._ahead:
            return False
        return monotonic() - self._begun[lane] < self._patience

    async def _run_one(self, key: Key, lane: str) -> None:
        again: float | None = None
        try:
            again = await self._work(key)
            self._failures.pop(key, None)
        except Exception:  # The boundary: whatever one object does, the operator neither dies nor stalls on it.
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again = min(self._retry * 2 ** (failures - 1), self._retry_max)
            log.exception("reconcile of %s %s failed %d times; again in %.0f s", key.kind, key.uid, failures, again)
        finally:
            self._busy[lane] -= 1
            del self._running[key]
            if key in self._again:
                self._again.discard(key)
                self.wake(key)
            for freed in (lane, *self._feeders[lane]):
                self._start(freed)
        if again is not None:
            self.wake(key, again)
