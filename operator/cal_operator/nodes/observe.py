"""Gather what the decision about a node looks at: the object, its deployment, and what the provider and the probe say."""

from __future__ import annotations

from dataclasses import replace

from cal_adapters.contract import ConfirmsIds, LaunchesInSteps, Readiness, State
from cal_adapters.errors import AdapterError, InstanceNotFound, NoCapacity, PriceAboveCap
from cal_crds.cluster import NotFound
from cal_crds.conditions import Reason
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import DEPLOYMENT
from cal_crds.modelkeys import redact
from cal_crds.node import ComputeNode
from cal_operator.accounts import Account, AccountMissing
from cal_operator.nodes.decide import NodeView
from cal_operator.nodes.memory import NodeMemory
from cal_operator.nodes.purchase import advance, why_not_sold
from cal_operator.probe import Prober
from cal_operator.world import World


async def gather(world: World, prober: Prober, node: ComputeNode) -> tuple[NodeView, Account | None]:
    """The view of a node, and the account to act through (None: there is none just now)."""
    account, trouble = await _account(world, node)
    memory = world.memories.meet(node.metadata.uid, node.spec.token)
    deleting = node.metadata.deletion_timestamp is not None
    wanted = not deleting and node.status.ended is None and node.status.gone_time is None
    if account is not None and wanted and node.status.instance is not None:
        await _look(world, prober, account, node, memory)
    now = world.clock.now()
    pool = node.spec.pool_ref.uid
    return NodeView(
        node=node,
        now=now,
        monotonic=world.clock.monotonic(),
        deployment=await owner(world, node),
        memory=memory,
        term_start=world.term_start,
        traits=account.adapter.traits if account else None,
        trouble=trouble,
        not_sold=why_not_sold(world, node.spec.provider_ref.name),
        last_beat=world.liveness.last_beat(node),
        beats_missed=wanted
        and world.liveness.overdue(node, now)
        and world.liveness.may_lose(pool, len(world.store.facts_of_pool(pool))),
    ), account


async def owner(world: World, node: ComputeNode) -> ModelDeployment | None:
    """The node's deployment; None only when a quorum read confirms that it is gone."""
    reference = node.spec.deployment_ref
    known: ModelDeployment | None = world.store.deployments.get(reference.uid)
    if known is not None or world.store.deployments.known_deleted(reference.uid):
        return known
    try:
        found = await world.cluster.get(DEPLOYMENT.path(node.metadata.namespace, reference.name))
    except NotFound:
        found = None
    if found is None or found["metadata"]["uid"] != reference.uid:
        world.store.remove(DEPLOYMENT.name, reference.uid)
        return None
    world.learn(DEPLOYMENT, found)
    return ModelDeployment.parse(found)


async def _account(world: World, node: ComputeNode) -> tuple[Account | None, tuple[Reason, str] | None]:
    provider = world.store.providers.named(None, node.spec.provider_ref.name)
    try:
        account = await world.accounts.get(provider, node.spec.provider_ref.credential)
    except AccountMissing as missing:
        return None, (missing.reason, f"provider {node.spec.provider_ref.name}: {missing.message}")
    if account.anonymous and account.adapter.traits.needs_credentials:
        return account, (
            Reason.NO_CREDENTIALS,
            f"provider {account.provider} has no credentials: nothing can be bought",
        )
    return account, None


async def _look(world: World, prober: Prober, account: Account, node: ComputeNode, memory: NodeMemory) -> None:
    """Ask the provider, and probe, unless that was done a moment ago."""
    traits = account.adapter.traits
    calm = memory.answers is True and memory.observe_errors == 0
    due = memory.observed_at + (traits.observe_seconds if calm else traits.poll_seconds) * 0.9
    if world.clock.monotonic() >= due:
        await _observe(world, account, node, memory)
    await _probe(world, prober, node, memory)


async def _observe(world: World, account: Account, node: ComputeNode, memory: NodeMemory) -> None:
    assert node.status.instance is not None
    handle = node.status.instance.handle
    memory.observed_at = world.clock.monotonic()
    try:
        if isinstance(account.adapter, LaunchesInSteps) and node.status.answered_time is None:
            seen = await advance(world, account, account.adapter, node)
        else:
            seen = await account.gate.call("observe", lambda: account.adapter.observe(handle))
        # The message goes into the status, and may hold the last lines of what failed.
        memory.observation = replace(seen, message=redact(seen.message))
        memory.observe_errors, memory.absent = 0, False
        await _confirm_id(account, node, memory)
    except InstanceNotFound:
        memory.absent = await proves_absence(account, node)
    except (NoCapacity, PriceAboveCap) as error:
        memory.unsold = error.message
        offer = (node.spec.provider_ref.name, node.spec.offer.id)
        world.cooling[offer] = (world.clock.monotonic() + world.settings.offer_cooldown_seconds, error.message)
    except AdapterError as error:
        memory.observe_errors += 1
        memory.observe_error = f"{account.provider} can't be asked: {error.message}"


async def proves_absence(account: Account, node: ComputeNode) -> bool:
    """Whether "not found" counts: said by the account that the node records, beside a call that shows the credential works."""
    try:
        opened = await account.check()
    except AdapterError:
        return False
    recorded = node.status.instance.account if node.status.instance else node.spec.account
    return recorded is None or opened.id == recorded


async def _confirm_id(account: Account, node: ComputeNode, memory: NodeMemory) -> None:
    """A heartbeat may hint at a new instance id; it counts once the provider confirms it."""
    beat, seen = node.status.heartbeat, memory.observation
    assert node.status.instance is not None
    if beat is None or seen is None or beat.instance_id in (None, node.status.instance.id, seen.id):
        return
    if isinstance(account.adapter, ConfirmsIds):
        adapter, handle, claimed = account.adapter, node.status.instance.handle, beat.instance_id or ""
        if await account.gate.call("confirm", lambda: adapter.confirm(handle, claimed)):
            memory.observation = replace(seen, id=claimed)


async def _probe(world: World, prober: Prober, node: ComputeNode, memory: NodeMemory) -> None:
    seen = memory.observation
    if seen is None:
        return
    if seen.readiness is not Readiness.PROBE or seen.state is not State.RUNNING:
        memory.answers = seen.readiness is Readiness.YES
        return
    beat = node.status.heartbeat
    endpoint = seen.endpoint or (beat.expose_url if beat else None)
    probe = node.spec.workload.readiness_probe
    period = float(probe.period_seconds) if probe and memory.answers else 1.0
    if endpoint is None:
        memory.answers, memory.probe_message = False, seen.message or "it has no endpoint yet"
    elif world.clock.monotonic() >= memory.probed_at + period * 0.9:
        memory.probed_at = world.clock.monotonic()
        memory.answers, memory.probe_message = await prober.answers(endpoint, node.spec.workload)
