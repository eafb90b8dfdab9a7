"""One at a time: requests about the same thing wait for each other, so that each decides on what the one before left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from cal_api.errors import NotReady


class Turns:
    """A lock per thing, for as long as anybody holds it or waits for it; nobody waits longer than `patience` seconds."""

    def __init__(self, patience: float = 20.0) -> None:
        self._patience = patience
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, *thing: str) -> AsyncIterator[None]:
        """The turn at a thing. NotReady if those before hang: a client that is gone by then must not queue for ever."""
        lock = self._locks.get(thing)
        if lock is None:
            lock = self._locks[thing] = asyncio.Lock()
        try:
            async with asyncio.timeout(self._patience):
                await lock.acquire()
        except TimeoutError:
            raise NotReady("Other requests about the same thing are not done yet; try again") from None
        try:
            yield
        finally:
            lock.release()
