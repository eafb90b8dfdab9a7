"""How Pods wait and end, as states with a message: by the real scheduler and controllers where they do it, else by a kubelet's pen."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from cal_adapters.contract import Readiness, State, Stop
from cal_adapters.errors import InstanceNotFound
from cal_adapters.k8s.states import observation
from cal_adapters.k8s.translate import instance

Eventually = Callable[..., Any]

POD = {
    "metadata": {"name": "cal-x", "namespace": "ns", "uid": "u"},
    "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
}


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "main", "state": state}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"phase": "Pending", **container(waiting={"reason": reason, "message": message})}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {
        "phase": "Failed" if code else "Succeeded",
        **container(terminated={"exitCode": code, "reason": reason, "message": message}),
    }


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


NOT_FOUND = 'failed to pull and unpack image "x/y:1": failed to resolve reference "x/y:1": x/y:1: not found'
ROWS: list[tuple[str, dict[str, Any], State, str]] = [
    ("new", {}, State.STARTING, "Pending on node n1"),
    ("creating", waiting("ContainerCreating"), State.STARTING, "ContainerCreating"),
    ("unschedulable", {"phase": "Pending", **condition("PodScheduled", "False", "Unschedulable", "0/3 nodes")},
     State.STARTING, "Unschedulable: 0/3 nodes"),
    ("pull refused at once", waiting("ErrImagePull", NOT_FOUND), State.FAILED, "not found"),
    ("pull broke off", waiting("ErrImagePull", "dial tcp: i/o timeout"), State.STARTING, "i/o timeout"),
    ("backoff, no reason told", waiting("ImagePullBackOff", 'Back-off pulling image "x"'), State.FAILED, "Back-off"),
    ("backoff after 404", waiting("ImagePullBackOff", f"Back-off: ErrImagePull: {NOT_FOUND}"), State.FAILED, "not found"),
    ("backoff after 503", waiting("ImagePullBackOff", "unexpected status 503"), State.STARTING, "503"),
    ("image name", waiting("InvalidImageName", "couldn't parse"), State.FAILED, "InvalidImageName"),
    ("config", waiting("CreateContainerConfigError", 'secret "s" not found'), State.FAILED, 'secret "s"'),
    ("crash loop", {"phase": "Running", **container(waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m"})},
     State.FAILED, "CrashLoopBackOff: back-off 5m"),
    ("a word nobody knows", waiting("Brewing", "tea"), State.STARTING, "Brewing: tea"),
    ("running", {"phase": "Running", **condition("Ready", "True")}, State.RUNNING, ""),
    ("not ready", {"phase": "Running", **condition("Ready", "False", "ContainersNotReady", "containers: [main]")},
     State.RUNNING, "Not ready: containers: [main]"),
    ("exit 0", ended(0, "Completed"), State.SUCCEEDED, "exit code 0"),
    ("exit 3", ended(3, "Error", "boom"), State.FAILED, "Error: exit code 3: boom"),
    ("no such command", ended(128, "StartError", 'exec: "nope": not found'), State.FAILED, "StartError"),
    ("out of memory", ended(137, "OOMKilled"), State.FAILED, "OOMKilled: exit code 137"),
    ("evicted by the node", {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
     State.LOST, "Evicted: The node was low"),
    ("evicted for its own disk", {"phase": "Failed", "reason": "Evicted", "message":
     "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."}, State.FAILED, "exceeds"),
    ("preempted", {"phase": "Running", **condition("DisruptionTarget", "True", "PreemptionByScheduler", "for x")},
     State.LOST, "PreemptionByScheduler: for x"),
    ("tainted away", {"phase": "Failed", **condition("DisruptionTarget", "True", "DeletionByTaintManager")},
     State.LOST, "DeletionByTaintManager"),
    ("no device after all", {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no GPUs"},
     State.LOST, "no GPUs"),
    ("no room after all", {"phase": "Failed", "reason": "OutOfnvidia.com/gpu"}, State.LOST, "OutOfnvidia.com/gpu"),
    ("node lost", {"phase": "Running", "reason": "NodeLost", "message": "node n1"}, State.LOST, "NodeLost: node n1"),
    ("failed, nobody says why", {"phase": "Failed"}, State.FAILED, "Failed"),
    ("a phase nobody knows", {"phase": "Dreaming"}, State.UNKNOWN, "'Dreaming'"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "state", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_state_and_message(status: dict[str, Any], state: State, words: str) -> None:
    seen = observation(POD | {"status": status})
    assert (seen.state, words in seen.message) == (state, True), seen


def test_a_pod_that_somebody_deletes_is_terminated_and_not_failed() -> None:
    metadata = POD["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}  # type: ignore[operator]
    for status in ({"phase": "Running", **condition("Ready", "True")}, ended(143)):
        assert observation(POD | {"metadata": metadata, "status": status}).state is State.TERMINATED
    assert observation(POD | {"metadata": metadata, "status": ended(0)}).state is State.SUCCEEDED


def test_exit_code_and_readiness() -> None:
    assert observation(POD | {"status": ended(3)}).exit_code == 3
    assert observation(POD | {"status": ended(0)}).exit_code == 0
    ready = {"phase": "Running", **condition("Ready", "True")}
    assert observation(POD | {"status": ready}).readiness is Readiness.YES
    assert observation(POD | {"status": ready | {"phase": "Failed"}}).readiness is Readiness.NO
    assert observation(POD | {"status": {}}).exit_code is None


@pytest.mark.parametrize("text", ["javascript:alert(1)", "http://a b", "", "http://" + "a" * 400])
def test_an_endpoint_that_somebody_else_wrote_is_none(text: str) -> None:
    metadata = POD["metadata"] | {"annotations": {"calayer.dev/endpoint": text}}  # type: ignore[operator]
    assert observation(POD | {"metadata": metadata, "status": {}}).endpoint is None


@pytest.mark.parametrize(("text", "price"), [("1.25", Decimal("1.25")), ("NaN", None), ("-1", None), ("a lot", None)])
def test_a_price_that_somebody_else_wrote_is_none(text: str, price: Decimal | None) -> None:
    metadata = POD["metadata"] | {"annotations": {"calayer.dev/price-per-hour": text}}  # type: ignore[operator]
    assert instance("c", POD | {"metadata": metadata}).price_per_hour == price


# --- as the cluster does it ---------------------------------------------------------------------------------------------


@pytest.fixture
async def launched(site: Any, adapter: Any, request_for: Any, eventually_async: Eventually) -> Callable[..., Any]:
    """await launched(): a running instance on the site's Node (made now, with one GPU); returns the Instance."""

    async def launch(**changes: Any) -> Any:
        site.node(gpus=1)

        async def offered() -> Any:
            return [o for o in await adapter.offers() if o.region == site.region and o.gpu_count == 1]

        bought = await adapter.launch(request_for((await eventually_async(offered))[0], **changes))

        async def running() -> bool:
            return (await adapter.observe(bought.handle)).state is State.RUNNING

        await eventually_async(running)
        return bought

    return launch


