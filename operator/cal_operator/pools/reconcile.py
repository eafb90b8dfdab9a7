"""One pass over a pool: its provider, its counts and cost, and its end in two phases (deployments and nodes first, then it)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from cal_crds import money
from cal_crds.conditions import Reason, Type, condition, with_condition
from cal_crds.deployment import DeploymentState
from cal_crds.meta import DEPLOYMENT, FINALIZER, LABEL_POOL, NODE, POOL
from cal_crds.pool import ComputePool, PoolDesiredState, PoolState, PoolStatus
from cal_crds.provider import ComputeProvider
from cal_operator.store import Key, NodeFacts
from cal_operator.world import World

#: How much of a limit is used when an Event says so.
_FOUR_FIFTHS = Decimal("0.8")


@dataclass(frozen=True)
class PoolView:
    """Everything that the status is derived from."""

    pool: ComputePool
    provider: ComputeProvider | None
    #: An older pool of the same owner with the same display name.
    twin: str | None
    facts: list[NodeFacts]
    deployments: int
    now: datetime


async def reconcile(world: World, uid: str) -> float | None:
    """Bring one pool's status up to date, or let it go; the seconds until the next look."""
    pool: ComputePool | None = world.store.pools.get(uid)
    if pool is None:
        return None
    if pool.metadata.deletion_timestamp is None and FINALIZER not in pool.metadata.finalizers:
        await world.set_finalizers(POOL, pool, [*pool.metadata.finalizers, FINALIZER])
        return 0.0
    if pool.metadata.deletion_timestamp is not None and await _empty(world, pool):
        await world.set_finalizers(POOL, pool, [name for name in pool.metadata.finalizers if name != FINALIZER])
        return None
    view = gather(world, pool)
    status = report(view)
    await _warn(world, view, status)
    await world.write_status(POOL, pool, pool.status, status, again=False)
    return _budget_end(view, status)


def gather(world: World, pool: ComputePool) -> PoolView:
    uids = world.store.deployment_uids_in_pool(pool.metadata.namespace or "", pool.metadata.name)
    alive = [uid for uid in uids if world.store.deployment_state(uid) != DeploymentState.TERMINATED]
    return PoolView(
        pool=pool,
        provider=world.store.providers.named(None, pool.spec.provider_ref.name),
        twin=_twin(world, pool),
        facts=world.store.facts_of_pool(pool.metadata.uid),
        deployments=len(alive),
        now=world.clock.now().replace(microsecond=0),
    )


async def _empty(world: World, pool: ComputePool) -> bool:
    """Whether no node of it is left: by the store first, then by a quorum read."""
    if world.store.facts_of_pool(pool.metadata.uid):
        return False
    path = NODE.path(pool.metadata.namespace)
    found = await world.cluster.list_metadata(path, labelSelector=f"{LABEL_POOL}={pool.metadata.uid}")
    return not found["items"]


def _twin(world: World, pool: ComputePool) -> str | None:
    """The name of an older pool that the same owner gave the same name."""

    def age(other: ComputePool) -> tuple[str, str]:
        return str(other.metadata.creation_timestamp), other.metadata.uid

    body = world.store.pools.body(pool.metadata.uid)
    for uid in world.store.pools_titled_like(body) if body else ():
        other = world.store.pools.get(uid)
        if other is not None and age(other) < age(pool):
            return other.metadata.name
    return None


def report(view: PoolView) -> PoolStatus:
    """The whole status. Pure."""
    old, pool = view.pool.status, view.pool
    alive = [fact for fact in view.facts if not fact.gone]
    rate = sum((money.parse(fact.rate) for fact in alive), Decimal(0))
    state, reason, message, stalled = _verdict(view, len(alive))
    provider_ready, provider_message = _provider(view)
    settled = (
        reason in (Reason.AS_WANTED, Reason.POOL_STOPPED) and provider_ready and not (state is PoolState.TERMINATING)
    )
    conditions = list(old.conditions)
    for type_, holds, why, text in (
        (Type.READY, settled, reason if provider_ready else Reason.PROVIDER_NOT_READY, message or provider_message),
        (
            Type.PROVIDER_READY,
            provider_ready,
            Reason.PROVIDER_IS_READY if provider_ready else Reason.PROVIDER_NOT_READY,
            provider_message,
        ),
        (
            Type.RECONCILING,
            not settled and not stalled,
            Reason.IN_PROGRESS if not settled else Reason.AS_WANTED,
            message,
        ),
        (Type.STALLED, stalled, reason if stalled else Reason.AS_WANTED, message if stalled else ""),
    ):
        conditions = with_condition(
            conditions, type_, holds, why, text, generation=pool.metadata.generation, now=view.now
        )
    return PoolStatus(
        observed_generation=pool.metadata.generation,
        state=state,
        deployments=view.deployments,
        nodes=len(alive),
        ready_nodes=len([fact for fact in alive if fact.ready]),
        cost_per_hour=money.render(rate),
        cost=money.at_rate(old.cost, rate, view.now),
        message=message or (None if provider_ready else provider_message),
        conditions=conditions,
    )


