"""What a deployment wants of its nodes: pure rules over the object, its pool and its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from cal_crds import money
from cal_crds.conditions import Reason, Type, is_true
from cal_crds.deployment import DeploymentDesiredState, DeploymentState, ModelDeployment, Outcome
from cal_crds.names import digest
from cal_crds.node import ComputeNode, EndCause
from cal_crds.pool import ComputePool, PoolDesiredState
from cal_crds.workload import FINITE


@dataclass(frozen=True)
class DeploymentView:
    """Everything that the decision looks at."""

    deployment: ModelDeployment
    #: The pool it is bound to, or would be; None: there is none of that name, or it is another one now.
    pool: ComputePool | None
    #: The pool that it was bound to is gone for good.
    pool_gone: bool
    pool_problem: tuple[Reason, str] | None
    nodes: Sequence[ComputeNode]
    now: datetime
    #: The provider's instances end by themselves (capability Ephemeral).
    ephemeral: bool = True
    failure_minutes: float = 10.0
    backoff_base: float = 5.0
    backoff_max: float = 300.0
    #: The pool's `limits.maxTotalCost` is spent.
    budget_spent: bool = False
    #: The uid of the pool that it is bound to, as far as it is.
    bound_pool_uid: str | None = None

    @cached_property
    def template(self) -> str:
        return template_hash(self.deployment, self.pool)


@dataclass(frozen=True)
class Want:
    """One node to create."""

    slot: int
    predecessor: str
    attempt: int


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this pass."""

    create: Sequence[Want] = ()
    delete: Sequence[ComputeNode] = ()
    outcome: Outcome | None = None
    #: How many replicas are wanted just now, and why none where none are.
    wanted: int = 0
    idle: tuple[Reason, str] | None = None
    #: Replacements under way: for the status message.
    notes: Sequence[str] = ()
    #: Look again after so many seconds (a back-off or a bound on the run time ends then).
    after: float | None = None


def template_hash(deployment: ModelDeployment, pool: ComputePool | None) -> str:
    """Changes with whatever makes a new instance necessary."""
    spec = deployment.spec
    count = spec.gpu_per_replica if spec.gpu_per_replica is not None else (pool.spec.gpu_count if pool else 0)
    return digest(spec.workload.model_dump_json(), spec.model.model_dump_json(), str(count), length=16)


def decide(view: DeploymentView) -> Plan:
    """What to do now. No I/O, no clock but `view.now`."""
    idle = _idle(view)
    if idle is not None:
        return Plan(delete=[node for node in view.nodes if not _deleting(node)], idle=idle)
    outcome = _standing(view) or _outcome(view)
    if outcome is not None:
        return Plan(delete=_living(view), outcome=outcome)
    if view.pool is None:
        return Plan(
            wanted=view.deployment.spec.replicas
        )  # what it wants can't be said without its pool: nothing is touched
    return _fill(view)


def _idle(view: DeploymentView) -> tuple[Reason, str] | None:
    """Why no replica is wanted at all; None if some are."""
    spec = view.deployment.spec
    if spec.desired_state is DeploymentDesiredState.TERMINATED:
        return Reason.TERMINATED, "terminated as wanted"
    if view.pool_gone or (view.pool is not None and view.pool.metadata.deletion_timestamp is not None):
        return Reason.POOL_GONE, "its pool is deleted"
    if view.pool is not None and view.pool.spec.desired_state is PoolDesiredState.STOPPED:
        return Reason.POOL_STOPPED, "its pool is stopped"
    if view.budget_spent:
        return Reason.BUDGET_SPENT, "the pool's limits.maxTotalCost is spent"
    return None


def _standing(view: DeploymentView) -> Outcome | None:
    """The end that was found before, if the spec hasn't changed since."""
    outcome = view.deployment.status.outcome
    return outcome if outcome is not None and outcome.generation == view.deployment.metadata.generation else None


def _of_former_run(view: DeploymentView, node: ComputeNode) -> bool:
    """A record of the run that the last outcome ended: it says nothing about the run that the spec has started since. Made and ended before
    it: the one by the API server's clock, the other by ours, so that neither clock alone makes a present end a former one."""
    outcome, created, end = view.deployment.status.outcome, node.metadata.creation_timestamp, node.status.ended
    if outcome is None or end is None or created is None:
        return False
    return created <= outcome.time and end.time <= outcome.time


def _deleting(node: ComputeNode) -> bool:
    return node.metadata.deletion_timestamp is not None


def _serving(view: DeploymentView) -> list[ComputeNode]:
    return [node for node in view.nodes if answers(node)]


def answers(node: ComputeNode) -> bool:
    """Whether a node serves just now."""
    return not _deleting(node) and node.status.ended is None and is_true(node.status.conditions, Type.ANSWERING)


def _living(view: DeploymentView) -> list[ComputeNode]:
    """Nodes that still serve or will: an end of the deployment ends them. Ended ones stay as a record."""
    return [node for node in view.nodes if not _deleting(node) and node.status.ended is None]


# --- how it ends ---------------------------------------------------------------------------------------------------------------


