"""The last lines of nodes that have ended, out of the ConfigMaps that the operator keeps (`cal_crds.archive`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cal_crds import archive
from cal_crds.cluster import Cluster, NotFound
from cal_crds.meta import LABEL_CONTENT, LABEL_DEPLOYMENT, LABEL_NODE
from cal_relay.frames import clip
from cal_relay.index import NodeRecord
from cal_relay.shared import SharedList


@dataclass(frozen=True)
class Archived:
    """The archive of one node."""

    node: NodeRecord
    lines: list[str]


class Archives:
    """Reads live, never from a cache."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._all = SharedList(cluster, "/api/v1/configmaps", labelSelector=f"{LABEL_CONTENT}={archive.CONTENT}")

    async def of_node(self, node: NodeRecord) -> list[str] | None:
        """The archived lines of a node, None if there are none. ClusterError if the API server can't be asked."""
        path = f"/api/v1/namespaces/{node.namespace}/configmaps/{archive.name(node.name)}"
        try:
            body = await self._cluster.get(path)
        except NotFound:
            return None
        if body["metadata"].get("labels", {}).get(LABEL_NODE) != node.uid:
            return None
        return _lines(body)

    async def of_deployment(self, namespace: str, uid: str) -> list[Archived]:
        """All archives of a deployment, oldest first."""
        selector = f"{LABEL_CONTENT}={archive.CONTENT},{LABEL_DEPLOYMENT}={uid}"
        listed = await self._cluster.list(f"/api/v1/namespaces/{namespace}/configmaps", labelSelector=selector)
        found = [Archived(_node(body["metadata"]), _lines(body)) for body in listed["items"]]
        return sorted(found, key=lambda archived: archived.node.age)

    async def by_id(self, job_id: str) -> list[NodeRecord]:
        """The nodes, gone by now, whose archive bears this instance id or node uid. Youngest first."""
        found = [_node(meta) for meta in await self._all.metadata() if job_id in _ids(meta)]
        return sorted(found, key=lambda node: node.age, reverse=True)


def _lines(config_map: dict[str, Any]) -> list[str]:
    return [clip(line) for line in archive.unpack(config_map)]


def _ids(meta: dict[str, Any]) -> tuple[str | None, str | None]:
    return meta.get("annotations", {}).get(archive.INSTANCE), meta.get("labels", {}).get(LABEL_NODE)


def _node(meta: dict[str, Any]) -> NodeRecord:
    """What an archive tells of its node, which may be deleted since."""
    instance_id, uid = _ids(meta)
    return NodeRecord(
        name=meta["name"].removesuffix(archive.name("")),
        namespace=meta["namespace"],
        uid=uid or "",
        deployment=meta.get("labels", {}).get(LABEL_DEPLOYMENT, ""),
        slot=0,
        created=meta.get("creationTimestamp", ""),
        provider=meta.get("annotations", {}).get(archive.PROVIDER, ""),
        credential=None,
        instance_id=instance_id,
        gone=True,
    )
