"""One pass over a deployment: observe, decide, act, and at most one status write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cal_crds import money
from cal_crds.cluster import NotFound
from cal_crds.conditions import Reason, Type, condition
from cal_crds.deployment import TERMINAL_STATES, DeploymentState, DeploymentStatus, ModelDeployment, Waiting
from cal_crds.meta import DEPLOYMENT, LABEL_MANAGED_BY, MANAGER_API, NODE, POOL
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool
from cal_crds.provider import Support
from cal_operator.deployments.act import carry_out
from cal_operator.deployments.decide import DeploymentView, decide, sooner
from cal_operator.deployments.report import external_status, report
from cal_operator.world import World

#: States that may come and go within a moment: they are written only when they last.
_PASSING = frozenset({None, DeploymentState.PENDING, DeploymentState.PROVISIONING, DeploymentState.DEPLOYING})
#: How often a deployment that waits for an offer looks again, in seconds.
_LOOK_AGAIN = 5.0


async def reconcile(world: World, uid: str) -> float | None:
    """Bring one deployment nearer to what it wants; the seconds until the next look."""
    deployment: ModelDeployment | None = world.store.deployments.get(uid)
    if deployment is None:
        return None
    if deployment.metadata.deletion_timestamp is not None:
        await _end_nodes(world, uid)
        return None
    view = await gather(world, deployment)
    if deployment.spec.external is not None:
        await world.write_status(DEPLOYMENT, deployment, deployment.status, external_status(view))
        return None
    plan = decide(view)
    waiting = await carry_out(world, view, plan)
    after = await gather(world, deployment) if plan.create or plan.delete else view
    status = report(after, plan, waiting)
    hold = await _write(world, deployment, status)
    return sooner(
        hold,
        plan.after,
        _expiry(world, deployment, status),
        _LOOK_AGAIN if waiting else None,
        _pending_end(after, waiting),
    )


async def _end_nodes(world: World, uid: str) -> None:
    """Its deletion may be held up by a finalizer for as long as that likes (`--cascade=foreground` where no garbage collector runs): the
    instances don't wait for it."""
    for node in world.store.nodes_of(uid):
        if node.metadata.deletion_timestamp is None:
            await world.delete(NODE, node)


async def gather(world: World, deployment: ModelDeployment) -> DeploymentView:
    """What the decision looks at, from the store; the absence of a pool is confirmed by a read."""
    nodes = world.store.nodes_of(deployment.metadata.uid)
    bound = _bound(deployment, nodes)
    pool, gone = await _pool(world, deployment, bound)
    provider = world.store.providers.named(None, pool.spec.provider_ref.name) if pool else None
    capabilities = provider.status.capabilities if provider else None
    settings = world.settings
    return DeploymentView(
        deployment=deployment,
        pool=pool,
        pool_gone=gone,
        pool_problem=_problem(deployment, pool),
        nodes=nodes,
        bound_pool_uid=bound,
        now=world.clock.now(),
        ephemeral=capabilities is None or Support.EPHEMERAL in capabilities.supports,
        failure_minutes=settings.ephemeral_failure_minutes,
        backoff_base=settings.backoff_base_seconds,
        backoff_max=settings.backoff_max_seconds,
        budget_spent=pool is not None and _spent(world, pool),
    )


def _bound(deployment: ModelDeployment, nodes: Sequence[ComputeNode]) -> str | None:
    """The uid of the pool that it is bound to. What was bought says it too: it may come before the status, and outlive it."""
    if deployment.spec.pool_ref is None:
        return None
    bought_through = next((node.spec.pool_ref.uid for node in nodes), None)
    return deployment.spec.pool_ref.uid or deployment.status.bound_pool_uid or bought_through


async def _pool(world: World, deployment: ModelDeployment, bound: str | None) -> tuple[ComputePool | None, bool]:
    """The pool, and whether the one this deployment is bound to is gone for good."""
    reference = deployment.spec.pool_ref
    if reference is None:
        return None, False
    namespace = deployment.metadata.namespace
    pool = world.store.pools.named(namespace, reference.name)
    if pool is None or (bound is not None and pool.metadata.uid != bound):
        try:
            body = await world.cluster.get(POOL.path(namespace, reference.name))
        except NotFound:
            return None, bound is not None
        world.learn(POOL, body)
        pool = ComputePool.parse(body)
    if bound is not None and pool.metadata.uid != bound:
        return None, True
    return pool, False


