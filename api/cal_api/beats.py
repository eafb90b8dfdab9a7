"""Heartbeats that change nothing: kept here, written as a digest each 30 seconds, and read from the other replicas' digests.

One replica's digest is one ConfigMap for each 5,000 nodes, under names that stay the same over restarts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from cal_crds import heartbeats
from cal_crds.cluster import Cluster, ClusterError, NotFound
from cal_crds.meta import LABEL_CONTENT
from cal_crds.names import slug

_LOG = logging.getLogger(__name__)
_SHARD = 5000
#: A digest whose youngest beat is older is a former replica's.
_FORGET = timedelta(hours=1)


class Beats:
    """The last beat of each node, by uid."""

    def __init__(self, identity: str, namespace: str, now: Callable[[], datetime]) -> None:
        self._name = f"cal-api-beats-{slug(identity, 40)}"
        self._namespace, self._now = namespace, now
        self._own: dict[str, datetime] = {}
        self._others: dict[str, datetime] = {}

    def last(self, uid: str) -> datetime | None:
        """The last beat that any replica knows of; None if none."""
        known = [time for time in (self._own.get(uid), self._others.get(uid)) if time]
        return max(known, default=None)

    def record(self, uid: str, time: datetime) -> None:
        """A node's beat, just taken."""
        self._own[uid] = time

    async def run(
        self, cluster: Cluster, every: float, alive: Callable[[str], bool], changed: Callable[[str], None]
    ) -> None:
        """Write and read the digests, forever. `alive` tells which nodes still exist, `changed` hears of newer beats."""
        while True:
            try:
                await self.exchange(cluster, alive, changed)
            except ClusterError as error:
                _LOG.warning("digests of heartbeats: %s", error)
            await asyncio.sleep(every)

    async def exchange(self, cluster: Cluster, alive: Callable[[str], bool], changed: Callable[[str], None]) -> None:
        """One round. Reads first: a former self's digest is taken over, not overwritten."""
        await self._read(cluster, alive, changed)
        for gone in [uid for uid in self._own if not alive(uid)]:
            del self._own[gone]
        await self.write(cluster)

    async def write(self, cluster: Cluster) -> None:
        """The digests of this replica, each time anew: one that isn't touched for a while tells the operator that we are away, and
        then no node's silence counts."""
        for number, shard in enumerate(self._shards()):
            await self._write(cluster, number, shard)

    def _shards(self) -> Iterator[dict[str, datetime]]:
        beats = sorted(self._own.items())
        for start in range(0, len(beats), _SHARD):
            yield dict(beats[start : start + _SHARD])

    async def _write(self, cluster: Cluster, number: int, shard: dict[str, datetime]) -> None:
        body = heartbeats.build(f"{self._name}-{number}", self._namespace, shard, self._now())
        path = f"{self._path}/{body['metadata']['name']}"
        try:
            await cluster.merge_patch(path, body)
        except NotFound:
            await cluster.create(self._path, body)

    async def _read(self, cluster: Cluster, alive: Callable[[str], bool], changed: Callable[[str], None]) -> None:
        listing = await cluster.list(self._path, labelSelector=f"{LABEL_CONTENT}={heartbeats.CONTENT}")
        known: dict[str, datetime] = {}
        for item in listing["items"]:
            beats, ours = _parsed(item), item["metadata"]["name"].startswith(f"{self._name}-")
            for uid, time in beats.items():
                known[uid] = max(time, known.get(uid, time))
                if ours:
                    self._own.setdefault(uid, time)
            if not beats or max(beats.values()) < self._now() - _FORGET:
                await self._forget(cluster, item["metadata"]["name"])
        news = [uid for uid, time in known.items() if time > (self.last(uid) or _NEVER) and alive(uid)]
        self._others = known
        for uid in news:
            changed(uid)

    async def _forget(self, cluster: Cluster, name: str) -> None:
        """Drop a digest that says nothing any more; if it is ours, the next round writes it again."""
        with suppress(NotFound):
            await cluster.delete(f"{self._path}/{name}")

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps"


_NEVER = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _parsed(config_map: dict[str, object]) -> dict[str, datetime]:
    """The beats in a ConfigMap; one that somebody broke by hand counts as empty, and goes."""
    try:
        return heartbeats.parse(config_map)
    except (ValueError, AttributeError, TypeError):
        return {}
