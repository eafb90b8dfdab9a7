"""A list of the API server that many may ask for at once."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from cal_crds.cluster import Cluster


class SharedList:
    """A collection's metadata, listed anew for whoever asks, but once for all who wait and at most once in `every` seconds.

    What was listed before somebody asked is never given to them, so a miss is a miss.
    """

    def __init__(self, cluster: Cluster, path: str, every: float = 1.0, **query: str) -> None:
        self._cluster, self._path, self._query, self._every = cluster, path, query, every
        self._lock = asyncio.Lock()
        self._items: list[dict[str, Any]] = []
        self._started = float("-inf")

    async def metadata(self) -> list[dict[str, Any]]:
        """The `metadata` of every item as of now. ClusterError if the API server can't be asked."""
        asked = monotonic()
        async with self._lock:
            if self._started < asked:
                await asyncio.sleep(self._started + self._every - monotonic())
                started = monotonic()
                listed = await self._cluster.list_metadata(self._path, **self._query)
                self._items, self._started = [item["metadata"] for item in listed["items"] or ()], started
            return self._items
