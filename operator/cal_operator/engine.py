"""The running operator: one reconcile per kind behind one queue, and the rounds (resync, sweep, heartbeats) beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from cal_crds.cluster import ClusterError
from cal_crds.meta import DEPLOYMENT, KINDS, NODE, POOL, PROVIDER, Kind
from cal_operator import resync
from cal_operator.deployments.reconcile import reconcile as reconcile_deployment
from cal_operator.lanes import fed_lane, lane_of
from cal_operator.nodes.reconcile import reconcile as reconcile_node
from cal_operator.pools.reconcile import reconcile as reconcile_pool
from cal_operator.probe import Prober
from cal_operator.providers.reconcile import reconcile as reconcile_provider
from cal_operator.store import Key
from cal_operator.sweep import Sweep
from cal_operator.web import RECONCILE_SECONDS
from cal_operator.workqueue import WorkQueue
from cal_operator.world import World

log = logging.getLogger(__name__)


class Engine:
    """Runs while this process leads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._prober = Prober()
        self._synced = False
        world.queue = WorkQueue(self._reconcile, partial(lane_of, world.store), fed_lane)

    @property
    def ready(self) -> bool:
        return self._synced and self._world.leader.remaining() > 0

    def feed(self, kind: Kind, type_: str | None, body: dict[str, Any]) -> None:
        """What the watch brings."""
        if type_ == "DELETED":
            self._world.forget(kind, body)
        else:
            self._world.learn(kind, body)

    async def run(self) -> None:
        """Work until cancelled, or until something that must not end does. LeadershipLost if the lease is."""
        await resync.load(self._world)
        self._synced = True
        for kind in KINDS:
            for uid in self._world.store.table(kind.name).uids():
                self._world.wake(kind, uid)
        settings = self._world.settings
        sweep = Sweep(self._world)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._world.queue.run())
            group.create_task(self._world.leader.keep())
            group.create_task(self._round("resync", settings.resync_seconds, lambda: resync.compare(self._world)))
            group.create_task(self._round("sweep", settings.sweep_seconds, sweep.run))
            group.create_task(self._round("heartbeats", min(15.0, settings.beat_timeout_seconds / 4), self._hear))

    async def drain(self) -> None:
        """Begin nothing more; what was bought is recorded before this returns."""
        await self._world.queue.drain(timeout=1.0)
        while not await self._world.finish(timeout=15.0):
            log.warning("a purchase is not recorded yet: waiting")
            if self._world.leader.remaining() <= 0:
                log.error("the lease is over with work under way: the next leader adopts it")
                break
        await self._prober.close()
        await self._world.accounts.close()

    async def _reconcile(self, key: Key) -> float | None:
        if self._world.leader.remaining() <= 0:
            return 1.0
        with RECONCILE_SECONDS.labels(key.kind).time():
            try:
                return await self._dispatch(key)
            except ClusterError as error:
                log.warning("reconcile of %s %s: %s", key.kind, key.uid, error.message)
                return 1.0

    async def _dispatch(self, key: Key) -> float | None:
        if key.kind == NODE.name:
            return await reconcile_node(self._world, self._prober, key.uid)
        if key.kind == DEPLOYMENT.name:
            return await reconcile_deployment(self._world, key.uid)
        if key.kind == POOL.name:
            return await reconcile_pool(self._world, key.uid)
        assert key.kind == PROVIDER.name, key
        return await reconcile_provider(self._world, key.uid)

    async def _round(self, name: str, period: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period)
            try:
                await work()
            except ClusterError as error:
                log.warning("%s: the API server can't be asked: %s", name, error.message)
            except Exception:  # The boundary of a round: the next one tries again.
                log.exception("%s failed", name)

    async def _hear(self) -> None:
        await self._world.liveness.refresh(self._world.cluster)
        for uid in self._world.store.nodes_that_beat():
            await asyncio.sleep(0)  # thousands of them are parsed: others' turn in between
            node = self._world.store.nodes.get(uid)
            if node is not None and self._world.liveness.overdue(node, self._world.clock.now()):
                self._world.wake(NODE, uid)
