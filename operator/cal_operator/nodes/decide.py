"""What to do about a node: pure rules over what was observed. The first rule that speaks wins; the order is the design."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cal_adapters.contract import Observation, Readiness, State, Traits
from cal_crds import money
from cal_crds.conditions import Reason, Type, condition, with_condition
from cal_crds.deployment import ModelDeployment, NodeState
from cal_crds.meta import ANNOTATION_ABANDON
from cal_crds.node import ComputeNode, EndCause, Ended, HeartbeatState, NodeStatus
from cal_crds.workload import FINITE
from cal_operator.nodes.memory import NodeMemory


@dataclass(frozen=True)
class NodeView:
    """Everything that the decision looks at."""

    node: ComputeNode
    now: datetime
    monotonic: float
    #: None: certainly gone (or another of that name).
    deployment: ModelDeployment | None
    memory: NodeMemory
    term_start: datetime
    #: None: no adapter to ask; `trouble` says why.
    traits: Traits | None
    trouble: tuple[Reason, str] | None = None
    #: Why its provider sells nothing just now.
    not_sold: tuple[Reason, str] | None = None
    last_beat: datetime | None = None
    #: The node was silent for too long, and its pool may lose one more just now.
    beats_missed: bool = False

    @property
    def deleting(self) -> bool:
        return self.node.metadata.deletion_timestamp is not None

    @property
    def unwanted(self) -> bool:
        return self.deleting or self.node.status.ended is not None


@dataclass(frozen=True)
class Release:
    """Let the object go: its instance is proven gone."""


@dataclass(frozen=True)
class Remove:
    """Ask for the object's deletion: its deployment is gone."""


@dataclass(frozen=True)
class MarkGone:
    """Record that nothing bills and nothing can."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class LookUp:
    """Ask the provider whether this node's instance exists already."""


@dataclass(frozen=True)
class Launch:
    """Buy."""


@dataclass(frozen=True)
class Stop:
    """End the instance, again and again until it is proven gone."""


@dataclass(frozen=True)
class Watch:
    """Nothing to do but to write down what was seen and to look again after so many seconds (None: when woken)."""

    status: NodeStatus
    after: float | None


#: For so long after its launch, "not yet" needs no explanation.
_YOUNG_SECONDS = 15.0

Decision = Release | Remove | MarkGone | LookUp | Launch | Stop | Watch


def decide(view: NodeView) -> Decision:
    """What to do now. No I/O, no clock but `view.now`."""
    for rule in _RULES:
        decision = rule(view)
        if decision is not None:
            return decision
    return _watch(view)


def _abandoned(view: NodeView) -> Decision | None:
    """An admin says to let go of what nobody can prove gone."""
    if view.node.metadata.annotations.get(ANNOTATION_ABANDON) and view.node.status.gone_time is None and view.unwanted:
        return MarkGone(Reason.GONE, "abandoned by annotation: nobody proved the instance gone")
    return None


def _proven_gone(view: NodeView) -> Decision | None:
    """Nothing bills: the object goes when it is deleted or its deployment is gone, else it rests as a record."""
    if view.node.status.gone_time is None:
        return None
    if view.deleting:
        return Release()
    return Remove() if view.deployment is None else Watch(view.node.status, None)


def _deployment_gone(view: NodeView) -> Decision | None:
    return Remove() if view.deployment is None and not view.deleting else None


def _unwanted_unbought(view: NodeView) -> Decision | None:
    """Without a handle, an unwanted node goes only when nothing can have been bought (a launch may still be on its way)."""
    if not view.unwanted or view.node.status.instance is not None:
        return None
    if _certainly_unbought(view) or _look_ups_settled(view):
        return MarkGone(Reason.GONE, "nothing was bought")
    return LookUp() if view.traits is not None else _blocked(view)


def _unwanted(view: NodeView) -> Decision | None:
    return Stop() if view.unwanted else None


def _unbought(view: NodeView) -> Decision | None:
    """No handle yet: adopt before create."""
    if view.node.status.instance is not None:
        return None
    if view.traits is None or view.trouble is not None:
        return _blocked(view)
    if not _certainly_unbought(view) and not _look_ups_settled(view):
        return LookUp()
    if view.not_sold is not None:
        return _waiting(view, *view.not_sold, 30.0)
    if view.monotonic < view.memory.retry_at:
        reason, message = view.memory.trouble or (Reason.PROVIDER_BACKOFF, "")
        return _waiting(view, Reason(reason), message, view.memory.retry_at - view.monotonic)
    return Launch()


def _ended(view: NodeView) -> Decision | None:
    """The instance, its agent or its silence says that it ended: written down, then stopped until proven gone."""
    ended = _ending(view)
    if ended is None:
        return None
    status = view.node.status.model_copy(update={"ended": ended, "message": ended.message, "state": NodeState.DRAINING})
    return Watch(_with(view, status, Type.READY, False, Reason(_REASON_OF[ended.cause]), ended.message), 0.0)


_RULES = (_abandoned, _proven_gone, _deployment_gone, _unwanted_unbought, _unwanted, _unbought, _ended)

