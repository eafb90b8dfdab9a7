"""What every step that spends has in common: the last look at whether it is still wanted, and the request itself."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from cal_adapters.contract import LaunchesInSteps, LaunchRequest, Mark, Observation
from cal_adapters.errors import NotSent
from cal_crds import money
from cal_crds.conditions import Reason
from cal_crds.deployment import DeploymentDesiredState, ModelDeployment
from cal_crds.meta import DEPLOYMENT, FINALIZER, NODE
from cal_crds.node import ComputeNode
from cal_crds.pool import PoolDesiredState
from cal_crds.provider import ProviderDesiredState
from cal_operator.accounts import Account
from cal_operator.deployments.budget import Budget
from cal_operator.workload_secrets import EnvMissing, model_key, resolve_env, resolve_logins
from cal_operator.world import World

#: Between the end of a spending call's timeout and the end of the lease, in seconds.
MARGIN = 2.0


def time_to_spend(world: World, timeout: float) -> float:
    """For how many seconds a call that spends may run from now on: shorter than the lease surely lasts (rule 2)."""
    return min(timeout, world.leader.remaining() - MARGIN)


async def still_wanted(world: World, node: ComputeNode) -> tuple[ComputeNode, ModelDeployment] | None:
    """Both by a quorum read (rule 1): gone, replaced, deleted, ended or terminated means that nothing more is spent."""
    body, owner_body = await asyncio.gather(
        world.fetch(NODE, node.metadata.uid), world.fetch(DEPLOYMENT, node.spec.deployment_ref.uid)
    )
    if body is None or owner_body is None:
        return None
    fresh, deployment = ComputeNode.parse(body), ModelDeployment.parse(owner_body)
    if fresh.metadata.deletion_timestamp or fresh.status.ended or FINALIZER not in fresh.metadata.finalizers:
        return None
    if deployment.metadata.deletion_timestamp or deployment.spec.desired_state is DeploymentDesiredState.TERMINATED:
        return None
    pool = world.store.pools.get(fresh.spec.pool_ref.uid)
    if pool is None or pool.metadata.deletion_timestamp or pool.spec.desired_state is PoolDesiredState.STOPPED:
        return None
    if why_not_sold(world, fresh.spec.provider_ref.name) is not None:
        return None
    return fresh, deployment


async def over_limit(world: World, account: Account, node: ComputeNode) -> str | None:
    """Why the pool's limits leave no room for a node that isn't bought yet; None: they do. Asked again only where they are others than those
    that it was made under, or where another leader made it: they may have been lowered while it waited."""
    pool, memory = world.store.pools.get(node.spec.pool_ref.uid), world.memories.of(node.metadata.uid)
    if pool is None or memory.admitted == pool.metadata.generation:
        return None
    in_steps = isinstance(account.adapter, LaunchesInSteps)
    budget = await Budget.read(world, pool, in_steps=in_steps, before=node)
    price = money.parse(node.spec.offer.price_per_hour)
    if (refusal := budget.refuse(price)) is not None:
        return refusal
    cap = budget.cap(pool, price)
    memory.admitted, memory.cap = pool.metadata.generation, None if cap is None else money.parse(cap)
    return None


def _cap(world: World, node: ComputeNode) -> Decimal | None:
    """What the node may cost an hour: what it records, and no more than its pool says by now. US dollars; None: no cap."""
    pool = world.store.pools.get(node.spec.pool_ref.uid)
    told = (node.spec.max_price_per_hour, pool.spec.max_cost_per_hour if pool is not None else None)
    caps = [money.parse(cap) for cap in told if cap is not None]
    left = world.memories.of(node.metadata.uid).cap
    return min([*caps, *([left] if left is not None else [])], default=None)


def why_not_sold(world: World, name: str) -> tuple[Reason, str] | None:
    """Why nothing may be bought from a provider just now; None: something may.

    One that is being deleted goes as soon as no node refers to it: what is bought in that moment could be stopped through nothing.
    """
    provider = world.store.providers.named(None, name)
    if provider is None:
        return Reason.PROVIDER_NOT_READY, f"provider {name} doesn't exist: nothing is bought"
    if provider.metadata.deletion_timestamp is not None:
        return Reason.DELETING, f"provider {name} is being deleted: nothing more is bought"
    if provider.spec.desired_state is ProviderDesiredState.PAUSED:
        return Reason.PAUSED, f"provider {name} is paused: nothing is bought"
    return None


async def build_request(world: World, node: ComputeNode, deployment: ModelDeployment) -> LaunchRequest:
    """The purchase, out of what the node recorded, and the secrets, which stand nowhere. EnvMissing if a Secret isn't there.

    Made again it is the same but for its price cap, by whatever process: a purchase in steps is known by it.
    """
    spec = node.spec
    env = [*await resolve_env(world, deployment, spec.workload), *await model_key(world, deployment, spec.workload)]
    return LaunchRequest(
        mark=Mark(world.installation, spec.token),
        node=node.metadata.name,
        namespace=node.metadata.namespace or "default",
        deployment_uid=spec.deployment_ref.uid,
        pool_uid=spec.pool_ref.uid,
        offer=spec.offer,
        provider_pool_id=spec.provider_pool_id,
        tenancy=spec.tenancy,
        gpu_count=spec.gpu_count,
        max_price_per_hour=_cap(world, node),
        model=spec.model,
        workload=spec.workload,
        env=env,
        logins=await resolve_logins(world, deployment, spec.workload),
    )


async def advance(world: World, account: Account, adapter: LaunchesInSteps, node: ComputeNode) -> Observation:
    """The next step of a purchase in steps, under all that holds for a launch; the adapter's errors otherwise."""
    assert node.status.instance is not None
    handle, timeout = node.status.instance.handle, account.adapter.traits.launch_timeout_seconds
    wanted = await still_wanted(world, node)
    if wanted is None or world.leader.remaining() < timeout + MARGIN:
        return await account.gate.call("observe", lambda: account.adapter.observe(handle))
    try:
        request = await build_request(world, *wanted)
    except EnvMissing as missing:
        raise NotSent(str(missing)) from missing
    call = account.gate.call(
        "advance", lambda: adapter.advance(handle, request), bound=lambda: time_to_spend(world, timeout)
    )
    return await world.whole(call, f"advance {node.metadata.name}")
