"""From the job id of a subscription to a node. Nothing else that a client says about where to read is believed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cal_crds.cluster import Cluster, NotFound
from cal_crds.meta import NODE
from cal_relay.archives import Archives
from cal_relay.index import NodeIndex, NodeRecord, record
from cal_relay.shared import SharedList

#: No field selector finds an object by its uid.
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Resolver:
    """Looks in the watch cache first, then asks the API server, then looks at the archives of nodes that are gone."""

    def __init__(self, cluster: Cluster, index: NodeIndex, archives: Archives) -> None:
        self._cluster, self._index, self._archives = cluster, index, archives
        self._all = SharedList(cluster, NODE.path())

    async def find(self, job_id: str, provider: str | None, path: str) -> NodeRecord | None:
        """The node of a job, whose provider must be `provider` if that is told. `path` of the URL decides between namesakes.

        ClusterError if the API server had to be asked and couldn't be.
        """
        for look in (self._cached, self._live, self._archives.by_id):
            if ours := [node for node in await look(job_id) if provider in (None, node.provider)]:
                return _by_path(ours, path)
        return None

    async def _cached(self, job_id: str) -> list[NodeRecord]:
        return self._index.by_id(job_id)

    async def _live(self, job_id: str) -> list[NodeRecord]:
        """The cache may be some milliseconds behind a client that has just been told the id."""
        if _UID.fullmatch(job_id):
            nodes = await self._by_uid(job_id)
        else:
            listed = await self._cluster.list(NODE.path(), fieldSelector=f"status.instance.id={_escaped(job_id)}")
            nodes = [record(item) for item in listed["items"]]
        for node in nodes:
            self._index.put(node)
        return sorted(nodes, key=lambda node: node.age, reverse=True)

    async def _by_uid(self, uid: str) -> list[NodeRecord]:
        named = [meta for meta in await self._all.metadata() if meta["uid"] == uid]
        try:
            return [record(await self._cluster.get(NODE.path(meta["namespace"], meta["name"]))) for meta in named]
        except NotFound:
            return []


def _by_path(nodes: Sequence[NodeRecord], path: str) -> NodeRecord:
    parts = path.split("/")
    return next((node for node in nodes if node.provider in parts), nodes[0])


def _escaped(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)
