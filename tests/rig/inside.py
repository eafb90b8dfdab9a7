"""The operator's inside, for tests that take its steps one by one."""

from __future__ import annotations

from typing import Any

from rig.desk import Desk

from cal_crds.meta import PROVIDER
from cal_crds.node import ComputeNode
from cal_operator import resync
from cal_operator.deployments.reconcile import reconcile as reconcile_deployment
from cal_operator.pools.reconcile import reconcile as reconcile_pool
from cal_operator.providers.reconcile import reconcile as reconcile_provider
from cal_operator.world import World


async def ready(world: World, provider: dict[str, Any]) -> str:
    """A ComputeProvider that was just made, with our finalizer and its offers; its uid."""
    uid = str(provider["metadata"]["uid"])
    world.store.put(PROVIDER.name, provider)
    for _ in range(2):  # its finalizer, then its status
        await reconcile_provider(world, uid)
    return uid


async def intent(world: World, desk: Desk) -> ComputeNode:
    """A deployment whose node is recorded and not bought yet."""
    await ready(world, await desk.provider_object())
    pool = await desk.pool()
    uid = await desk.deploy()
    await resync.load(world)
    for _ in range(2):  # its finalizer, then its status
        await reconcile_pool(world, pool.metadata.uid)
    await reconcile_deployment(world, uid)
    (node,) = await desk.nodes()
    return node
