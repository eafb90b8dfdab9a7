"""Writes to the API server, overlaid on the cache at once: what this process wrote, it shows, whatever its watch has seen.

Objects are created and changed by server-side apply without force (see `ownership`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cal_api import ownership
from cal_api.errors import Conflict, NotFound, NotReady
from cal_api.store import Store
from cal_api.table import Entry, Table
from cal_crds import cluster
from cal_crds.cluster import Body, Cluster
from cal_crds.meta import API_VERSION, MANAGER_API, NODE

#: No object ever has this version: an apply that carries it makes a new object, or is refused when there is one.
_NO_VERSION = "1"
_TRIES = 8
#: How often a create whose answer was lost is tried again, and after how many seconds.
_LOST_ANSWERS, _PAUSE = 2, 0.3


class Exists(Exception):
    """There is an object of that name."""


@dataclass(frozen=True)
class Changed:
    """A change that was carried out, and the tool that may undo it."""

    entry: Entry[Any]
    managed_by: str | None

    @property
    def headers(self) -> dict[str, str]:
        """`Warning`, if a tool keeps the object in line."""
        return warning_headers(self.managed_by)


class Writer:
    """Everything that the api writes, except digests."""

    def __init__(self, connection: Cluster, store: Store, patience: float = 20.0) -> None:
        """After `patience` seconds nothing is tried again."""
        self._cluster, self._store, self._patience = connection, store, patience

    async def create(self, table: Table[Any], namespace: str, body: Body, *, unique: bool = False) -> Entry[Any]:
        """A new object. Exists if the name is taken: etcd decides, no look beforehand could.

        `unique`: nobody else would choose this name. So when an answer is lost it is tried again under the same name, and what is found
        there then is the first try's: the client is not left to ask again and get a second one.
        """
        metadata = {**body["metadata"], "namespace": namespace, "resourceVersion": _NO_VERSION}
        whole = {"apiVersion": API_VERSION, "kind": table.kind.name, **body, "metadata": metadata}
        path = table.kind.path(namespace, metadata["name"])
        until = asyncio.get_running_loop().time() + self._patience
        for attempt in range(_LOST_ANSWERS + 1):
            try:
                return self._taken(table, await self._cluster.apply(path, whole, MANAGER_API))
            except cluster.Conflict as error:
                if not (unique and attempt):
                    raise Exists from error
                return self._taken(table, await self._cluster.get(path))
            except cluster.Unavailable:
                late = asyncio.get_running_loop().time() >= until
                if late or not unique or attempt == _LOST_ANSWERS:
                    raise
                await asyncio.sleep(_PAUSE)
        raise AssertionError("every turn returns or raises")

    async def change(self, table: Table[Any], entry: Entry[Any], change: Mapping[str, Any]) -> Changed:
        """Merge `change` into what the api owns of the object. Conflict names the manager that owns one of its fields."""
        path = table.kind.path(entry.namespace, entry.name)
        for _ in range(_TRIES):
            live = await self._live(table, entry, path)
            wanted = ownership.merged(ownership.applied(live, MANAGER_API), change)
            version = {"name": entry.name, "resourceVersion": live["metadata"]["resourceVersion"]}
            whole = ownership.merged(wanted, {"apiVersion": API_VERSION, "kind": table.kind.name, "metadata": version})
            try:
                made = await self._cluster.apply(path, whole, MANAGER_API)
            except cluster.Conflict as error:
                if message := ownership.conflicting(error):
                    raise Conflict(message) from error
                continue  # somebody wrote in between, like the operator its status: look again
            return Changed(self._taken(table, made), ownership.managed_by(live["metadata"]))
        raise NotReady(f"{entry.name} changes too fast just now; try again")

    async def delete(self, table: Table[Any], entry: Entry[Any]) -> None:
        """Ask for deletion of that very object; one that is gone already is no error."""
        path = table.kind.path(entry.namespace, entry.name)
        try:
            left = await self._cluster.delete(path, uid=entry.uid)
        except (cluster.NotFound, cluster.Conflict):
            self._store.remove(table, entry.uid)
            return
        if left.get("kind") == table.kind.name and left["metadata"].get("deletionTimestamp"):
            self._store.put(table, left)
        else:
            self._store.remove(table, entry.uid)

    async def create_secret(self, namespace: str, secret: Body) -> None:
        """A Secret, which nobody here will ever read."""
        await self._cluster.create(f"/api/v1/namespaces/{namespace}/secrets", secret, fieldManager=MANAGER_API)

    async def heartbeat(self, entry: Entry[Any], beat: Mapping[str, Any]) -> None:
        """Reported values of a node; those not named stay."""
        path = NODE.path(entry.namespace, entry.name, "status")
        patch = {"metadata": {"uid": entry.uid}, "status": {"heartbeat": dict(beat)}}
        try:
            made = await self._cluster.merge_patch(path, patch, fieldManager=MANAGER_API)
        except (cluster.NotFound, cluster.Conflict) as error:
            raise NotFound("Node not found") from error
        self._store.put(self._store.nodes, made)

    async def _live(self, table: Table[Any], entry: Entry[Any], path: str) -> Body:
        live = await self._cluster.get(path)
        if live["metadata"]["uid"] != entry.uid:
            self._store.remove(table, entry.uid)
            raise NotFound(f"{table.kind.name} {entry.uid} not found")
        return live

    def _taken(self, table: Table[Any], body: Body) -> Entry[Any]:
        entry = self._store.put(table, body)
        if entry is None:  # deleted again since; the watch was faster
            raise NotFound(f"{table.kind.name} {body['metadata']['uid']} not found")
        return entry


def warning_headers(managed_by: str | None) -> dict[str, str]:
    """`Warning`, if a tool keeps the object in line."""
    return {"Warning": ownership.warning(managed_by)} if managed_by else {}
