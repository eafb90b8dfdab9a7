"""The status of a deployment, derived from what is: its nodes, its plan and what placement said. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from cal_crds import money
from cal_crds.conditions import Condition, Reason, Type, with_condition
from cal_crds.deployment import DeploymentNode, DeploymentState, DeploymentStatus, Waiting
from cal_crds.meta import LABEL_DEPLOYMENT
from cal_crds.node import ComputeNode
from cal_operator.deployments.decide import DeploymentView, Plan, answers
from cal_operator.nodes.decide import derived_state


@dataclass(frozen=True)
class Word:
    """What a state means for the conditions."""

    state: DeploymentState
    reason: Reason
    message: str
    ready: bool
    stalled: bool = False


def external_status(view: DeploymentView) -> DeploymentStatus:
    """Somebody else runs it: RUNNING at once, nothing bought."""
    deployment = view.deployment
    assert deployment.spec.external is not None
    from_idle = deployment.spec.desired_state is not None and deployment.spec.desired_state.value == "Terminated"
    state = DeploymentState.TERMINATED if from_idle else DeploymentState.RUNNING
    word = Word(state, Reason.TERMINATED if from_idle else Reason.AS_WANTED, "", True)
    status = deployment.status.model_copy(
        update={
            "state": state,
            "endpoint": None if from_idle else deployment.spec.external.endpoint,
            "error_message": None,
        }
    )
    return _conditions(view, status, word, available=not from_idle)


def report(view: DeploymentView, plan: Plan, waiting: Waiting | None) -> DeploymentStatus:
    """The whole status. `view.nodes` are those of after the plan was carried out."""
    old = view.deployment.status
    present = [node for node in view.nodes if node.status.gone_time is None]
    serving = [node for node in view.nodes if answers(node)]
    current = [
        node
        for node in present
        if node.spec.template_hash == view.template and node.metadata.deletion_timestamp is None
    ]
    if present:
        waiting = None if len(current) >= plan.wanted else waiting
    word = _word(view, plan, present, serving, current, waiting)
    starts = [
        node.status.instance.start_time for node in present if node.status.instance and node.status.instance.start_time
    ]
    rerun = old.outcome is not None and old.outcome.generation != view.deployment.metadata.generation
    over = plan.idle is not None and not present
    first = None if rerun or over else old.first_start_time
    status = old.model_copy(
        update={
            "state": word.state,
            "endpoint": serving[0].status.endpoint if serving else None,
            "replicas": len(present),
            "ready_replicas": len(serving),
            "updated_replicas": len(current),
            "selector": f"{LABEL_DEPLOYMENT}={view.deployment.metadata.uid}",
            "bound_pool_uid": old.bound_pool_uid
            or view.bound_pool_uid
            or (view.pool.metadata.uid if view.pool else None),
            "last_start_time": max([*starts, *([old.last_start_time] if old.last_start_time else [])], default=None),
            "first_start_time": first or min(starts, default=None),
            "attempts": max((node.spec.attempt for node in current if node.status.answered_time is None), default=0),
            "cost": money.at_rate(old.cost, _rate(present), view.now.replace(microsecond=0)),
            "nodes": [_short(node) for node in view.nodes],
            "error_message": _error(view, plan, word),
            "waiting": _waiting(old.waiting, waiting, view.now),
            "outcome": plan.outcome or (None if plan.idle is None else old.outcome),
            "terminated_time": _ended_at(old, word, view.now),
        }
    )
    return _conditions(view, status, word, available=bool(serving))


def _rate(present: list[ComputeNode]) -> Decimal:
    return sum((money.parse(node.status.cost.rate_per_hour) for node in present if node.status.cost), Decimal(0))


def _short(node: ComputeNode) -> DeploymentNode:
    state = derived_state(node.status, node.metadata.deletion_timestamp is not None)
    return DeploymentNode(name=node.metadata.name, uid=node.metadata.uid, state=state, endpoint=node.status.endpoint)


def _word(
    view: DeploymentView,
    plan: Plan,
    present: list[ComputeNode],
    serving: list[ComputeNode],
    current: list[ComputeNode],
    waiting: Waiting | None,
) -> Word:
    if plan.idle is not None:
        return _idle_word(plan.idle, present)
    if plan.outcome is not None:
        met = plan.outcome.reason in (Reason.COMPLETED, Reason.MAX_RUNTIME)
        return Word(plan.outcome.state, Reason(plan.outcome.reason), plan.outcome.message, ready=met, stalled=not met)
    if plan.wanted <= 0:
        return Word(DeploymentState.STOPPED, Reason.AS_WANTED, "no replica is wanted", ready=not present)
    note = "; ".join(plan.notes)
    if len(serving) >= plan.wanted:
        settled = len(current) == len(present) == plan.wanted and all(node in serving for node in current)
        reason = Reason.ALL_ANSWER if settled else Reason.ROLLING_OUT
        return Word(DeploymentState.RUNNING, reason, note, ready=settled)
    if serving:
        wait = f"; {waiting.message}" if waiting is not None else ""
        message = note or f"{len(serving)} of {plan.wanted} replicas answer{wait}"[:4096]
        return Word(DeploymentState.DEGRADED, Reason.REPLACING if note else Reason.SOME_ANSWER, message, ready=False)
    living = [node for node in present if node.metadata.deletion_timestamp is None and node.status.ended is None]
    messages = sorted({node.status.message for node in living if node.status.message})
    text = "; ".join([*plan.notes, *messages])
    if any(node.status.instance for node in living):
        return Word(
            DeploymentState.DEPLOYING, Reason.DEPLOYING, text or "the endpoint does not answer yet", ready=False
        )
    if living:
        return Word(
            DeploymentState.PROVISIONING, Reason.PROVISIONING, text or "an instance is being obtained", ready=False
        )
    if waiting is not None:
        return Word(DeploymentState.PENDING, Reason(waiting.reason), waiting.message, ready=False)
    return Word(DeploymentState.PENDING, Reason.IN_PROGRESS, note or "a node is about to be asked for", ready=False)


def _idle_word(idle: tuple[Reason, str], present: list[ComputeNode]) -> Word:
    """Nothing is wanted: on its way there, or there."""
    reason, message = idle
    final = (
        DeploymentState.STOPPED if reason in (Reason.POOL_STOPPED, Reason.BUDGET_SPENT) else DeploymentState.TERMINATED
    )
    if not present:
        return Word(final, reason, message, ready=True)
    stuck = sorted(
        {node.status.message for node in present if node.status.message and node.metadata.deletion_timestamp}
    )
    return Word(DeploymentState.TERMINATING, reason, "; ".join([message, *stuck]), ready=False)


def _error(view: DeploymentView, plan: Plan, word: Word) -> str | None:
    """What went wrong and still matters: a user's own stop is no error."""
    if plan.idle is not None:
        return plan.idle[1] if plan.idle[0] is Reason.BUDGET_SPENT else None
    if word.stalled:
        return word.message
    if word.state is DeploymentState.RUNNING:
        return None
    failing = [
        node.status.ended.message for node in view.nodes if node.status.ended and not node.metadata.deletion_timestamp
    ]
    return "; ".join([*plan.notes, *failing])[:4096] or None if failing else None