@pytest.mark.anyio
async def test_an_image_that_cannot_be_pulled(site: Any, adapter: Any, launched: Any) -> None:
    bought = await launched()
    site.write_status(bought.mark, waiting("ImagePullBackOff", f'Back-off pulling image "x/y:1": {NOT_FOUND}'))
    seen = await adapter.observe(bought.handle)
    assert (seen.state, seen.readiness) == (State.FAILED, Readiness.NO)
    assert "x/y:1: not found" in seen.message


@pytest.mark.anyio
async def test_out_of_memory(site: Any, adapter: Any, launched: Any) -> None:
    bought = await launched()
    site.write_status(bought.mark, ended(137, "OOMKilled"))
    seen = await adapter.observe(bought.handle)
    assert (seen.state, seen.exit_code, "OOMKilled" in seen.message) == (State.FAILED, 137, True)
    assert (await adapter.find(bought.mark)) == [bought], "it is still there to be removed"


@pytest.mark.anyio
async def test_an_evicted_pod_is_lost(site: Any, adapter: Any, launched: Any, eventually_async: Eventually) -> None:
    """By the eviction API, as `kubectl drain` does it. A finalizer holds the Pod, so that its last words can be read."""
    bought = await launched()
    name = str(bought.mark)
    hold = json.dumps({"metadata": {"finalizers": ["test.invalid/hold"]}})
    site.kubectl("patch", "pod", name, "-n", site.namespace, "--type=merge", "-p", hold)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": site.namespace}}
    path = f"/api/v1/namespaces/{site.namespace}/pods/{name}/eviction"
    site.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    seen = await adapter.observe(bought.handle)
    assert (seen.state, "EvictionByEvictionAPI" in seen.message) == (State.LOST, True), seen
    assert await adapter.stop(bought.handle) is Stop.STOPPING, "a Pod that is held isn't gone"
    site.kubectl("patch", "pod", name, "-n", site.namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    async def gone() -> bool:
        return await adapter.stop(bought.handle) is Stop.GONE

    await eventually_async(gone)


@pytest.mark.anyio
async def test_a_preempted_pod_is_lost(site: Any, adapter: Any, launched: Any, eventually_async: Eventually) -> None:
    """By the real scheduler, for a Pod of higher priority that wants the only GPU."""
    bought = await launched()
    hold = json.dumps({"metadata": {"finalizers": ["test.invalid/hold"]}})
    site.kubectl("patch", "pod", str(bought.mark), "-n", site.namespace, "--type=merge", "-p", hold)
    site.kubectl("create", "priorityclass", site.namespace, "--value=1000")
    site.kubectl("create", "-f", "-", stdin=json.dumps(_rival(site)))

    async def lost() -> Any:
        seen = await adapter.observe(bought.handle)
        return seen if seen.state is State.LOST else None

    assert "PreemptionByScheduler" in (await eventually_async(lost)).message
    release = '{"metadata":{"finalizers":null}}'
    site.kubectl("patch", "pod", str(bought.mark), "-n", site.namespace, "--type=merge", "-p", release)


def _rival(site: Any) -> dict[str, Any]:
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rival", "namespace": site.namespace},
        "spec": {
            "priorityClassName": site.namespace,
            "nodeSelector": {"topology.kubernetes.io/region": site.region},
            "containers": [{"name": "main", "image": "none", "resources": limits}],
        },
    }


@pytest.mark.anyio
async def test_a_pod_on_a_node_that_is_shut_down_is_lost_or_gone(
    site: Any, adapter: Any, launched: Any, eventually_async: Eventually
) -> None:
    """By the real taint controller, with the taint that an admin puts on a dead machine."""
    bought = await launched()
    site.kubectl("taint", "node", site.nodes[0], "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")

    async def lost() -> bool:
        try:
            return (await adapter.observe(bought.handle)).state is State.LOST
        except InstanceNotFound:
            return True

    await eventually_async(lost)


@pytest.mark.anyio
async def test_a_pod_whose_node_is_deleted_is_collected(
    site: Any, adapter: Any, launched: Any, eventually_async: Eventually
) -> None:
    """By the real Pod collector, which takes its time."""
    bought = await launched()
    site.kubectl("delete", "node", site.nodes.pop())

    async def gone() -> bool:
        try:
            return (await adapter.observe(bought.handle)).state is State.LOST
        except InstanceNotFound:
            return True

    await eventually_async(gone, timeout=150)
    assert await adapter.stop(bought.handle) is Stop.GONE
