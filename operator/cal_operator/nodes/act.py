"""Carry a decision about a node out. Every step is idempotent; what spends is recorded before anything else happens with it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from cal_adapters.contract import Instance as Bought
from cal_adapters.contract import LaunchRequest, Mark, Stop
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    NoCapacity,
    NothingBought,
    PriceAboveCap,
    Refused,
)
from cal_crds import money
from cal_crds.cluster import ClusterError, Conflict, NotFound
from cal_crds.conditions import Reason, Type, with_condition
from cal_crds.meta import ANNOTATION_ABANDON, FINALIZER, NODE
from cal_crds.node import ComputeNode, EndCause, Ended, Instance, NodeStatus
from cal_operator.accounts import Account
from cal_operator.logs import keep_logs
from cal_operator.nodes.decide import MarkGone, NodeView, derived_state
from cal_operator.nodes.observe import proves_absence
from cal_operator.nodes.purchase import MARGIN, build_request, over_limit, still_wanted, time_to_spend
from cal_operator.workload_secrets import EnvMissing
from cal_operator.world import World

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Again:
    """Look at the node again after so many seconds."""

    after: float


async def release(world: World, node: ComputeNode) -> None:
    """The instance is proven gone: let the object go."""
    await world.set_finalizers(NODE, node, [name for name in node.metadata.finalizers if name != FINALIZER])


async def mark_gone(world: World, view: NodeView, decision: MarkGone) -> None:
    """Write down that nothing bills; a node that is being deleted goes at once instead, unless somebody else holds it too."""
    node = view.node
    if node.metadata.annotations.get(ANNOTATION_ABANDON):
        handle = node.status.instance.handle if node.status.instance else "none recorded"
        message = f"the instance ({handle}) was abandoned by annotation and may still bill"
        await world.events.say(node, NODE.name, "Abandoned", message, warning=True)
    if view.deleting and set(node.metadata.finalizers) <= {FINALIZER}:
        await release(world, node)
        return
    now = view.now.replace(microsecond=0)
    status = node.status.model_copy(
        update={"gone_time": now, "cost": money.at_rate(node.status.cost, money.parse("0"), now)}
    )
    status = _condition(view, status, Type.LAUNCHED, False, decision.reason, decision.message)
    status = status.model_copy(update={"state": derived_state(status, view.deleting)})
    # Not over what another leader, or a late launch, has recorded meanwhile.
    await world.write_status(NODE, node, node.status, status, exact=True)


# --- buying ------------------------------------------------------------------------------------------------------------------


async def look_up(world: World, view: NodeView, account: Account) -> Again:
    """Ask for the node's mark; what is found is adopted."""
    node, memory = view.node, view.memory
    mark = Mark(world.installation, node.spec.token)
    asked = world.steady()
    if stranger := await _stranger(account, node):
        await world.events.say(node, NODE.name, "WrongAccount", stranger, warning=True)
        return Again(30.0)
    try:
        found = await account.gate.call("find", lambda: account.adapter.find(mark))
    except AdapterError as error:
        return Again(error.retry_after or account.adapter.traits.poll_seconds)
    if found:
        oldest = min(found, key=lambda bought: (bought.started is None, bought.started or asked, bought.handle))
        await world.whole(record(world, account, node, oldest), f"record {node.metadata.name}")
        return Again(0.0)
    memory.looked_up = asked
    return Again(account.adapter.traits.poll_seconds / 4)


async def _stranger(account: Account, node: ComputeNode) -> str | None:
    """Why the account that a changed key opens can't tell what was bought through the one before; None if it is the same."""
    intended = node.spec.account
    if intended is None:
        return None
    try:
        opened = account.opened or await account.check()
    except AdapterError as error:
        return f"it can't be told whether the credential still opens account {intended}: {error.message}"
    if opened.id == intended:
        return None
    return f"a purchase may have been made from account {intended}, but the credential opens {opened.id}"


async def launch(world: World, view: NodeView, account: Account) -> Again:
    """Buy, if both the node and its deployment still want it, and record what was bought."""
    traits, memory = account.adapter.traits, view.memory
    if world.leader.remaining() < traits.launch_timeout_seconds + MARGIN:
        return Again(1.0)  # a call could outlive the lease: after its renewal
    fresh = await still_wanted(world, view.node)
    if fresh is None or fresh[0].status.instance is not None:
        return Again(1.0)
    node, deployment = fresh
    if stranger := await _stranger(account, node):
        return await _not_from_here(world, replace(view, node=node), account, stranger)
    if refusal := await over_limit(world, account, node):
        memory.trouble, memory.retry_at = (Reason.LIMIT_REACHED, refusal), world.clock.monotonic() + 10.0
        return Again(0.0)
    try:
        request = await build_request(world, node, deployment)
    except EnvMissing as missing:
        memory.trouble, memory.retry_at = (Reason.SECRET_MISSING, str(missing)), world.clock.monotonic() + 5.0
        return Again(0.0)
    memory.attempted, memory.outcome_unknown = world.steady(), True
    return await world.whole(_buy(world, view, account, node, request), f"launch {node.metadata.name}")


