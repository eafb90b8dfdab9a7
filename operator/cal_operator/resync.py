"""Compare the store with the API server, kind by kind: an object deleted while the watch was down would stay for ever, and one that was
taken for gone, by an answer that wasn't the API server's own, would never be looked at again."""

from __future__ import annotations

import logging

from cal_crds.cluster import NotFound
from cal_crds.meta import KINDS, Kind
from cal_operator.world import World

log = logging.getLogger(__name__)


async def load(world: World) -> None:
    """The first picture: every object of every kind, by a quorum read."""
    for kind in KINDS:
        async for page in world.cluster.pages(kind.path()):
            for item in page["items"]:
                world.store.put(kind.name, {"apiVersion": page["apiVersion"], "kind": kind.name, **item})


async def compare(world: World) -> None:
    """One round: forget what is confirmed gone, fetch what is newer."""
    for kind in KINDS:
        await _compare(world, kind)


async def _compare(world: World, kind: Kind) -> None:
    found = await world.cluster.list_metadata(kind.path())
    listed_at = int(found["metadata"]["resourceVersion"])
    listed = {item["metadata"]["uid"]: item["metadata"] for item in found["items"] or ()}
    known = world.store.table(kind.name).versions()
    for uid, version in known.items():
        if uid not in listed and version <= listed_at:
            await _confirm_gone(world, kind, uid)
    for uid, metadata in listed.items():
        if known.get(uid, -1) < int(metadata["resourceVersion"]):
            await _fetch(world, kind, metadata["namespace"] if kind.namespaced else None, metadata["name"])


async def _confirm_gone(world: World, kind: Kind, uid: str) -> None:
    body = world.store.table(kind.name).body(uid)
    if body is not None and await world.fetch(kind, uid) is None:
        log.info("%s %s is gone, and the watch didn't say so", kind.name, body["metadata"]["name"])
        world.forget(kind, body)


async def _fetch(world: World, kind: Kind, namespace: str | None, name: str) -> None:
    try:
        body = await world.cluster.get(kind.path(namespace, name))
    except NotFound:
        return
    world.store.table(kind.name).unforget(body["metadata"]["uid"])
    world.learn(kind, body)