def _problem(deployment: ModelDeployment, pool: ComputePool | None) -> tuple[Reason, str] | None:
    """Why nothing can be bought through the pool just now."""
    if pool is None:
        name = deployment.spec.pool_ref.name if deployment.spec.pool_ref else ""
        return Reason.POOL_MISSING, f"its pool {name} doesn't exist"
    if pool.status.observed_generation < 0:
        return Reason.POOL_NOT_READY, f"pool {pool.metadata.name} is new and was not looked at yet"
    stalled = condition(pool.status.conditions, Type.STALLED)
    if stalled is not None and stalled.status == "True":
        return Reason.POOL_NOT_READY, f"pool {pool.metadata.name}: {stalled.message}"
    provider = condition(pool.status.conditions, Type.PROVIDER_READY)
    if provider is not None and provider.status != "True":
        return Reason.PROVIDER_NOT_READY, f"pool {pool.metadata.name}: {provider.message}"
    return None


def _spent(world: World, pool: ComputePool) -> bool:
    limit = pool.spec.limits.max_total_cost if pool.spec.limits else None
    return limit is not None and money.total(pool.status.cost, world.clock.now()) >= money.parse(limit)


async def _write(world: World, deployment: ModelDeployment, status: DeploymentStatus) -> float | None:
    """Write what changed; passing states only once they have lasted (a state that is gone at once costs no write)."""
    uid, now = deployment.metadata.uid, world.clock.monotonic()
    if status == deployment.status:
        world.held.pop(uid, None)
        return None
    if status.state in _PASSING and deployment.status.state in _PASSING:
        wait = world.held.setdefault(uid, now + world.settings.hold_seconds) - now
        if wait > 0:
            return wait
    world.held.pop(uid, None)
    if status.state in TERMINAL_STATES and status.state is not deployment.status.state:
        failed = status.state is DeploymentState.FAILED
        ready = condition(status.conditions, Type.READY)
        reason = ready.reason if ready else str(status.state)
        await world.events.say(
            deployment, DEPLOYMENT.name, reason, status.error_message or f"now {status.state}", warning=failed
        )
    await world.write_status(DEPLOYMENT, deployment, deployment.status, status, again=False)
    return 0.0 if _says_more(deployment, status) else None


def _says_more(deployment: ModelDeployment, status: DeploymentStatus) -> bool:
    """Whether the new status holds something that the decision goes by, so that it may now be another."""
    old = deployment.status
    bounded = deployment.spec.max_runtime_seconds is not None and status.first_start_time != old.first_start_time
    return bounded or status.outcome != old.outcome or status.waiting != old.waiting or status.state in TERMINAL_STATES


def _expiry(world: World, deployment: ModelDeployment, status: DeploymentStatus) -> float | None:
    """Seconds until a terminated deployment goes. Only what the api made has a TTL: one from git would come back and buy again."""
    if status.terminated_time is None or deployment.metadata.labels.get(LABEL_MANAGED_BY) != MANAGER_API:
        return None
    end = status.terminated_time + timedelta(seconds=deployment.spec.ttl_seconds_after_terminated)
    left = (end - world.clock.now()).total_seconds()
    if left <= 0:
        world.background(world.delete(DEPLOYMENT, deployment), f"ttl {deployment.metadata.name}")
        return _LOOK_AGAIN  # the request may fail, and nothing else would wake it
    return left


def _pending_end(view: DeploymentView, waiting: Waiting | None) -> float | None:
    limit, known = view.deployment.spec.pending_timeout_seconds, view.deployment.status.waiting
    if not limit or waiting is None or known is None or known.since is None:
        return None
    left = limit - (view.now - known.since).total_seconds()
    return max(0.1, left) if left > 0 else None  # over, and a replica lives: there is nothing to hurry for
