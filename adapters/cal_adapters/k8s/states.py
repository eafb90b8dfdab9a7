"""What a Pod does, in the contract's closed states: pure, a list of rules of which the first that speaks wins.

Pods here never restart (`restartPolicy: Never`), so that an end is seen as what it was. The reasons are those that the scheduler,
the kubelet and the controllers of Kubernetes write; a word that isn't known here changes nothing but the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from cal_adapters.contract import Observation, Readiness, State
from cal_adapters.k8s.translate import ANNOTATION_ENDPOINT, ENDPOINT, GATE, annotation, moment
from cal_crds.cluster import Body

#: A Pod that failed with one of these lost its machine, or never got the place that it was sent to.
_LOST: Final = frozenset(
    {
        "Evicted",
        "NodeAffinity",
        "NodeLost",
        "NodeShutdown",
        "Preempted",
        "Preempting",
        "Shutdown",
        "Terminated",
        "UnexpectedAdmissionError",
    }
)
#: The kubelet's reasons of a container that will not start by itself: it goes on trying, to no end.
_HOPELESS: Final = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "ErrImageNeverPull",
        "InvalidImageName",
        "SignatureValidationFailed",
    }
)
#: A pull that was refused will be refused again; one that broke may do better.
_REFUSED_PULL: Final = re.compile(
    r"not found|manifest unknown|does not exist|unauthorized|authentication required|denied|forbidden|no match for platform"
    r"|invalid reference|\b40[134]\b",
    re.IGNORECASE,
)
_BROKEN_PULL: Final = re.compile(
    r"time-?out|timed out|deadline exceeded|connection (refused|reset)|i/o|EOF|temporary failure|no such host|too ?many ?requests"
    r"|\b(429|5\d\d)\b",
    re.IGNORECASE,
)
_OWN_LIMIT: Final = re.compile(r"exceed(s|ed) .*limit", re.IGNORECASE)

Verdict = tuple[State, str]
Rule = Callable[[Body], Verdict | None]


def observation(pod: Body) -> Observation:
    """All that the Pod tells."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    state, message = verdict(pod)
    return Observation(
        state=state,
        message=message,
        id=f"{metadata['namespace']}/{metadata['name']}",
        endpoint=annotation(pod, ANNOTATION_ENDPOINT, ENDPOINT),
        readiness=_readiness(state, status),
        exit_code=_exit_code(status),
        started=moment(status.get("startTime")),
        node_address=pod["spec"].get("nodeName"),
    )


def verdict(pod: Body) -> Verdict:
    """State and message."""
    return next(found for rule in _RULES if (found := rule(pod)) is not None)


def _succeeded(pod: Body) -> Verdict | None:
    return (State.SUCCEEDED, "Succeeded: exit code 0") if _phase(pod) == "Succeeded" else None


def _disrupted(pod: Body) -> Verdict | None:
    """Preemption, eviction, a taint, a node that is gone or shuts down: written before the Pod is deleted for it."""
    found = _condition(pod, "DisruptionTarget")
    if found.get("status") != "True":
        return None
    return State.LOST, _said(str(found.get("reason") or "DisruptionTarget"), found.get("message"))


def _failed(pod: Body) -> Verdict | None:
    if _phase(pod) != "Failed":
        return None
    status = pod["status"]
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason == "Evicted" and _OWN_LIMIT.search(message):
        return State.FAILED, _said(reason, message)
    if reason in _LOST or reason.startswith("OutOf"):
        return State.LOST, _said(reason, message)
    if pod["metadata"].get("deletionTimestamp") and not _killed_for_memory(status):
        return State.TERMINATED, "The Pod was deleted"
    return State.FAILED, _end_of_container(status) or _said(reason or "Failed", message)


def _deleted(pod: Body) -> Verdict | None:
    since = pod["metadata"].get("deletionTimestamp")
    return (State.TERMINATED, f"The Pod is being deleted (since {since})") if since else None


def _node_lost(pod: Body) -> Verdict | None:
    reason = (pod.get("status") or {}).get("reason")
    return (State.LOST, _said(reason, pod["status"].get("message"))) if reason == "NodeLost" else None


def _held(pod: Body) -> Verdict | None:
    """No node yet: what the scheduler says."""
    gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
    if GATE in gates:
        return State.STARTING, "The launch isn't complete: the Pod is held back from the scheduler"
    if gates:
        return State.STARTING, f"Held back from the scheduler by {', '.join(gates)}"
    found = _condition(pod, "PodScheduled")
    if found.get("status") == "False":
        return State.STARTING, _said(str(found.get("reason") or "Unscheduled"), found.get("message"))
    return None


def _waiting(pod: Body) -> Verdict | None:
    """A container that doesn't start: what the kubelet says."""
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason:
            return _hope(reason, str(waiting.get("message") or "")), _said(reason, waiting.get("message"))
    return None


def _hope(reason: str, message: str) -> State:
    if reason in _HOPELESS:
        return State.FAILED
    if reason == "ErrImagePull":
        return State.FAILED if _REFUSED_PULL.search(message) else State.STARTING
    if reason == "ImagePullBackOff":
        refused = _REFUSED_PULL.search(message) or not _BROKEN_PULL.search(message)
        return State.FAILED if refused else State.STARTING
    return State.STARTING


def _pending(pod: Body) -> Verdict | None:
    if _phase(pod) not in ("Pending", ""):
        return None
    node = pod["spec"].get("nodeName")
    return State.STARTING, f"Pending on node {node}" if node else "Pending: waits for the scheduler"


def _running(pod: Body) -> Verdict | None:
    if _phase(pod) != "Running":
        return None
    ready = _condition(pod, "Ready")
    if ready.get("status") == "True":
        return State.RUNNING, ""
    return State.RUNNING, _said("Not ready", ready.get("message") or ready.get("reason"))


def _unknown(pod: Body) -> Verdict:
    return State.UNKNOWN, f"The Pod's phase is {_phase(pod)!r}"


_RULES: Final[tuple[Rule, ...]] = (
    _succeeded,
    _disrupted,
    _failed,
    _deleted,
    _node_lost,
    _held,
    _waiting,
    _pending,
    _running,
    _unknown,
)


def _phase(pod: Body) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _condition(pod: Body, kind: str) -> Body:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found.get("type") == kind), {})


def _containers(pod: Body) -> Iterator[Body]:
    """Containers' states; those that come first in a Pod's life first."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _terminated(status: Body) -> list[Body]:
    found = [(one.get("state") or {}).get("terminated") for one in status.get("containerStatuses") or ()]
    return [end for end in found if end]


def _killed_for_memory(status: Body) -> bool:
    return any(end.get("reason") == "OOMKilled" for end in _terminated(status))


def _end_of_container(status: Body) -> str:
    """How the first container that didn't end well ended."""
    for end in _terminated(status):
        if end.get("exitCode"):
            head = f"{end.get('reason') or 'Error'}: exit code {end['exitCode']}"
            return _said(head, end.get("message"))
    return ""


def _exit_code(status: Body) -> int | None:
    codes = [end["exitCode"] for end in _terminated(status) if isinstance(end.get("exitCode"), int)]
    return next((code for code in codes if code), codes[0] if codes else None)


def _readiness(state: State, status: Body) -> Readiness:
    conditions = status.get("conditions") or ()
    ready = any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)
    return Readiness.YES if ready and state is State.RUNNING else Readiness.NO


def _said(reason: str, message: Any) -> str:
    """`reason: message`, of a length for people."""
    text = str(message or "").strip()
    return f"{reason}: {text}"[:2000] if text and text != reason else reason
