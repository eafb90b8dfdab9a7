"""What the reconciles share: the store, the API server, the accounts, the clock, and the tasks that nothing may split."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from cal_crds.base import Model, Resource
from cal_crds.cluster import Cluster, NotFound
from cal_crds.meta import DEPLOYMENT, NODE, POOL, PROVIDER, Kind
from cal_operator.accounts import Accounts
from cal_operator.clock import Clock, seconds
from cal_operator.events import Events
from cal_operator.leader import Leader
from cal_operator.liveness import Liveness
from cal_operator.model_keys import ModelKeys
from cal_operator.nodes.memory import Memories
from cal_operator.patch import status_patch
from cal_operator.settings import Settings
from cal_operator.store import Key, Store
from cal_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

T = TypeVar("T")
S = TypeVar("S", bound=Model)


@dataclass
class World:
    """Made once by `main`. Every reconcile gets it; none keeps state of its own beside it."""

    cluster: Cluster
    clock: Clock
    settings: Settings
    installation: str
    store: Store
    accounts: Accounts
    events: Events
    leader: Leader
    liveness: Liveness
    memories: Memories = field(default_factory=Memories)
    #: Offers that had no room lately: (provider, offer id) -> (until, monotonic; why).
    cooling: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    #: Nodes asked of an offer since the provider's offers were last read: (provider, offer id) -> count.
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    pool_locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    #: Since when a deployment's status waits to be written (monotonic).
    held: dict[str, float] = field(default_factory=dict)
    #: Provider Secrets that carry our finalizer, as far as this process knows.
    held_secrets: set[str] = field(default_factory=set)
    queue: WorkQueue = field(init=False)
    model_keys: ModelKeys = field(init=False)
    #: Of pools and providers: what concerns those who use them.
    _concern: dict[str, str] = field(default_factory=dict)
    _critical: set[asyncio.Task[Any]] = field(default_factory=set)
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.model_keys = ModelKeys(self.cluster, self.settings.system_namespace)

    @property
    def term_start(self) -> datetime:
        assert self.leader.term_start is not None, "reconciles run only while leading"
        return self.leader.term_start

    def steady(self) -> datetime:
        """The time as the term's start plus what a monotonic clock has counted since: setting the machine's clock doesn't move it.

        For what is measured against the start of the term (rule 2): a jump ahead must not pass for time in which look-ups stayed negative.
        """
        return self.term_start + seconds(self.clock.monotonic() - self.leader.term_began)

    # --- waking ----------------------------------------------------------------------------------------------------------

    def wake(self, kind: Kind, uid: str | None, after: float = 0.0) -> None:
        if uid is not None:
            self.queue.wake(Key(kind.name, uid), after)

    def learn(self, kind: Kind, body: dict[str, Any], *, itself: bool = True) -> None:
        """Take in what the watch brought, or the reply to one of our own writes before the watch brings it, and wake whom it concerns.

        `itself`: the object too. Not for a reconcile's last write, after which it knows itself when it wants to look again.
        """
        uid = body["metadata"]["uid"]
        before = self._concern.get(uid)
        if self.store.put(kind.name, body):
            if itself:
                self.wake(kind, uid)
            self._wake_above(kind, body)
            if kind in (POOL, PROVIDER) and (after := _concern(body)) != before:
                self._concern[uid] = after
                self._wake_users(kind, body)

    def forget(self, kind: Kind, body: dict[str, Any]) -> None:
        """Take in that an object is gone, and wake whom it concerns."""
        uid = body["metadata"]["uid"]
        twins = self.store.pools_titled_like(body) if kind is POOL else []
        members = self.store.node_uids_of(uid) if kind is DEPLOYMENT else []
        if kind is POOL:
            members = self.store.deployment_uids_in_pool(body["metadata"]["namespace"], body["metadata"]["name"])
        self.store.remove(kind.name, uid)
        self.wake(kind, uid)
        self._wake_above(kind, body)
        for twin in twins:
            self.wake(POOL, twin)
        for member in members:
            self.wake(NODE if kind is DEPLOYMENT else DEPLOYMENT, member)
        if kind is NODE:
            self.memories.forget(uid)
        self._concern.pop(uid, None)
        self.held.pop(uid, None)

    def _wake_above(self, kind: Kind, body: dict[str, Any]) -> None:
        """Whoever sums the object up."""
        metadata, spec = body["metadata"], body.get("spec", {})
        if kind is NODE:
            self.wake(DEPLOYMENT, spec["deploymentRef"]["uid"], self._node_merge(body))
            self.wake(POOL, spec["poolRef"]["uid"], self.settings.pool_merge_seconds)
            if metadata.get("deletionTimestamp"):
                self.wake(PROVIDER, self.store.providers.uid_of(None, spec["providerRef"]["name"]), 1.0)
        elif kind is DEPLOYMENT and spec.get("poolRef"):
            pool = self.store.pools.uid_of(metadata["namespace"], spec["poolRef"]["name"])
            self.wake(POOL, pool, self.settings.pool_merge_seconds)

    def _node_merge(self, node: dict[str, Any]) -> float:
        """For how long a node's change waits for more. One that is on its way shows only in states that are held anyway."""
        facts, status = self.store.facts_of(node["metadata"]["uid"]), node.get("status") or {}
        on_its_way = facts is not None and not (
            facts.ready or facts.gone or status.get("ended") or status.get("message")
        )
        deleting = node["metadata"].get("deletionTimestamp") is not None
        return self.settings.hold_seconds / 2 if on_its_way and not deleting else self.settings.node_merge_seconds

    def _wake_users(self, kind: Kind, body: dict[str, Any]) -> None:
        """A pool's deployments, a provider's pools. Only when something changed that concerns them: a pool's counts change all
        the time, and waking a thousand deployments for each would be quadratic."""
        if kind is POOL:
            for uid in self.store.deployment_uids_in_pool(body["metadata"]["namespace"], body["metadata"]["name"]):
                self.wake(DEPLOYMENT, uid)
            for uid in self.store.pools_titled_like(body):
                self.wake(POOL, uid)
        else:
            for uid in self.store.pools.uids():
                self.wake(POOL, uid)

    # --- writing ---------------------------------------------------------------------------------------------------------

    async def write_status(
        self, kind: Kind, old: Resource, old_status: S, new_status: S, *, exact: bool = False, again: bool = True
    ) -> bool:
        """One merge patch of a status, only if something changed. False if the object is gone.

        `again`: look at the object once more after the write. That is done in any case where the reply tells of a wish that `old`
        didn't hold: the watch's event about it is older than the reply, and wakes nobody any more.
        `exact`: only if nobody has written the object since `old` was read; Conflict otherwise.
        """
        patch = status_patch(old_status, new_status)
        if not patch:
            return True
        path = kind.path(old.metadata.namespace, old.metadata.name, "status")
        # The uid makes a later object of the same name safe from this status.
        metadata = {"uid": old.metadata.uid}
        if exact and old.metadata.resource_version is not None:
            metadata["resourceVersion"] = old.metadata.resource_version
        body = {"metadata": metadata, "status": patch}
        try:
            reply = await self.cluster.merge_patch(path, body)
        except NotFound:
            if (known := self.store.table(kind.name).body(old.metadata.uid)) is not None:
                self.forget(kind, known)
            return False
        self.learn(kind, reply, itself=again or _wished_since(old, reply))
        return True

    async def set_finalizers(self, kind: Kind, seen: Resource, finalizers: list[str]) -> None:
        """Write the finalizers of an object as it was `seen` by whoever decided; Conflict if it was written since: nobody else's is lost,
        and nothing goes over what wasn't looked at."""
        old = seen.metadata
        metadata = {"uid": old.uid, "resourceVersion": old.resource_version, "finalizers": finalizers}
        try:
            reply = await self.cluster.merge_patch(kind.path(old.namespace, old.name), {"metadata": metadata})
        except NotFound:
            if (known := self.store.table(kind.name).body(old.uid)) is not None:
                self.forget(kind, known)
            return
        if reply["metadata"].get("deletionTimestamp") and not reply["metadata"].get("finalizers"):
            self.forget(kind, reply)
        else:
            self.learn(kind, reply)

    async def delete(self, kind: Kind, resource: Resource) -> None:
        """Ask for an object's deletion; of that very object only."""
        path = kind.path(resource.metadata.namespace, resource.metadata.name)
        try:
            reply = await self.cluster.delete(path, uid=resource.metadata.uid)
        except NotFound:
            body = self.store.table(kind.name).body(resource.metadata.uid)
            if body is not None:
                self.forget(kind, body)
            return
        if reply.get("kind") == kind.name:
            self.learn(kind, reply)

    async def fetch(self, kind: Kind, uid: str) -> dict[str, Any] | None:
        """A known object by a quorum read; None when it is gone, or another one bears its name."""
        table = self.store.table(kind.name)
        try:
            body = await self.cluster.get(table.path(uid))
        except NotFound:
            return None
        except KeyError:
            return None
        if body["metadata"]["uid"] != uid:
            return None
        self.learn(kind, body)
        return body

    # --- what nothing may split --------------------------------------------------------------------------------------------

    async def whole(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Carry `work` out to its end, whatever becomes of the caller: neither cancellation nor shutdown splits it."""
        task = asyncio.create_task(work, name=name)
        self._critical.add(task)
        task.add_done_callback(self._critical.discard)
        return await asyncio.shield(task)

    def background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Carry `work` out beside the rest. It ends with the process: the sweep of the next one takes it up again."""
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), error)

    async def finish(self, timeout: float) -> bool:
        """Wait for what must not be split. False if something is still under way after `timeout` seconds."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=1.0)  # a request that is cut off closes its connection
        if not self._critical:
            return True
        _, late = await asyncio.wait(self._critical, timeout=timeout)
        return not late


def _wished_since(old: Resource, reply: dict[str, Any]) -> bool:
    """Whether somebody has changed an object's spec, or asked for its deletion, since `old` was read."""
    metadata = reply["metadata"]
    deleting = metadata.get("deletionTimestamp") is not None
    return metadata.get("generation") != old.metadata.generation or deleting != (
        old.metadata.deletion_timestamp is not None
    )


def _concern(body: dict[str, Any]) -> str:
    """What of a pool or a provider matters to those who use it: its spec, its end, its conditions."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = sorted((c["type"], c["status"], c["reason"]) for c in status.get("conditions", ()))
    return repr((metadata.get("generation"), metadata.get("deletionTimestamp"), conditions))