_REASON_OF = {
    EndCause.COMPLETED: Reason.COMPLETED,
    EndCause.CRASHED: Reason.CRASHED,
    EndCause.UNHEALTHY: Reason.CRASHED,
    EndCause.TERMINATED: Reason.ENDED_BY_PROVIDER,
    EndCause.LOST: Reason.LOST,
    EndCause.BEATS_MISSED: Reason.BEATS_MISSED,
    EndCause.NOT_ANSWERING: Reason.READINESS_TIMEOUT,
    EndCause.NEVER_LAUNCHED: Reason.REFUSED,
    EndCause.MAX_RUNTIME: Reason.MAX_RUNTIME,
}


def _certainly_unbought(view: NodeView) -> bool:
    """Made by this leader in this term, and every attempt since is known to have bought nothing."""
    return view.memory.born_here and not view.memory.outcome_unknown


def settled_at(view: NodeView) -> datetime:
    """From when on a look-up that finds nothing proves that nothing was bought (rule 2)."""
    traits = view.traits
    lag = traits.launch_timeout_seconds + traits.settle_seconds if traits else 0.0
    return max(view.term_start, view.memory.attempted or view.term_start) + timedelta(seconds=lag)


def _look_ups_settled(view: NodeView) -> bool:
    looked_up = view.memory.looked_up
    return view.traits is not None and looked_up is not None and looked_up >= settled_at(view)


def _blocked(view: NodeView) -> Watch:
    reason, message = view.trouble or (Reason.PROVIDER_NOT_READY, "its provider isn't ready")
    return _waiting(view, reason, message, 10.0)


def _waiting(view: NodeView, reason: Reason, message: str, after: float) -> Watch:
    status = view.node.status.model_copy(
        update={"message": message, "state": derived_state(view.node.status, view.deleting)}
    )
    return Watch(_with(view, status, Type.LAUNCHED, False, reason, message), after)


def _with(view: NodeView, status: NodeStatus, type_: Type, holds: bool, reason: Reason, message: str) -> NodeStatus:
    conditions = with_condition(
        status.conditions, type_, holds, reason, message, generation=view.node.metadata.generation, now=view.now
    )
    return status.model_copy(update={"conditions": conditions, "observed_generation": view.node.metadata.generation})


# --- how it ended ----------------------------------------------------------------------------------------------------------


def _ending(view: NodeView) -> Ended | None:
    by_provider = _ended_at_provider(view)
    cause = by_provider or _ended_by_beat(view) or _ended_by_silence(view)
    if cause is None:
        return None
    seen = view.memory.observation
    return Ended(cause=cause[0], message=cause[1][:4096], time=view.now, exit_code=seen.exit_code if seen else None)


def _ended_at_provider(view: NodeView) -> tuple[EndCause, str] | None:
    seen = view.memory.observation
    if view.memory.unsold is not None:
        return EndCause.NEVER_LAUNCHED, view.memory.unsold
    if view.memory.absent:
        return EndCause.LOST, "the provider no longer knows the instance"
    if seen is None:
        return None
    if seen.state is State.SUCCEEDED:
        if view.node.spec.workload.type in FINITE or _beat_state(view) is HeartbeatState.COMPLETED:
            return EndCause.COMPLETED, seen.message or "done"
        said = f": {seen.message}" if seen.message else ""
        return EndCause.CRASHED, f"the command ended without an error, though it should serve{said}"
    causes = {State.FAILED: EndCause.CRASHED, State.TERMINATED: EndCause.TERMINATED, State.LOST: EndCause.LOST}
    cause = causes.get(seen.state)
    if cause is EndCause.TERMINATED and _beat_state(view) is HeartbeatState.COMPLETED:
        cause = EndCause.COMPLETED
    return (cause, seen.message or cause.value) if cause else None


def _beat_state(view: NodeView) -> HeartbeatState | None:
    beat = view.node.status.heartbeat
    return beat.state if beat else None


def _ended_by_beat(view: NodeView) -> tuple[EndCause, str] | None:
    """What the agent says counts as an end of service; that the instance is gone, only the provider can say."""
    beat = view.node.status.heartbeat
    if beat is None:
        return None
    causes = {
        HeartbeatState.COMPLETED: EndCause.COMPLETED,
        HeartbeatState.FAILED: EndCause.CRASHED,
        HeartbeatState.UNHEALTHY: EndCause.UNHEALTHY,
        HeartbeatState.TERMINATED: EndCause.TERMINATED,
    }
    cause = causes.get(beat.state)
    return (cause, beat.error_message or f"its heartbeat says {beat.state.value.lower()}") if cause else None


