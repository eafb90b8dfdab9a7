"""What follows for a node, rule by rule: pure, with a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rig.build import INSTANCE, NOW, ago, answering, deployment, node

from cal_adapters.contract import Observation, Readiness, State, Traits
from cal_crds.conditions import Reason
from cal_crds.node import ComputeNode, EndCause
from cal_crds.provider import Capabilities
from cal_operator.nodes.decide import Launch, LookUp, MarkGone, NodeView, Release, Remove, Stop, Watch, decide
from cal_operator.nodes.memory import NodeMemory

TRAITS = Traits(capabilities=Capabilities(adapter_type="depin"), settle_seconds=20, launch_timeout_seconds=10)
BORN_HERE: dict[str, Any] = {"born_here": True}
BOUGHT: dict[str, Any] = {"status": {"instance": INSTANCE}}
SERVING: dict[str, Any] = {
    "status": {"instance": INSTANCE, "conditions": answering(ago(600)), "answeredTime": ago(600).isoformat()}
}
ENDED = {"cause": "Crashed", "time": ago(5).isoformat()}


def view(subject: ComputeNode, memory: dict[str, Any] | None = None, **changes: Any) -> NodeView:
    """A view of a node under a leader whose term began an hour ago."""
    made = NodeView(
        node=subject,
        now=NOW,
        monotonic=1000.0,
        deployment=deployment(),
        memory=NodeMemory(**(memory or {})),
        term_start=ago(3600),
        traits=TRAITS,
    )
    return replace(made, **changes)


NOT_SETTLED: dict[str, Any] = {"attempted": ago(10), "outcome_unknown": True, "looked_up": ago(5)}
SETTLED: dict[str, Any] = {"attempted": ago(60), "outcome_unknown": True, "looked_up": ago(29)}

CASES = {
    "a node made by this leader is bought at once": (view(node(), BORN_HERE), Launch),
    "a node of an earlier term is looked up first": (view(node()), LookUp),
    "a look-up before the bound proves nothing": (view(node(), {"looked_up": ago(3575)}), LookUp),
    "a look-up after the bound that finds nothing lets it be bought": (view(node(), {"looked_up": ago(3560)}), Launch),
    "after an unknown outcome it is looked up": (view(node(), {**BORN_HERE, **NOT_SETTLED}), LookUp),
    "until launch deadline and settle time are over": (view(node(), {**BORN_HERE, **SETTLED}), Launch),
    "a paused provider buys nothing": (view(node(), BORN_HERE, not_sold=(Reason.PAUSED, "paused")), Watch),
    "a provider in trouble buys nothing": (view(node(), BORN_HERE, trouble=(Reason.NO_CREDENTIALS, "")), Watch),
    "a back-off is waited for": (view(node(), {**BORN_HERE, "retry_at": 1001.0}), Watch),
    "no adapter, no launch": (view(node(), BORN_HERE, traits=None), Watch),
    "an instance is watched": (view(node(**BOUGHT)), Watch),
    "a deleted node with an instance is stopped": (view(node(deleting=True, **BOUGHT)), Stop),
    "also without an adapter: the act says why it can't": (view(node(deleting=True, **BOUGHT), traits=None), Stop),
    "an ended one is stopped too": (view(node(status={"instance": INSTANCE, "ended": ENDED})), Stop),
    "a deleted node that was never bought goes": (view(node(deleting=True), BORN_HERE), MarkGone),
    "a deleted node of an earlier term is looked up before it goes": (view(node(deleting=True)), LookUp),
    "a deleted node with an unknown launch stays until that is settled": (
        view(node(deleting=True), {**BORN_HERE, **NOT_SETTLED}),
        LookUp,
    ),
    "and goes after": (view(node(deleting=True), {**BORN_HERE, **SETTLED}), MarkGone),
    "without an adapter it stays, whatever happens": (view(node(deleting=True), traits=None), Watch),
    "a node without a deployment is deleted": (view(node(**BOUGHT), deployment=None), Remove),
    "also before it is bought": (view(node(), BORN_HERE, deployment=None), Remove),
    "proven gone and deleted: released": (view(node(deleting=True, status={"goneTime": ago(1).isoformat()})), Release),
    "proven gone and not deleted: a record": (view(node(status={"goneTime": ago(1).isoformat()})), Watch),
    "abandoned while it runs and is wanted: not let go": (
        view(node(metadata={"annotations": {"calayer.dev/abandon": "true"}}, **BOUGHT)),
        Watch,
    ),
    "abandoned and deleted: let go": (
        view(node(metadata={"annotations": {"calayer.dev/abandon": "true"}}, deleting=True, **BOUGHT)),
        MarkGone,
    ),
}


@pytest.mark.parametrize(("subject", "expected"), CASES.values(), ids=CASES.keys())
def test_decision(subject: NodeView, expected: type) -> None:
    assert type(decide(subject)) is expected


def seen(state: State, readiness: Readiness = Readiness.NO, **more: Any) -> dict[str, Any]:
    answers = readiness is Readiness.YES
    return {"observation": Observation(state, readiness=readiness, **more), "answers": answers}


def beat(state: str) -> dict[str, Any]:
    return {"heartbeat": {"state": state, "time": ago(30).isoformat()}}


SERVING_BEAT = {**SERVING["status"], **beat("Ready")}
MISSED: dict[str, Any] = {"beats_missed": True, "last_beat": ago(300)}
ENDINGS: dict[str, tuple[NodeView, EndCause | None]] = {
    "running goes on": (view(node(**SERVING), seen(State.RUNNING, Readiness.YES)), None),
    "an unknown word changes nothing": (view(node(**SERVING), seen(State.UNKNOWN)), None),
    "a crash": (view(node(**SERVING), seen(State.FAILED, exit_code=1)), EndCause.CRASHED),
    "lost": (view(node(**SERVING), seen(State.LOST)), EndCause.LOST),
    "ended at the provider": (view(node(**SERVING), seen(State.TERMINATED)), EndCause.TERMINATED),
    "exit 0 of a service is a crash": (view(node(**SERVING), seen(State.SUCCEEDED)), EndCause.CRASHED),
    "exit 0 of a training is its completion": (
        view(node(spec={"workload": {"type": "Training"}}, **BOUGHT), seen(State.SUCCEEDED)),
        EndCause.COMPLETED,
    ),
    "not found, proven": (view(node(**SERVING), {"absent": True}), EndCause.LOST),
    "a beat says failed": (view(node(status={"instance": INSTANCE, **beat("Failed")})), EndCause.CRASHED),
    "a beat says unhealthy": (view(node(status={"instance": INSTANCE, **beat("Unhealthy")})), EndCause.UNHEALTHY),
    "a beat says terminated": (view(node(status={"instance": INSTANCE, **beat("Terminated")})), EndCause.TERMINATED),
    "a beat says completed, at any age": (
        view(node(status={"instance": INSTANCE, **beat("Completed")}), seen(State.TERMINATED)),
        EndCause.COMPLETED,
    ),
    "missed beats alone say nothing": (
        view(node(status=SERVING_BEAT), seen(State.RUNNING, Readiness.YES), **MISSED),
        None,
    ),
    "missed beats and an unknown word say nothing": (
        view(node(status=SERVING_BEAT), seen(State.UNKNOWN), **MISSED),
        None,
    ),
    "missed beats and no answer": (
        view(node(status=SERVING_BEAT), seen(State.RUNNING), **MISSED),
        EndCause.BEATS_MISSED,
    ),
    "no answer within the readiness time": (
        view(node(**BOUGHT), seen(State.RUNNING), deployment=deployment(readinessTimeoutSeconds=60)),
        None,  # the clock starts with the Launched condition, which this node lacks
    ),
    "silence after it once answered counts from the leader's term on": (
        view(
            node(status={**SERVING["status"], "conditions": [{**answering(ago(600))[0], "status": "False"}]}),
            seen(State.RUNNING),
            deployment=deployment(readinessTimeoutSeconds=60),
            term_start=ago(30),
        ),
        None,
    ),
    "and is an end after the readiness time": (
        view(
            node(status={**SERVING["status"], "conditions": [{**answering(ago(600))[0], "status": "False"}]}),
            seen(State.RUNNING),
            deployment=deployment(readinessTimeoutSeconds=60),
        ),
        EndCause.NOT_ANSWERING,
    ),
}


@pytest.mark.parametrize(("subject", "cause"), ENDINGS.values(), ids=ENDINGS.keys())
def test_ending(subject: NodeView, cause: EndCause | None) -> None:
    decision = decide(subject)
    assert isinstance(decision, Watch)
    ended = decision.status.ended
    assert (ended.cause if ended else None) is cause


def test_nothing_new_is_nothing_to_write() -> None:
    """A second look at the same world yields the same status, so nothing is written for it."""
    subject = view(node(**BOUGHT), seen(State.RUNNING, Readiness.YES, endpoint="http://x:1"))
    first = decide(subject)
    assert isinstance(first, Watch)
    later = replace(
        subject, node=subject.node.model_copy(update={"status": first.status}), now=NOW + timedelta(hours=1)
    )
    second = decide(later)
    assert isinstance(second, Watch) and second.status == first.status


def test_no_heartbeat_is_ever_written_by_the_operator() -> None:
    subject = view(node(status=SERVING_BEAT), seen(State.RUNNING, Readiness.YES))
    decision = decide(subject)
    assert isinstance(decision, Watch)
    assert decision.status.heartbeat == subject.node.status.heartbeat
