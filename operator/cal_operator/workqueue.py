"""A keyed work queue: one key is never worked on twice at once, and a wake-up during its work runs it once more.

Keys wait in a heap until they are due. Each due key gets a task of its own: what is slow waits at its provider's gate, and holds up
nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from cal_operator.store import Key

log = logging.getLogger(__name__)

Work = Callable[[Key], Awaitable[float | None]]


class WorkQueue:
    """`work(key)` returns after how many seconds it wants to run again (None: only when woken)."""

    def __init__(self, work: Work, *, retry_seconds: float = 1.0, retry_max_seconds: float = 60.0) -> None:
        self._work = work
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._retry, self._retry_max = retry_seconds, retry_max_seconds
        self._draining = False

    def __len__(self) -> int:
        return len(self._due) + len(self._running)

    def wake(self, key: Key, after: float = 0.0) -> None:
        """Run the key in `after` seconds, or earlier if it is already due earlier."""
        due = monotonic() + after
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    async def run(self) -> None:
        """Hand out due keys until cancelled or drained."""
        while not self._draining:
            self._changed.clear()
            wait = self._start_due()
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
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

    def _start_due(self) -> float | None:
        """Start all that is due; the seconds until the next one is."""
        now = monotonic()
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # woken earlier since: the earlier entry counts
            elif due > now:
                return due - now
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                if key in self._running:
                    self._again.add(key)
                else:
                    self._running[key] = asyncio.create_task(self._run_one(key), name=f"reconcile {key.kind} {key.uid}")
        return None

    async def _run_one(self, key: Key) -> None:
        again: float | None = None
        try:
            again = await self._work(key)
            self._failures.pop(key, None)
        except asyncio.CancelledError:
            raise
        except Exception:  # The boundary: whatever one object does, the operator neither dies nor stalls on it.
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again = min(self._retry * 2 ** (failures - 1), self._retry_max)
            log.exception("reconcile of %s %s failed %d times; again in %.0f s", key.kind, key.uid, failures, again)
        finally:
            del self._running[key]
            if key in self._again:
                self._again.discard(key)
                self.wake(key)
        if again is not None:
            self.wake(key, again)