def _ended_by_silence(view: NodeView) -> tuple[EndCause, str] | None:
    """Missed beats count only if the provider or the probe agrees; no answer only after the whole readiness time."""
    seen, memory = view.memory.observation, view.memory
    agrees = memory.answers is False and seen is not None and seen.state is not State.UNKNOWN
    if view.beats_missed and agrees:
        return EndCause.BEATS_MISSED, f"no heartbeat since {view.last_beat:%H:%M:%S}, and it doesn't answer"
    if view.deployment is None or memory.answers is not False or view.node.spec.workload.type in FINITE:
        return None
    limit = view.deployment.spec.readiness_timeout_seconds
    since = _silent_since(view)
    if since is not None and view.now - since > timedelta(seconds=limit):
        return (
            EndCause.NOT_ANSWERING,
            f"no answer within {limit} s: {memory.probe_message or (seen.message if seen else '')}",
        )
    return None


def _silent_since(view: NodeView) -> datetime | None:
    """Since when it doesn't answer: since it last did, or since its launch."""
    answering = condition(view.node.status.conditions, Type.ANSWERING)
    if answering is not None:
        return max(answering.last_transition_time, view.term_start)
    launched = condition(view.node.status.conditions, Type.LAUNCHED)
    return max(launched.last_transition_time, view.term_start) if launched else None


# --- what is seen of a running one ---------------------------------------------------------------------------------------


def _watch(view: NodeView) -> Watch:
    status = view.node.status
    seen = view.memory.observation
    answers = bool(view.memory.answers)
    if seen is not None and not (_young(view) and not answers):
        status = _note(view, status, seen, answers)
    if view.memory.observe_errors >= 3:
        status = status.model_copy(update={"message": view.memory.observe_error})
    return Watch(status, _next_look(view, answers))


def _young(view: NodeView) -> bool:
    """Launched a moment ago, and never answered: what is seen of it will be other in a moment, and isn't worth a write."""
    status = view.node.status
    launched = condition(status.conditions, Type.LAUNCHED)
    if status.answered_time is not None or launched is None:
        return False
    return view.now - launched.last_transition_time < timedelta(seconds=_YOUNG_SECONDS)


def _note(view: NodeView, status: NodeStatus, seen: Observation, answers: bool) -> NodeStatus:
    """The status with what was seen; unchanged parts stay equal, so that nothing is written for them."""
    assert status.instance is not None
    instance = status.instance.model_copy(
        update={
            "id": seen.id or status.instance.id,
            "start_time": seen.started.replace(microsecond=0) if seen.started else status.instance.start_time,
            "node_address": seen.node_address or status.instance.node_address,
            "price_per_hour": money.render(seen.price_per_hour)
            if seen.price_per_hour is not None
            else status.instance.price_per_hour,
        }
    )
    beat = status.heartbeat
    endpoint = seen.endpoint or (beat.expose_url if beat else None)
    update = {
        "instance": instance,
        "endpoint": endpoint,
        "message": None if answers else _why_silent(view, seen),
        "answered_time": status.answered_time or (view.now.replace(microsecond=0) if answers else None),
        "cost": money.at_rate(status.cost, money.parse(instance.price_per_hour), view.now.replace(microsecond=0)),
    }
    status = status.model_copy(update=update)
    # Until the first answer no condition is written for "not yet": that alone would cost a write.
    if answers or condition(status.conditions, Type.ANSWERING) is not None:
        reason = Reason.ANSWERED if answers else Reason.NOT_ANSWERING
        status = _with(view, status, Type.ANSWERING, answers, reason, "" if answers else status.message or "")
        status = _with(view, status, Type.READY, answers, Reason.AS_WANTED if answers else Reason.NOT_ANSWERING, "")
    return status.model_copy(update={"state": derived_state(status, view.deleting)})


def _why_silent(view: NodeView, seen: Observation) -> str | None:
    """Why it doesn't answer yet: the probe's words for what runs and is probed, else the provider's."""
    probed = seen.state is State.RUNNING and seen.readiness is Readiness.PROBE
    return (view.memory.probe_message if probed else None) or seen.message or None


def _next_look(view: NodeView, answers: bool) -> float:
    traits = view.traits
    if traits is None:
        return 10.0
    calm = answers and view.memory.observe_errors == 0
    probe = view.node.spec.workload.readiness_probe
    period = float(probe.period_seconds) if probe else 5.0
    seen = view.memory.observation
    if calm and seen is not None and seen.readiness is Readiness.PROBE:
        return min(traits.observe_seconds, max(period, traits.poll_seconds))
    return traits.observe_seconds if calm else traits.poll_seconds


def derived_state(status: NodeStatus, deleting: bool) -> NodeState:
    """One word for people and REST."""
    if status.gone_time is not None:
        bad = {EndCause.CRASHED, EndCause.UNHEALTHY, EndCause.NOT_ANSWERING, EndCause.NEVER_LAUNCHED}
        return NodeState.FAILED if status.ended is not None and status.ended.cause in bad else NodeState.TERMINATED
    if deleting or status.ended is not None:
        return NodeState.DRAINING
    answering = condition(status.conditions, Type.ANSWERING)
    if status.instance is None or answering is None:
        return NodeState.PROVISIONING
    if answering.status != "True":
        return NodeState.UNHEALTHY
    busy = status.heartbeat is not None and status.heartbeat.state is HeartbeatState.BUSY
    return NodeState.BUSY if busy else NodeState.READY
