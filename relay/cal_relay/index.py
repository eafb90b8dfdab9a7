"""Which nodes there are: a watch cache of ComputeNodes that keeps a few words of each, findable by every id a client may know.

5,000 nodes cost one watch and some megabytes, and no subscription costs a list. Whoever waits for a node to change is woken by the watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from cal_crds.cluster import Body, Cluster, ClusterError, Gone
from cal_crds.meta import NODE

_log = logging.getLogger(__name__)

#: A watch that says nothing for so long, not even a bookmark (each minute), is opened again. Seconds.
_SILENCE = 90.0
_RETRY = 1.0


@dataclass(frozen=True)
class NodeRecord:
    """What the relay needs to know of a ComputeNode."""

    name: str
    namespace: str
    uid: str
    deployment: str
    slot: int
    created: str
    provider: str
    credential: str | None
    handle: str | None = None
    instance_id: str | None = None
    #: How its instance ended, for people; None while it hasn't.
    ended: str | None = None
    #: Proven gone, or the node itself is deleted: only the archive can tell more.
    gone: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will be logged."""
        return self.gone or self.ended is not None

    @property
    def age(self) -> tuple[str, int, str]:
        """Sorts the oldest first."""
        return self.created, self.slot, self.name


def record(body: Body) -> NodeRecord:
    """The record of a ComputeNode as the API server gives it."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    instance, ended = status.get("instance") or {}, status.get("ended")
    return NodeRecord(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        deployment=spec["deploymentRef"]["uid"],
        slot=spec.get("slot", 0),
        created=meta.get("creationTimestamp", ""),
        provider=spec["providerRef"]["name"],
        credential=spec["providerRef"].get("credential"),
        handle=instance.get("handle"),
        instance_id=instance.get("id"),
        ended=_ended_text(ended) if ended else None,
        gone="goneTime" in status,
    )


def _ended_text(ended: dict[str, Any]) -> str:
    code = f", exit code {ended['exitCode']}" if "exitCode" in ended else ""
    message = f": {ended['message']}" if ended.get("message") else ""
    return f"{ended.get('cause', 'Ended')}{code}{message}"


class NodeIndex:
    """The cache. `run` keeps it current until it is cancelled."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes: dict[str, NodeRecord] = {}
        self._by_id: dict[str, set[str]] = {}
        self._by_deployment: dict[str, set[str]] = {}
        self._ids: dict[str, set[str]] = {}
        self._changes: dict[str, asyncio.Event] = {}
        #: What is wrong with the watch just now; None while it works.
        self.fault: str | None = "the nodes were not listed yet"

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> NodeRecord | None:
        return self._nodes.get(uid)

    def by_id(self, job_id: str) -> list[NodeRecord]:
        """The nodes with this uid, handle or instance id, which may also be an earlier one of a job that rolled over. Youngest first."""
        found = [self._nodes[uid] for uid in self._by_id.get(job_id, ())]
        return sorted(found, key=lambda node: node.age, reverse=True)

    def of_deployment(self, namespace: str, uid: str) -> list[NodeRecord]:
        """The nodes of a deployment, oldest first."""
        found = (self._nodes[node] for node in self._by_deployment.get(uid, ()))
        return sorted((node for node in found if node.namespace == namespace), key=lambda node: node.age)

    async def change(self, uid: str) -> None:
        """Wait until the record of this node changes or goes."""
        await self._changes.setdefault(uid, asyncio.Event()).wait()

    def put(self, node: NodeRecord) -> None:
        """Take over what the API server said of a node."""
        if self._nodes.get(node.uid) == node:
            return
        self._nodes[node.uid] = node
        self._by_deployment.setdefault(node.deployment, set()).add(node.uid)
        known = self._ids.setdefault(node.uid, set())
        for name in (node.uid, node.handle, node.instance_id):
            if name and name not in known:
                known.add(name)
                self._by_id.setdefault(name, set()).add(node.uid)
        self._wake(node.uid)

    def drop(self, uid: str) -> None:
        """Forget a node that is deleted."""
        node = self._nodes.pop(uid, None)
        if node is None:
            return
        _discard(self._by_deployment, node.deployment, uid)
        for name in self._ids.pop(uid):
            _discard(self._by_id, name, uid)
        self._wake(uid)

    def _wake(self, uid: str) -> None:
        if event := self._changes.pop(uid, None):
            event.set()

    async def run(self) -> None:
        """List, then watch, for ever; what goes wrong is said once and tried again."""
        version: str | None = None
        while True:
            try:
                version = version or await self._list()
                self._recovered()
                version = await self._watch(version)
            except Gone:
                version = None
            except ClusterError as error:
                self._failed(error.message)
                version = None
                await asyncio.sleep(_RETRY)

    def _recovered(self) -> None:
        if self.fault:
            _log.info("watching %d nodes", len(self._nodes))
        self.fault = None

    def _failed(self, message: str) -> None:
        if self.fault != message:
            _log.warning("nodes can't be watched: %s", message)
        self.fault = message

    async def _list(self) -> str:
        nodes, version = [], ""
        async for page in self._cluster.pages(NODE.path()):
            nodes += [record(item) for item in page["items"]]
            version = page["metadata"]["resourceVersion"]
        self._replace(nodes)
        return version

    def _replace(self, nodes: Iterable[NodeRecord]) -> None:
        present = {node.uid: node for node in nodes}
        for uid in self._nodes.keys() - present.keys():
            self.drop(uid)
        for node in present.values():
            self.put(node)

    async def _watch(self, version: str) -> str:
        """Follow events until the server ends the watch or falls silent; from where to go on."""
        async with aclosing(self._cluster.watch(NODE.path(), version)) as events:
            while True:
                try:
                    async with asyncio.timeout(_SILENCE):
                        event = await anext(events)
                except (StopAsyncIteration, TimeoutError):
                    return version
                body = event["object"]
                version = body["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self.drop(body["metadata"]["uid"])
                elif event["type"] != "BOOKMARK":
                    self.put(record(body))


def _discard(index: dict[str, set[str]], key: str, uid: str) -> None:
    index[key].discard(uid)
    if not index[key]:
        del index[key]
