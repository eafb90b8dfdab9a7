"""Carry a plan out: place and create nodes (intent before spend), delete nodes, and say what is waited for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from cal_adapters.contract import LaunchesInSteps
from cal_crds import engines, money
from cal_crds.cluster import AlreadyExists
from cal_crds.conditions import Reason
from cal_crds.deployment import ModelDeployment, Waiting
from cal_crds.meta import (
    API_VERSION,
    DEPLOYMENT,
    FINALIZER,
    LABEL_DEPLOYMENT,
    LABEL_OWNER,
    LABEL_POOL,
    LABEL_PROVIDER,
    NODE,
)
from cal_crds.names import label_hash, new_token, node_name
from cal_crds.node import ComputeNode, NodeProviderRef, NodeSpec, ObjectRef, Offer
from cal_crds.pool import ComputePool
from cal_operator.accounts import Account, AccountMissing
from cal_operator.deployments.budget import Budget
from cal_operator.deployments.decide import DeploymentView, Plan, Want
from cal_operator.nodes.purchase import why_not_sold
from cal_operator.place import Market, Wish, place
from cal_operator.providers.guard import hold
from cal_operator.world import World


@dataclass(frozen=True)
class Blocked(Exception):
    """Nothing can be asked for just now: why, for people."""

    waiting: Waiting


def _blocked(reason: Reason, message: str) -> Blocked:
    return Blocked(Waiting(reason=reason, message=message))


async def carry_out(world: World, view: DeploymentView, plan: Plan) -> Waiting | None:
    """Delete, then place and create. What is waited for, if not everything could be had."""
    for node in plan.delete:
        await world.delete(NODE, node)
    for note in plan.notes:
        await world.events.say(view.deployment, DEPLOYMENT.name, "Replacing", note, warning=True)
    if view.pool is None and view.pool_problem is not None and plan.wanted:
        return _blocked(*view.pool_problem).waiting
    if not plan.create:
        return None
    try:
        return await _create(world, view, plan.create)
    except Blocked as blocked:
        return blocked.waiting


async def _create(world: World, view: DeploymentView, wants: Sequence[Want]) -> Waiting | None:
    if view.pool_problem is not None:
        raise _blocked(*view.pool_problem)
    assert view.pool is not None
    account, offers = await _market(world, view.pool)
    provider = world.store.providers.named(None, account.provider)
    if provider is not None:
        await hold(world, provider, account.credential)
    # Without limits there is nothing to count: placing and reserving happen between two awaits.
    lock = (
        world.pool_locks.setdefault(view.pool.metadata.uid, asyncio.Lock()) if view.pool.spec.limits else nullcontext()
    )
    async with lock:
        budget = await Budget.read(world, view.pool, in_steps=isinstance(account.adapter, LaunchesInSteps))
        for want in wants:
            waiting = await _create_one(world, view, want, account, offers, budget)
            if waiting is not None:
                return waiting
    return None


async def _market(world: World, pool: ComputePool) -> tuple[Account, Sequence[Offer]]:
    """The account to buy through, and what its provider offers. Blocked with what is missing."""
    name = pool.spec.provider_ref.name
    provider = world.store.providers.named(None, name)
    try:
        account = await world.accounts.get(provider, pool.spec.provider_ref.credential)
    except AccountMissing as missing:
        raise _blocked(missing.reason, f"provider {name}: {missing.message}") from None
    assert provider is not None
    if (why := why_not_sold(world, name)) is not None:
        raise _blocked(*why)
    if account.anonymous and account.adapter.traits.needs_credentials:
        raise _blocked(
            Reason.NO_CREDENTIALS, f"provider {name} has no credentials: add a Secret and name it in spec.credentials"
        )
    await account.first_check()
    if account.error is not None and not account.error.retryable:
        raise _blocked(account.error.reason, f"provider {name}: {account.error.message}")
    if account.opened is None and account.error is not None:
        raise _blocked(account.error.reason, f"provider {name}: {account.error.message}")
    if account.opened is not None and account.opened.balance is not None and account.opened.balance <= 0:
        raise _blocked(Reason.INSUFFICIENT_FUNDS, f"provider {name}: the account is empty")
    if not provider.status.offers and provider.status.offers_error:
        raise _blocked(Reason.NO_OFFER, f"the offers of {name} are not known: {provider.status.offers_error}")
    return account, provider.status.offers


async def _create_one(
    world: World, view: DeploymentView, want: Want, account: Account, offers: Sequence[Offer], budget: Budget
) -> Waiting | None:
    """Place one node and record the intent. What is waited for, if no offer is acceptable."""
    pool = view.pool
    assert pool is not None
    provider = pool.spec.provider_ref.name
    placement = place(Wish.of(view.deployment, pool), offers, _conditions(world, provider, view.nodes))
    if placement.offer is None:
        return _no_offer(provider, len(offers), placement.refused)
    price = money.parse(placement.offer.price_per_hour)
    if (refusal := budget.refuse(price)) is not None:
        return Waiting(reason=Reason.LIMIT_REACHED, message=refusal)
    world.taken[provider, placement.offer.id] = world.taken.get((provider, placement.offer.id), 0) + 1
    cap = budget.cap(pool, price)
    body = _node(view, pool, want, placement.offer, account, cap)
    world.memories.expect(body["spec"]["token"])
    try:
        made = await world.cluster.create(NODE.path(view.deployment.metadata.namespace), body)
    except AlreadyExists:
        return Waiting(reason=Reason.IN_PROGRESS, message="the node before this one is not gone yet")
    world.memories.meet(made["metadata"]["uid"], made["spec"]["token"]).admitted = pool.metadata.generation
    world.learn(NODE, made)
    budget.take(price, cap)
    return None


def _conditions(world: World, provider: str, nodes: Sequence[ComputeNode]) -> Market:
    now = world.clock.monotonic()
    cooling = {offer: why for (name, offer), (until, why) in world.cooling.items() if name == provider and until > now}
    taken = {offer: count for (name, offer), count in world.taken.items() if name == provider}
    spread = Counter(
        node.spec.offer.machine or node.spec.offer.region or "" for node in nodes if node.status.ended is None
    )
    return Market(cooling, taken, spread)


def _no_offer(provider: str, looked_at: int, refused: Sequence[Any]) -> Waiting:
    if not looked_at:
        return Waiting(reason=Reason.NO_OFFER, message=f"{provider} offers nothing just now")
    reasons = Counter(item.reason for item in refused)
    summary = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    nearest = f"; nearest: {refused[0].offer} {refused[0].message}" if refused else ""
    message = f"none of {looked_at} offers of {provider} is acceptable ({summary}){nearest}"
    return Waiting(reason=Reason.NO_OFFER, message=message[:4096], refused=list(refused[:20]))


def _node(
    view: DeploymentView, pool: ComputePool, want: Want, offer: Offer, account: Account, cap: str | None
) -> dict[str, Any]:
    """The intent: with finalizer, token, account, offer and price cap, before the provider is called (rule 1)."""
    deployment = view.deployment.metadata
    owner = {
        "apiVersion": API_VERSION,
        "kind": DEPLOYMENT.name,
        "name": deployment.name,
        "uid": deployment.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": node_name(deployment.name, deployment.uid, want.slot, want.predecessor),
        "namespace": deployment.namespace,
        "labels": _labels(view.deployment, pool),
        "finalizers": [FINALIZER],
        "ownerReferences": [owner],
    }
    spec = _spec(view, pool, want, offer, account, cap).dump()
    return {"apiVersion": API_VERSION, "kind": NODE.name, "metadata": metadata, "spec": spec}


def _spec(
    view: DeploymentView, pool: ComputePool, want: Want, offer: Offer, account: Account, cap: str | None
) -> NodeSpec:
    wanted, deployment = view.deployment.spec, view.deployment.metadata
    gpu_count = pool.spec.gpu_count if wanted.gpu_per_replica is None else wanted.gpu_per_replica
    return NodeSpec(
        deployment_ref=ObjectRef(name=deployment.name, uid=deployment.uid),
        pool_ref=ObjectRef(name=pool.metadata.name, uid=pool.metadata.uid),
        provider_ref=NodeProviderRef(name=pool.spec.provider_ref.name, credential=account.credential),
        slot=want.slot,
        attempt=want.attempt,
        predecessor=want.predecessor or None,
        token=new_token(),
        account=account.opened.id if account.opened else None,
        template_hash=view.template,
        provider_pool_id=pool.spec.provider_pool_id,
        tenancy=pool.spec.tenancy,
        gpu_count=gpu_count,
        offer=offer,
        max_price_per_hour=cap,
        model=wanted.model,
        workload=engines.expand(wanted.workload, wanted.model, max(1, gpu_count)),
    )


def _labels(deployment: ModelDeployment, pool: ComputePool) -> dict[str, str]:
    return {
        LABEL_DEPLOYMENT: deployment.metadata.uid,
        LABEL_POOL: pool.metadata.uid,
        LABEL_PROVIDER: pool.spec.provider_ref.name,
        LABEL_OWNER: label_hash(pool.spec.owner.id),
    }