def _outcome(view: DeploymentView) -> Outcome | None:
    """The end that follows from the nodes' ends, or from a bound of the spec."""
    return _run_out(view) or _pending_out(view) or _from_ended(view)


def _result(view: DeploymentView, state: DeploymentState, reason: Reason, message: str) -> Outcome:
    return Outcome(
        state=state,
        reason=reason,
        message=message[:4096],
        time=view.now.replace(microsecond=0),
        generation=view.deployment.metadata.generation,
    )


def _run_out(view: DeploymentView) -> Outcome | None:
    limit, start = view.deployment.spec.max_runtime_seconds, view.deployment.status.first_start_time
    if limit is None or start is None or view.now - start < timedelta(seconds=limit):
        return None
    return _result(view, DeploymentState.STOPPED, Reason.MAX_RUNTIME, f"maxRuntimeSeconds ({limit}) is over")


def _pending_out(view: DeploymentView) -> Outcome | None:
    limit, waiting = view.deployment.spec.pending_timeout_seconds, view.deployment.status.waiting
    if not limit or waiting is None or waiting.since is None or _living(view):
        return None
    if view.now - waiting.since < timedelta(seconds=limit):
        return None
    message = f"nothing was to be had within pendingTimeoutSeconds ({limit}): {waiting.message}"
    return _result(view, DeploymentState.FAILED, Reason.PENDING_TIMEOUT, message)


def _from_ended(view: DeploymentView) -> Outcome | None:
    ended = [
        node
        for node in view.nodes
        if node.status.ended is not None
        and not _deleting(node)
        and _is_latest(view, node)
        and not _of_former_run(view, node)
    ]
    if not ended:
        return None
    completed = [node for node in ended if _cause(node) is EndCause.COMPLETED]
    if len(completed) >= view.deployment.spec.replicas or (
        completed and view.deployment.spec.workload.type not in FINITE
    ):
        return _result(view, DeploymentState.STOPPED, Reason.COMPLETED, "it has done what it was for")
    for node in ended:
        if (outcome := _from_one(view, node)) is not None:
            return outcome
    return None


def _from_one(view: DeploymentView, node: ComputeNode) -> Outcome | None:
    """The table of the design, row by row; None: it is replaced (or was completed)."""
    serving, end = bool(_serving(view)), node.status.ended
    assert end is not None
    early = view.ephemeral and _age_at_end(node) < timedelta(minutes=view.failure_minutes)
    crashed = end.cause in (EndCause.CRASHED, EndCause.UNHEALTHY) or (end.cause is EndCause.TERMINATED and early)
    if (crashed or _refused(node)) and not serving:
        return _result(view, DeploymentState.FAILED, Reason.REFUSED if _refused(node) else Reason.CRASHED, end.message)
    if end.cause is EndCause.TERMINATED and not serving:
        return _result(view, DeploymentState.STOPPED, Reason.ENDED_BY_PROVIDER, end.message)
    if _never_served(node) and _counts(node) and node.spec.attempt >= view.deployment.spec.backoff_limit:
        tries = f"{node.spec.attempt} replacements in a row never served; the last one: {end.message}"
        return _result(view, DeploymentState.FAILED, Reason.BACKOFF_LIMIT, tries)
    return None


def _cause(node: ComputeNode) -> EndCause | None:
    return node.status.ended.cause if node.status.ended else None


def _refused(node: ComputeNode) -> bool:
    """The provider will never accept this request, so no other attempt may."""
    if _cause(node) is not EndCause.NEVER_LAUNCHED:
        return False
    return any(c.type == Type.LAUNCHED and c.reason == Reason.REFUSED for c in node.status.conditions)


def _counts(node: ComputeNode) -> bool:
    """An offer without room is no attempt: nothing ran."""
    return _cause(node) is not EndCause.NEVER_LAUNCHED


def _never_served(node: ComputeNode) -> bool:
    return node.status.answered_time is None


def _age_at_end(node: ComputeNode) -> timedelta:
    start = node.status.instance.start_time if node.status.instance else None
    return node.status.ended.time - start if node.status.ended and start else timedelta(0)


def _is_latest(view: DeploymentView, node: ComputeNode) -> bool:
    """Whether nothing has replaced it yet."""
    return all(other.spec.predecessor != node.metadata.uid for other in view.nodes)


# --- how it is filled ------------------------------------------------------------------------------------------------------------


@dataclass
class _Count:
    """The nodes of a deployment, sorted by what they are good for."""

    new: list[ComputeNode] = field(default_factory=list)
    old: list[ComputeNode] = field(default_factory=list)
    ended: list[ComputeNode] = field(default_factory=list)
    former: list[ComputeNode] = field(default_factory=list)
    done: list[ComputeNode] = field(default_factory=list)


def _sort(view: DeploymentView) -> _Count:
    count = _Count()
    for node in view.nodes:
        if _deleting(node):
            continue
        if _of_former_run(view, node):
            count.former.append(node)
        elif _cause(node) is EndCause.COMPLETED:
            count.done.append(node)
        elif node.status.ended is not None:
            count.ended.append(node)
        elif node.spec.template_hash == view.template:
            count.new.append(node)
        else:
            count.old.append(node)
    return count