def _verdict(view: PoolView, nodes: int) -> tuple[PoolState, Reason, str, bool]:
    """(state, reason, message, stalled)."""
    pool = view.pool
    if pool.metadata.deletion_timestamp is not None:
        return PoolState.TERMINATING, Reason.DELETING, f"{nodes} nodes are not proven gone yet", False
    if pool.spec.desired_state is PoolDesiredState.STOPPED:
        state = PoolState.TERMINATING if nodes else PoolState.TERMINATED
        return (
            state,
            Reason.POOL_STOPPED,
            f"stopped as wanted; {nodes} nodes are not proven gone yet" if nodes else "",
            False,
        )
    if view.twin is not None:
        name = pool.spec.display_name or pool.metadata.name
        return (
            PoolState.ACTIVE,
            Reason.NAME_CONFLICT,
            f"pool {view.twin} of this owner is called {name!r} already",
            True,
        )
    if (problem := _invalid(view)) is not None:
        return PoolState.ACTIVE, Reason.INVALID, problem, True
    return PoolState.ACTIVE, Reason.AS_WANTED, "", False


def _invalid(view: PoolView) -> str | None:
    capabilities = view.provider.status.capabilities if view.provider else None
    pool_id = view.pool.spec.provider_pool_id
    if capabilities is None or pool_id is None or capabilities.provider_pool_id_pattern is None:
        return None
    if re.fullmatch(capabilities.provider_pool_id_pattern, pool_id):
        return None
    hint = capabilities.provider_pool_id_hint or capabilities.provider_pool_id_pattern
    return f"providerPoolID {pool_id!r} is not valid for {view.pool.spec.provider_ref.name}: {hint}"


def _provider(view: PoolView) -> tuple[bool, str]:
    """Whether the provider and the pool's credential are there. A provider without any credential accepts pools: what buys says so."""
    reference = view.pool.spec.provider_ref
    if view.provider is None:
        return False, f"no ComputeProvider is named {reference.name!r}"
    names = [credential.name for credential in view.provider.spec.credentials]
    if reference.credential is not None and reference.credential not in names:
        return False, f"provider {reference.name!r} has no credential {reference.credential!r}; it has {names}"
    stalled = condition(view.provider.status.conditions, Type.STALLED)
    if stalled is not None and stalled.status == "True":
        return False, f"provider {reference.name!r}: {stalled.message}"
    return True, ""


async def _warn(world: World, view: PoolView, status: PoolStatus) -> None:
    """An Event for each limit on money of which four fifths are used; where all of it is spent, what it stops is woken."""
    limits = view.pool.spec.limits
    if limits is None:
        return
    total, hourly, spent = limits.max_total_cost, limits.max_cost_per_hour, money.total(status.cost, view.now)
    if total is not None and _near(spent, total):
        text = f"80 % of limits.maxTotalCost ({total} USD) is spent"
        await world.events.say(view.pool, POOL.name, "BudgetNearlySpent", text, warning=True)
    if hourly is not None and _near(money.parse(status.cost_per_hour), hourly):
        text = f"80 % of limits.maxCostPerHour ({hourly} USD/h) is in use"
        await world.events.say(view.pool, POOL.name, "RateNearlyUsed", text, warning=True)
    if total is not None and spent >= money.parse(total):
        for uid in world.store.deployment_uids_in_pool(view.pool.metadata.namespace or "", view.pool.metadata.name):
            world.queue.wake(_deployment_key(uid))


def _near(used: Decimal, limit: str) -> bool:
    """Whether four fifths of a limit are used. Nothing can be said of how near 0 is."""
    mark = money.parse(limit) * _FOUR_FIFTHS
    return used >= mark > 0


def _deployment_key(uid: str) -> Key:
    return Key(DEPLOYMENT.name, uid)


def _budget_end(view: PoolView, status: PoolStatus) -> float | None:
    """Seconds until the next mark of the budget (80 %, then all of it) is reached at the present rate."""
    limit = view.pool.spec.limits.max_total_cost if view.pool.spec.limits else None
    rate = money.parse(status.cost.rate_per_hour) if status.cost else Decimal(0)
    if limit is None or not rate:
        return None
    spent = money.total(status.cost, view.now)
    marks = [mark for mark in (money.parse(limit) * _FOUR_FIFTHS, money.parse(limit)) if mark > spent]
    return max(1.0, float((marks[0] - spent) / rate * 3600)) if marks else 60.0