async def _not_from_here(world: World, view: NodeView, account: Account, stranger: str) -> Again:
    """The intent names another account than the one that would pay. Were the answer lost, no look-up could find what was bought (they
    go by the intent): so the node ends, and its successor names the right one."""
    if account.opened is None:
        view.memory.trouble, view.memory.retry_at = (Reason.UNREACHABLE, stranger), world.clock.monotonic() + 5.0
    else:
        await _never_launched(world, view, Reason.WRONG_ACCOUNT, stranger)
    return Again(0.0)


async def _buy(world: World, view: NodeView, account: Account, node: ComputeNode, request: LaunchRequest) -> Again:
    memory, traits = view.memory, account.adapter.traits

    async def call() -> Bought:
        # From now on it may have its effect, and not from when it began to stand in line: look-ups settle after this moment.
        memory.attempted = world.steady()
        return await account.adapter.launch(request)

    try:
        bought = await account.gate.call(
            "launch", call, bound=lambda: time_to_spend(world, traits.launch_timeout_seconds)
        )
    except NothingBought as error:
        memory.outcome_unknown = False
        return await _not_bought(world, view, account, node, error)
    except AdapterError as error:
        log.warning("launch of %s: outcome unknown: %s", node.metadata.name, error.message)
        memory.trouble = (Reason.OUTCOME_UNKNOWN, error.message)
        return Again(traits.poll_seconds)
    await record(world, account, node, bought)
    # `outcome_unknown` stays: should somebody wipe the status, this node is not one for which certainly nothing was bought.
    memory.failures = 0
    return Again(0.0)


async def _not_bought(world: World, view: NodeView, account: Account, node: ComputeNode, error: NothingBought) -> Again:
    """Nothing was bought for certain. What another offer may mend, or nothing will, ends the node; the rest is tried again."""
    memory = view.memory
    if isinstance(error, NoCapacity | PriceAboveCap | Refused):
        offer = (node.spec.provider_ref.name, node.spec.offer.id)
        if not isinstance(error, Refused):
            world.cooling[offer] = (world.clock.monotonic() + world.settings.offer_cooldown_seconds, error.message)
        await _never_launched(world, replace(view, node=node), error.reason, error.message)
        return Again(0.0)
    memory.failures += 1
    wait = error.retry_after or min(2.0**memory.failures, 120.0)
    memory.trouble, memory.retry_at = (error.reason, error.message), world.clock.monotonic() + wait
    if isinstance(error, CredentialsRefused):
        account.error = error
    return Again(0.0)


async def _never_launched(world: World, view: NodeView, reason: Reason, message: str) -> None:
    """Write down that the node ended before anything was bought for it."""
    node, now = view.node, view.now.replace(microsecond=0)
    ended = Ended(cause=EndCause.NEVER_LAUNCHED, message=message[:4096], time=now)
    status = node.status.model_copy(update={"ended": ended, "gone_time": now, "message": message[:4096]})
    status = _condition(view, status, Type.LAUNCHED, False, reason, message)
    status = status.model_copy(update={"state": derived_state(status, view.deleting)})
    await world.write_status(NODE, node, node.status, status, exact=True)


async def record(world: World, account: Account, node: ComputeNode, bought: Bought) -> None:
    """Write the handle down before anything else happens with it (rule 3). Conflicts and an absent API server are tried again
    until it is written; if the node is gone or holds another handle, what was bought is stopped."""
    path = NODE.path(node.metadata.namespace, node.metadata.name)
    version: str | None = node.metadata.resource_version
    wait = 0.2
    while True:
        try:
            if version is None:
                fresh = ComputeNode.parse(await world.cluster.get(path))
                known = fresh.status.instance.handle if fresh.status.instance else None
                if fresh.metadata.uid != node.metadata.uid or known not in (None, bought.handle):
                    break
                if known == bought.handle:
                    return
                if fresh.status.gone_time is not None:
                    break  # given up meanwhile: nobody looks at what it has any more
                node, version = fresh, fresh.metadata.resource_version
            await _write_instance(world, path, node, bought, version)
            return
        except NotFound:
            break
        except Conflict:
            version = None
        except ClusterError as error:
            log.error("the handle of %s is not written yet: %s", node.metadata.name, error.message)
            await asyncio.sleep(wait)
            version, wait = None, min(wait * 2, 5.0)
    log.warning("%s is gone or has another instance: the one just bought is stopped", node.metadata.name)
    world.background(undo(account, bought.handle), f"undo {node.metadata.name}")


