"""Ids that the cache doesn't know: asked of the API server itself, so that "not found" is exact, at a bounded rate.

There is no index by uid in Kubernetes. One metadata-only quorum LIST per kind answers everybody who waits for that kind; whoever
comes while it runs waits for the next one, since what they look for may be younger than the list.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cal_api.store import Store
from cal_api.table import Entry, Table
from cal_crds.cluster import Cluster, NotFound

Place = tuple[str, str]


class Lookup:
    """Finds the objects of one kind by uid."""

    def __init__(self, cluster: Cluster, store: Store, table: Table[Any], per_second: float) -> None:
        self._cluster, self._store, self._table = cluster, store, table
        self._interval = 1 / per_second
        self._next: asyncio.Task[dict[str, Place]] | None = None
        self._earliest = 0.0
        #: Lists made so far.
        self.lists = 0

    async def find(self, uid: str) -> Entry[Any] | None:
        """The object, from the cache or else from the API server; None if there is certainly none."""
        known = self._table.get(uid)
        if known is not None or self._table.known_gone(uid):
            return known
        if self._next is None:
            self._next = asyncio.create_task(self._list())
        # Shielded: the others who wait must not lose their answer with a client that hangs up.
        place = (await asyncio.shield(self._next)).get(uid)
        return await self._get(uid, *place) if place else None

    async def _list(self) -> dict[str, Place]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._earliest - loop.time()))
        self._earliest = loop.time() + self._interval
        self._next = None
        self.lists += 1
        listing = await self._cluster.list_metadata(self._table.kind.path())
        found = [item["metadata"] for item in listing.get("items") or []]
        return {meta["uid"]: (meta.get("namespace", ""), meta["name"]) for meta in found}

    async def _get(self, uid: str, namespace: str, name: str) -> Entry[Any] | None:
        try:
            body = await self._cluster.get(self._table.kind.path(namespace, name))
        except NotFound:
            return None
        entry = self._store.put(self._table, body)
        return entry if entry and entry.uid == uid else None
