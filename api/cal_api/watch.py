"""The watches: one per kind, list then follow, for as long as the process lives. They feed the store and do nothing else."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from cal_api.store import Store
from cal_api.table import Table
from cal_crds.cluster import Body, Cluster, ClusterError, Gone

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 10.0


class Watch:
    """Keeps one table in step with the API server."""

    def __init__(self, cluster: Cluster, store: Store, table: Table[Any], silence: float) -> None:
        self._cluster, self._store, self._table, self._silence = cluster, store, table, silence
        self._path = table.kind.path()
        self._version = ""
        self._pause = 0.1
        #: Lists made so far: the first, and one after each version that was too old.
        self.lists = 0
        #: Whether the API server answered the last time it was asked.
        self.connected = False

    async def run(self) -> None:
        """Forever. Only what the API server does wrong is caught: anything else is a fault of ours and ends the process."""
        while True:
            try:
                await self._turn()
            except Gone:
                self._version = ""
            except ClusterError as error:
                self.connected = False
                _LOG.warning("watch of %s: %s; again in %.1f s", self._table.kind.plural, error, self._pause)
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def rewind(self, version: str) -> None:
        """Go on from that version at the next turn; "" lists again."""
        self._version = version

    async def _turn(self) -> None:
        """List if need be, then follow until the server ends the watch or falls silent."""
        if not self._version:
            await self._list()
        events = self._cluster.watch(self._path, self._version)
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    event = await anext(events)
                self._take(event)
        except StopAsyncIteration:
            return
        except TimeoutError:
            _LOG.warning("watch of %s: silent for %.0f s; opened again", self._table.kind.plural, self._silence)
        finally:
            await _close(events)

    async def _list(self) -> None:
        listing = await self._cluster.list(self._path)
        version = listing["metadata"]["resourceVersion"]
        self._store.replace(self._table, listing["items"], int(version))
        self._version = version
        self.lists += 1
        self._answered()

    def _take(self, event: Body) -> None:
        body = event["object"]
        self._version = body["metadata"]["resourceVersion"]
        self._answered()
        if event["type"] == "DELETED":
            self._store.remove(self._table, body["metadata"]["uid"])
        elif event["type"] != "BOOKMARK":
            self._store.put(self._table, body)

    def _answered(self) -> None:
        self.connected, self._pause = True, 0.1


async def _close(events: AsyncIterator[Body]) -> None:
    closing = getattr(events, "aclose", None)
    if closing is not None:
        await closing()
