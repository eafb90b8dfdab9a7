"""Requests about one thing at the same moment: all are carried out, one after the other, and no rule is slipped through."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE

Eventually = Callable[..., Any]
_ENDED = {"STOPPED", "FAILED", "TERMINATED"}


def _all(*calls: Callable[[], Any]) -> list[Any]:
    """Every call, begun together; their results in order."""
    with ThreadPoolExecutor(len(calls)) as crowd:
        return [future.result() for future in [crowd.submit(call) for call in calls]]


def _two_ended(world: Any, eventually: Eventually, organization: str) -> list[str]:
    """Two deployments of one model in one organization, both over."""
    ended = []
    for _ in range(2):
        ended.append(world.deployment(org_id=organization, model_name="m"))
        world.reach(ended[-1], "STOPPED", eventually)
    return ended


def _living(world: Any, organization: str) -> int:
    listed = world.get(f"/deployments?org_id={organization}").json()["deployments"]
    return sum(item["state"] not in _ENDED for item in listed)


def test_thirty_changes_of_one_pool_are_all_taken(world: Any) -> None:
    pool = world.pool()
    replies = _all(*[lambda n=n: world.patch(f"/updatepool/{pool}", {"metadata": {"n": n}}) for n in range(30)])
    assert [reply.status_code for reply in replies] == [200] * 30
    assert sorted(reply.json()["metadata"]["n"] for reply in replies) == list(range(30))


def test_thirty_changes_of_one_deployment_lose_nothing(world: Any) -> None:
    uid = world.deployment()
    change = [{"configuration": {f"note_{n}": n, "env": {"N": str(n)}}} for n in range(30)]
    replies = _all(*[lambda body=body: world.patch(f"/update/{uid}", body) for body in change])
    assert [reply.status_code for reply in replies] == [200] * 30
    shown = world.get(f"/status/{uid}").json()["configuration"]
    assert {name for name in shown if name.startswith("note_")} == {f"note_{n}" for n in range(30)}


def test_a_last_beat_is_not_lost_among_others(world: Any, eventually: Eventually) -> None:
    """Whatever the order in which they come: once TERMINATED is said, nothing else counts."""
    uid = world.deployment()
    jobs = {f"job-{uuid4()}": "" for _ in range(6)}
    for job in jobs:
        jobs[job] = world.node(uid, job)
    eventually(lambda: all(job in world.get("/inventory/nodes/nosana").text for job in jobs))

    def beat(job: str, state: str, health: int) -> Any:
        body = {"provider": "nosana", "provider_instance_id": job, "state": state, "health_score": health}
        return world.post("/inventory/heartbeat", body)

    said = (("BUSY", 7), ("TERMINATED", 0), ("READY", 8), ("UNHEALTHY", 9))
    replies = _all(*[lambda a=(job, *word): beat(*a) for job in jobs for word in said])
    assert {reply.status_code for reply in replies} == {200}
    stored = [world.resource(NODE, node)["status"]["heartbeat"]["state"] for node in jobs.values()]
    assert stored == ["Terminated"] * len(jobs)


def test_of_two_starts_at_once_one_is_refused(world: Any, eventually: Eventually) -> None:
    for turn in range(3):
        ended = _two_ended(world, eventually, f"twins-{turn}")
        replies = _all(*[lambda uid=uid: world.post("/start", {"deployment_id": uid}) for uid in ended])
        assert sorted(reply.status_code for reply in replies) == [200, 409]
        assert _living(world, f"twins-{turn}") == 1


def test_of_a_start_and_a_deploy_at_once_one_is_refused(world: Any, eventually: Eventually) -> None:
    pool = world.pool()
    body = {"pool_id": pool, "model_name": "m", "configuration": {"engine": "vllm"}}
    for turn in range(3):
        ended = _two_ended(world, eventually, f"race-{turn}")
        calls = (("/start", {"deployment_id": ended[0]}), ("/deploy", {**body, "org_id": f"race-{turn}"}))
        replies = _all(*[lambda call=call: world.post(*call) for call in calls])
        assert sorted(reply.status_code for reply in replies) == [200, 409]
        assert _living(world, f"race-{turn}") == 1


def test_a_change_brings_no_second_one_of_an_organization_back(world: Any, eventually: Eventually) -> None:
    """A change of what failed tries again: that is a start too."""
    first, second = _two_ended(world, eventually, "revived")
    assert world.post("/start", {"deployment_id": second}).status_code == 200
    refused = world.patch(f"/update/{first}", {"replicas": 2})
    assert refused.status_code == 409 and "'m' is already deployed" in refused.json()["detail"]
    # What tries nothing again is no start.
    assert world.patch(f"/update/{first}", {"configuration": {"note": "x"}}).status_code == 200
    world.reach(second, "FAILED", eventually)
    assert world.patch(f"/update/{first}", {"replicas": 2}).json()["state"] == "PENDING"


def test_one_that_came_by_kubectl_counts_too(world: Any, kubectl: Callable[..., Any], eventually: Eventually) -> None:
    spec = {"poolRef": {"name": "any"}, "owner": {"organization": "mixed"}, "model": {"name": "m"}}
    metadata = {"name": "by-hand", "namespace": world.namespace}
    body = {"apiVersion": API_VERSION, "kind": DEPLOYMENT.name, "metadata": metadata, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(body | {"spec": {**spec, "workload": {"engine": "vllm"}}}))
    eventually(lambda: world.get("/deployments?org_id=mixed").json()["total"] == 1)
    asked = {"pool_id": world.pool(), "model_name": "m", "org_id": "mixed", "configuration": {"engine": "vllm"}}
    reply = world.post("/deploy", asked)
    assert reply.status_code == 409 and "'m' is already deployed" in reply.json()["detail"]


def test_what_is_being_deleted_cannot_be_started(world: Any, eventually: Eventually) -> None:
    uid = world.deployment()
    world.reach(uid, "FAILED", eventually)
    meta = world.resource(DEPLOYMENT, uid)["metadata"]
    path = DEPLOYMENT.path(meta["namespace"], meta["name"])
    world.call("merge_patch", path, {"metadata": {"finalizers": ["calayer.dev/cleanup"]}})
    assert world.delete(f"/delete/{uid}").status_code == 200
    reply = world.post("/start", {"deployment_id": uid})
    assert reply.status_code == 409 and "being deleted" in reply.json()["detail"]
    world.call("merge_patch", path, {"metadata": {"finalizers": None}})
    eventually(lambda: world.get(f"/status/{uid}").status_code == 404)


def test_of_one_second_the_last_made_comes_first(world: Any) -> None:
    pool = world.pool()
    made = [world.deployment(pool, model_name="same") for _ in range(8)]
    listed = [item["deployment_id"] for item in world.get(f"/listDeployments/{pool}").json()["deployments"]]
    assert listed == made[::-1]