async def _write_instance(world: World, path: str, node: ComputeNode, bought: Bought, version: str) -> None:
    now = world.clock.now()
    price = bought.price_per_hour if bought.price_per_hour is not None else money.parse(node.spec.offer.price_per_hour)
    instance = Instance(
        handle=bought.handle, id=bought.id, account=bought.account, price_per_hour=money.render(price),
        start_time=(bought.started or now).replace(microsecond=0),
    )  # fmt: skip
    conditions = with_condition(
        node.status.conditions, Type.LAUNCHED, True, Reason.LAUNCHED, "", generation=node.metadata.generation, now=now
    )
    status = {
        "observedGeneration": node.metadata.generation,
        "instance": instance.dump(),
        "state": derived_state(node.status, node.metadata.deletion_timestamp is not None).value,
        "cost": money.at_rate(node.status.cost, price, now.replace(microsecond=0)).dump(),
        "conditions": [condition.dump() for condition in conditions],
        "message": None,
    }
    metadata = {"uid": node.metadata.uid, "resourceVersion": version}
    world.learn(NODE, await world.cluster.merge_patch(f"{path}/status", {"metadata": metadata, "status": status}))


async def undo(account: Account, handle: str) -> None:
    """Stop what nobody holds, until it is proven gone. If this process dies meanwhile, the sweep finds it."""
    wait = account.adapter.traits.poll_seconds
    while True:
        try:
            if await account.gate.call("stop", lambda: account.adapter.stop(handle)) is Stop.GONE:
                return
        except InstanceNotFound:
            return
        except AdapterError as error:
            log.warning("an unwanted instance at %s isn't stopped yet: %s", account.provider, error.message)
            wait = error.retry_after or min(wait * 2, 60.0)
        await asyncio.sleep(wait)


# --- stopping ----------------------------------------------------------------------------------------------------------------


async def stop(world: World, view: NodeView, account: Account | None) -> Again | MarkGone:
    """Ask for the end of the instance. MarkGone once it is proven."""
    node, memory = view.node, view.memory
    assert node.status.instance is not None
    if account is None:
        reason, message = view.trouble or (Reason.PROVIDER_NOT_READY, "no adapter")
        return await _stop_failed(world, view, reason, message, 10.0)
    recorded = node.status.instance.account
    if recorded is not None and account.opened is not None and account.opened.id != recorded:
        message = f"the instance belongs to account {recorded}, the credential opens {account.opened.id}"
        return await _stop_failed(world, view, Reason.WRONG_ACCOUNT, message, 30.0)
    await keep_logs(world, node, account, memory)
    handle = node.status.instance.handle
    try:
        stopped = await account.gate.call("stop", lambda: account.adapter.stop(handle))
    except InstanceNotFound as error:
        if await proves_absence(account, node):
            return MarkGone(Reason.GONE, "the provider no longer knows the instance")
        return await _stop_failed(world, view, Reason.STOP_REFUSED, error.message, account.adapter.traits.poll_seconds)
    except AdapterError as error:
        memory.stop_failures += 1
        wait = error.retry_after or min(account.adapter.traits.poll_seconds * 2**memory.stop_failures, 60.0)
        return await _stop_failed(world, view, error.reason, error.message, wait)
    memory.stop_failures = 0
    if stopped is Stop.GONE:
        if account.opened is None and not await proves_absence(account, node):
            message = f"the provider says gone, but it isn't known which account the credential opens; the instance's is {recorded}"
            return await _stop_failed(world, view, Reason.WRONG_ACCOUNT, message, account.adapter.traits.poll_seconds)
        return MarkGone(Reason.GONE, "the instance is stopped")
    return Again(account.adapter.traits.poll_seconds / 2)


async def _stop_failed(world: World, view: NodeView, reason: Reason, message: str, after: float) -> Again:
    """A failed stop is a condition, an Event and a retry: never a success."""
    status = _condition(view, view.node.status, Type.STOP_FAILED, True, reason, message)
    status = status.model_copy(update={"message": f"not stopped yet: {message}"[:4096]})
    await world.write_status(NODE, view.node, view.node.status, status)
    await world.events.say(view.node, NODE.name, "StopFailed", f"{reason}: {message}", warning=True)
    return Again(after)


def _condition(
    view: NodeView, status: NodeStatus, type_: Type, holds: bool, reason: Reason, message: str
) -> NodeStatus:
    generation = view.node.metadata.generation
    conditions = with_condition(status.conditions, type_, holds, reason, message, generation=generation, now=view.now)
    return status.model_copy(update={"conditions": conditions, "observed_generation": generation})
