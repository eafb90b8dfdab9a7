"""What follows for a deployment, by the table of the design: pure, with a clock that stands still."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rig.build import INSTANCE, NOW, ago, answering, deployment, node, pool

from cal_crds.conditions import Reason
from cal_crds.deployment import DeploymentState, Waiting
from cal_crds.node import ComputeNode
from cal_operator.deployments.decide import DeploymentView, Plan, decide, template_hash
from cal_operator.deployments.report import report


def view(*nodes: ComputeNode, status: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> DeploymentView:
    wanted = deployment(generation=generation, status=status, **spec)
    return DeploymentView(
        deployment=wanted, pool=pool(), pool_gone=False, pool_problem=None, nodes=nodes, now=NOW, backoff_base=10.0
    )


PRESENT = template_hash(deployment(), pool())
OLD: dict[str, Any] = {"templateHash": "old"}


def serving(uid: str = "node-1", *, price: str = "1", made: float = 3600, slot: int = 0, **spec: Any) -> ComputeNode:
    status = {
        "instance": {**INSTANCE, "pricePerHour": price},
        "answeredTime": ago(1500).isoformat(),
        "endpoint": f"http://{uid}",
        "conditions": answering(ago(1500)),
    }
    return node(uid, made=made, spec={"templateHash": PRESENT, "slot": slot, **spec}, status=status)


def starting(uid: str = "node-1", *, slot: int = 0, **spec: Any) -> ComputeNode:
    return node(uid, spec={"templateHash": PRESENT, "slot": slot, **spec}, status={"instance": INSTANCE})


def ended(
    cause: str,
    uid: str = "node-1",
    *,
    start: float = 60,
    end: float = 5,
    answered: bool = False,
    slot: int = 0,
    **spec: Any,
) -> ComputeNode:
    """A node whose instance was started and ended so many seconds ago."""
    status = {
        "instance": {**INSTANCE, "startTime": ago(start).isoformat()},
        "ended": {"cause": cause, "time": ago(end).isoformat(), "message": "its last words"},
        "goneTime": ago(end).isoformat(),
        **({"answeredTime": ago(start).isoformat()} if answered else {}),
    }
    return node(uid, spec={"templateHash": PRESENT, "slot": slot, **spec}, status=status)


OUTCOMES: dict[str, tuple[DeploymentView, tuple[str, str] | None]] = {
    "completed": (view(ended("Completed")), ("STOPPED", "Completed")),
    "completed at any age": (view(ended("Completed", start=90000)), ("STOPPED", "Completed")),
    "one of two trainings completed: the other goes on": (
        view(ended("Completed"), starting("n2", slot=1), replicas=2, workload={"type": "Training"}),
        None,
    ),
    "lost is replaced": (view(ended("Lost", answered=True)), None),
    "missed beats are replaced": (view(ended("BeatsMissed", answered=True)), None),
    "a crash of the only one": (view(ended("Crashed", answered=True)), ("FAILED", "Crashed")),
    "a crash long after its start, too": (view(ended("Crashed", start=90000, answered=True)), ("FAILED", "Crashed")),
    "a crash beside one that serves is replaced": (view(ended("Crashed"), serving("n2", slot=1), replicas=2), None),
    "unhealthy is a crash": (view(ended("Unhealthy", answered=True)), ("FAILED", "Crashed")),
    "terminated early by an ephemeral provider is a failure": (
        view(ended("Terminated", start=300, end=5)),
        ("FAILED", "Crashed"),
    ),
    "terminated later is a stop": (view(ended("Terminated", start=700, end=5)), ("STOPPED", "EndedByProvider")),
    "terminated later beside one that serves is replaced": (
        view(ended("Terminated", start=700, end=5), serving("n2", slot=1), replicas=2),
        None,
    ),
    "terminated early where instances don't end by themselves is a stop": (
        replace(view(ended("Terminated", start=300)), ephemeral=False),
        ("STOPPED", "EndedByProvider"),
    ),
    "the last attempt that never served": (view(ended("Lost", attempt=3)), ("FAILED", "BackoffLimitExceeded")),
    "the last but one": (view(ended("Lost", attempt=2)), None),
    "an attempt that served starts the count anew": (view(ended("Lost", attempt=3, answered=True)), None),
    "no offer is no attempt": (view(ended("NeverLaunched", attempt=3)), None),
    "no run time left": (
        view(serving(), status={"firstStartTime": ago(120).isoformat()}, maxRuntimeSeconds=60),
        ("STOPPED", "MaxRuntimeExceeded"),
    ),
    "run time left": (view(serving(), status={"firstStartTime": ago(30).isoformat()}, maxRuntimeSeconds=60), None),
    "waited too long for an offer": (
        view(status={"waiting": {"reason": "NoOffer", "since": ago(61).isoformat()}}, pendingTimeoutSeconds=60),
        ("FAILED", "PendingTimeout"),
    ),
    "a node that is being obtained isn't pending": (
        view(
            starting(),
            status={"waiting": {"reason": "NoOffer", "since": ago(61).isoformat()}},
            pendingTimeoutSeconds=60,
        ),
        None,
    ),
}


@pytest.mark.parametrize(("subject", "expected"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcome(subject: DeploymentView, expected: tuple[str, str] | None) -> None:
    outcome = decide(subject).outcome
    assert ((outcome.state.value, outcome.reason) if outcome else None) == expected


FAILED: dict[str, Any] = {
    "outcome": {"state": "FAILED", "reason": "Crashed", "time": ago(2).isoformat(), "generation": 1}
}


def test_an_end_stands_until_the_spec_changes() -> None:
    assert decide(view(ended("Crashed"), status=FAILED)).create == ()
    again = decide(view(ended("Crashed"), status=FAILED, generation=2))
    assert again.outcome is None
    assert [want.attempt for want in again.create] == [0], "a new run begins, with all its attempts"
    assert [found.metadata.uid for found in again.delete] == ["node-1"], "the record of the old run goes"


def test_an_end_of_the_new_run_is_not_hidden_by_the_old_outcome() -> None:
    fresh = ended("Crashed", "fresh", start=1, end=0)
    fresh.metadata.creation_timestamp = ago(1)
    found = decide(view(fresh, status=FAILED, generation=2))
    assert found.outcome is not None and found.outcome.state is DeploymentState.FAILED


def test_a_clock_ahead_of_the_api_server_s_hides_no_end_of_the_new_run() -> None:
    """Nodes are dated by the API server, ends by us. Hidden, a crash would be no attempt and have no back-off: bought again at once, for as long
    as the clock is ahead."""
    fresh = ended("Crashed", "fresh", start=1, end=0)  # `node` dates it an hour ago
    found = decide(view(fresh, status=FAILED, generation=2))
    assert found.outcome is not None and found.outcome.state is DeploymentState.FAILED


def test_a_terminal_state_ends_what_still_runs() -> None:
    found = decide(view(ended("Crashed"), starting("n2", slot=1), replicas=2))
    assert found.outcome is not None and [gone.metadata.uid for gone in found.delete] == ["n2"]


def names(found: Plan) -> list[tuple[int, str, int]]:
    return [(want.slot, want.predecessor, want.attempt) for want in found.create]


FILLS: dict[str, tuple[DeploymentView, list[tuple[int, str, int]], list[str]]] = {
    "nothing yet": (view(), [(0, "", 0)], []),
    "three at once": (view(replicas=3), [(0, "", 0), (1, "", 0), (2, "", 0)], []),
    "enough": (view(serving()), [], []),
    "one more": (view(serving(), replicas=2), [(1, "", 0)], []),
    "a node on its way out keeps its slot's name free for nobody": (
        view(node("leaving", deleting=True, spec={"templateHash": PRESENT})),
        [(0, "leaving", 0)],
        [],
    ),
    "lost: replaced, as the first attempt": (view(ended("Lost", answered=True)), [(0, "node-1", 1)], []),
    "lost before it served: counted": (view(ended("Lost", attempt=1, end=60)), [(0, "node-1", 2)], []),
    "back-off before the second attempt": (view(ended("Lost", attempt=1, end=5)), [], []),
    "replaced already: the record goes": (
        view(ended("Lost"), starting("n2", predecessor="node-1")),
        [],
        ["node-1"],
    ),
    "no offer: tried again a moment later, same attempt": (
        view(ended("NeverLaunched", attempt=1)),
        [(0, "node-1", 1)],
        [],
    ),
    "scaled to zero": (view(serving(), replicas=0), [], ["node-1"]),
    "the not answering one goes first": (
        view(serving(), starting("slow", slot=1), replicas=1),
        [],
        ["slow"],
    ),
    "then the dearest": (view(serving(price="1"), serving("dear", price="2", slot=1), replicas=1), [], ["dear"]),
    "then the youngest": (view(serving(made=100), serving("old", made=200, slot=1), replicas=1), [], ["node-1"]),
    "a new workload: one above the wanted number": (view(serving(**OLD)), [(0, "node-1", 0)], []),
    "the old one serves until the new one answers": (view(serving(**OLD), starting("new")), [], []),
    "then it goes": (view(serving(**OLD), serving("new")), [], ["node-1"]),
    "no surge: the old one goes first": (
        view(serving(**OLD), rollout={"maxSurge": 0, "maxUnavailable": 1}),
        [(0, "node-1", 0)],
        ["node-1"],
    ),
    "an old one that doesn't answer goes at once": (view(starting(**OLD)), [(0, "node-1", 0)], ["node-1"]),
    "three old ones, one at a time": (
        view(serving("a", **OLD), serving("b", slot=1, **OLD), serving("c", slot=2, **OLD), replicas=3),
        [(0, "a", 0)],
        [],
    ),
}


@pytest.mark.parametrize(("subject", "create", "delete"), FILLS.values(), ids=FILLS.keys())
def test_fill(subject: DeploymentView, create: list[tuple[int, str, int]], delete: list[str]) -> None:
    found = decide(subject)
    assert found.outcome is None
    assert names(found) == create
    assert [gone.metadata.uid for gone in found.delete] == delete


IDLE = {
    "terminated": (view(serving(), desiredState="Terminated"), Reason.TERMINATED, "TERMINATING"),
    "pool gone": (replace(view(serving()), pool=None, pool_gone=True), Reason.POOL_GONE, "TERMINATING"),
    "pool stopped": (replace(view(serving()), pool=pool(desiredState="Stopped")), Reason.POOL_STOPPED, "TERMINATING"),
    "budget spent": (replace(view(serving()), budget_spent=True), Reason.BUDGET_SPENT, "TERMINATING"),
    "terminated after a failure": (
        view(ended("Crashed"), status=FAILED, desiredState="Terminated"),
        Reason.TERMINATED,
        "TERMINATED",
    ),
}


@pytest.mark.parametrize(("subject", "reason", "state"), IDLE.values(), ids=IDLE.keys())
def test_idle(subject: DeploymentView, reason: Reason, state: str) -> None:
    found = decide(subject)
    assert found.idle is not None and found.idle[0] is reason
    assert len(found.delete) == len(subject.nodes) and not found.create
    status = report(subject, found, None)
    assert status.state == state
    assert status.outcome is None or status.state is not DeploymentState.FAILED, "a user's stop never shows as FAILED"


def test_a_pool_that_is_not_known_yet_touches_nothing() -> None:
    found = decide(replace(view(serving(**OLD)), pool=None))
    assert not found.create and not found.delete


STATES: dict[str, tuple[DeploymentView, Waiting | None, str]] = {
    "accepted": (view(), None, "PENDING"),
    "no offer": (view(), Waiting(reason="NoOffer", message="none"), "PENDING"),
    "obtaining": (view(node(spec={"templateHash": PRESENT})), None, "PROVISIONING"),
    "not answering": (view(starting()), None, "DEPLOYING"),
    "answering": (view(serving()), None, "RUNNING"),
    "one of two": (view(serving(), starting("n2", slot=1), replicas=2), None, "DEGRADED"),
    "one of two, no offer for the other": (view(serving(), replicas=2), Waiting(reason="NoOffer"), "DEGRADED"),
    "rolling out while the old one serves": (view(serving(**OLD), starting("new")), None, "RUNNING"),
    "failed": (view(ended("Crashed")), None, "FAILED"),
    "nothing wanted": (view(replicas=0), None, "STOPPED"),
}


@pytest.mark.parametrize(("subject", "waiting", "state"), STATES.values(), ids=STATES.keys())
def test_state(subject: DeploymentView, waiting: Waiting | None, state: str) -> None:
    status = report(subject, decide(subject), waiting)
    assert status.state == state
    again = replace(subject, deployment=subject.deployment.model_copy(update={"status": status}))
    assert report(again, decide(again), waiting) == status, "a second look writes nothing"
