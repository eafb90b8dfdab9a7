"""The operator's inside, for tests that take its steps one by one."""

from __future__ import annotations

from rig.desk import Desk

from cal_crds.node import ComputeNode
from cal_operator import resync
from cal_operator.deployments.reconcile import reconcile as reconcile_deployment
from cal_operator.pools.reconcile import reconcile as reconcile_pool
from cal_operator.providers.reconcile import reconcile as reconcile_provider
from cal_operator.world import World


async def intent(world: World, desk: Desk) -> ComputeNode:
    """A deployment whose node is recorded and not bought yet."""
    made = await desk.provider_object()
    world.store.put("ComputeProvider", made)
    await reconcile_provider(world, made["metadata"]["uid"])
    await reconcile_provider(world, made["metadata"]["uid"])
    pool = await desk.pool()
    uid = await desk.deploy()
    await resync.load(world)
    for _ in range(2):  # its finalizer, then its status
        await reconcile_pool(world, pool.metadata.uid)
    await reconcile_deployment(world, uid)
    (node,) = await desk.nodes()
    return node