def _waiting(old: Waiting | None, new: Waiting | None, now: datetime) -> Waiting | None:
    """Since when it waits is kept over changes of the reason."""
    if new is None:
        return None
    since = old.since if old is not None and old.since is not None else now.replace(microsecond=0)
    if old is not None and old.reason == new.reason and old.message == new.message and old.refused == new.refused:
        return old
    return new.model_copy(update={"since": since})


def _ended_at(old: DeploymentStatus, word: Word, now: datetime) -> datetime | None:
    if word.state is not DeploymentState.TERMINATED:
        return None
    return old.terminated_time or now.replace(microsecond=0)


def _conditions(view: DeploymentView, status: DeploymentStatus, word: Word, *, available: bool) -> DeploymentStatus:
    generation = view.deployment.metadata.generation
    conditions: list[Condition] = list(status.conditions)
    serves = Reason.ALL_ANSWER if available else Reason.NONE_ANSWERS
    busy = not word.ready and not word.stalled
    for type_, holds, reason, message in (
        (Type.READY, word.ready, word.reason, word.message),
        (Type.AVAILABLE, available, serves, ""),
        (Type.RECONCILING, busy, word.reason if busy else Reason.AS_WANTED, word.message if busy else ""),
        (
            Type.STALLED,
            word.stalled,
            word.reason if word.stalled else Reason.AS_WANTED,
            word.message if word.stalled else "",
        ),
    ):
        conditions = with_condition(conditions, type_, holds, reason, message, generation=generation, now=view.now)
    return status.model_copy(update={"conditions": conditions, "observed_generation": generation})