def _fill(view: DeploymentView) -> Plan:
    """Create what is missing, replace what ended, roll out what changed, and delete what is too many."""
    spec, count = view.deployment.spec, _sort(view)
    wanted = max(0, spec.replicas - len(count.done))
    delete = count.former + [node for node in count.ended if not _is_latest(view, node) or len(count.new) >= wanted]
    delete += _surplus(count.new, wanted)
    delete += _outdated(view, count, wanted)
    missing = max(0, wanted - len(count.new))
    room = wanted + (spec.rollout.max_surge if count.old else 0) - len(count.new) - len(count.old)
    room += len([node for node in count.old if node in delete])
    wants, notes, after = _wants(view, count, min(missing, max(0, room)))
    return Plan(create=wants, delete=delete, wanted=wanted, notes=notes, after=sooner(after, _run_ends(view)))


def _surplus(nodes: Sequence[ComputeNode], wanted: int) -> list[ComputeNode]:
    """Too many: not answering first, then dearest, then youngest."""

    def worth(node: ComputeNode) -> tuple[bool, float, float]:
        price = money.parse(
            node.status.instance.price_per_hour if node.status.instance else node.spec.offer.price_per_hour
        )
        created = node.metadata.creation_timestamp
        return answers(node), -float(price), -(created.timestamp() if created else 0.0)

    return sorted(nodes, key=worth)[: max(0, len(nodes) - wanted)]


def _outdated(view: DeploymentView, count: _Count, wanted: int) -> list[ComputeNode]:
    """Nodes of an older workload that may go now: those that don't answer, and as many others as new ones answer for."""
    if not count.old:
        return []
    serving_old = [node for node in count.old if answers(node)]
    idle_old = [node for node in count.old if not answers(node)]
    needed = wanted - view.deployment.spec.rollout.max_unavailable
    spare = len(serving_old) + len([node for node in count.new if answers(node)]) - needed
    return idle_old + _surplus(serving_old, len(serving_old) - min(len(serving_old), max(0, spare)))


def _wants(view: DeploymentView, count: _Count, number: int) -> tuple[list[Want], list[str], float | None]:
    """`number` nodes to create: successors of ended ones first (after their back-off), then of outdated ones, then fresh slots."""
    wants: list[Want] = []
    notes: list[str] = []
    after: float | None = None
    for node in (node for node in count.ended if _is_latest(view, node)):
        attempt = (
            node.spec.attempt + 1
            if _never_served(node) and _counts(node)
            else (1 if _counts(node) else node.spec.attempt)
        )
        notes.append(_note(view, node, attempt))
        wait = _back_off(view, node, attempt)
        if len(wants) < number and wait <= 0:
            wants.append(Want(node.spec.slot, node.metadata.uid, attempt))
        elif wait > 0:
            number, after = max(0, number - 1), sooner(after, wait)
    taken = {node.spec.slot for node in (*count.new, *count.done)} | {want.slot for want in wants}
    taken |= {node.spec.slot for node in count.ended if _is_latest(view, node)}
    slots = [node.spec.slot for node in count.old if node.spec.slot not in taken]
    slots += [
        slot
        for slot in range(view.deployment.spec.replicas + len(view.nodes))
        if slot not in taken and slot not in slots
    ]
    for slot in slots[: number - len(wants)]:
        wants.append(Want(slot, _last_in(view, slot), 0))
    return wants, notes, after


def _last_in(view: DeploymentView, slot: int) -> str:
    """The youngest node that still stands in a slot; "" if none does. It makes the successor's name, so that a picture that is
    out of date can't make two of one."""
    there = [node for node in view.nodes if node.spec.slot == slot]
    return there[-1].metadata.uid if there else ""


def _back_off(view: DeploymentView, node: ComputeNode, attempt: int) -> float:
    """Seconds until an ended node is replaced; the first time at once."""
    assert node.status.ended is not None
    if attempt <= 1 and _counts(node):
        return 0.0
    wait = min(view.backoff_base * 2 ** max(0, attempt - 2), view.backoff_max) if _counts(node) else 1.0
    return wait - (view.now - node.status.ended.time).total_seconds()


def _note(view: DeploymentView, node: ComputeNode, attempt: int) -> str:
    assert node.status.ended is not None
    if not _counts(node):
        return f"{node.spec.offer.id} was not to be had: {node.status.ended.message}"
    limit = view.deployment.spec.backoff_limit
    return f"replacing {node.metadata.name}: {node.status.ended.message}, attempt {attempt} of {limit}"


def _run_ends(view: DeploymentView) -> float | None:
    """Seconds until `maxRuntimeSeconds` is over."""
    limit, start = view.deployment.spec.max_runtime_seconds, view.deployment.status.first_start_time
    return max(0.0, limit - (view.now - start).total_seconds()) if limit is not None and start is not None else None


def sooner(*times: float | None) -> float | None:
    """The earliest of the times that there are."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
