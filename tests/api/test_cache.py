"""The watch cache against the real API server: what comes by kubectl, what goes, and exact answers for what it has not seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from cal_api.lookup import Lookup
from cal_api.store import ALL, Store
from cal_api.watch import Watch
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, POOL

Eventually = Callable[..., Any]
_NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def _pool(name: str, owner: str = "kim") -> dict[str, Any]:
    spec = {"owner": {"id": owner}, "providerRef": {"name": "nosana"}}
    return {"apiVersion": API_VERSION, "kind": POOL.name, "metadata": {"name": name}, "spec": spec}


def _store() -> Store:
    return Store(lambda _: None)


def test_what_kubectl_does_is_shown(world: Any, kubectl: Any, namespace: str, eventually: Eventually) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pool("by-hand", f"of {namespace}")))
    shown = eventually(lambda: world.get(f"/listPools/of%20{namespace}").json()["pools"])[0]
    assert (shown["pool_name"], shown["resource_name"], shown["namespace"]) == ("by-hand", "by-hand", namespace)
    assert shown["scheduling_policy_json"] == '{"strategy":"best_fit"}' and shown["max_cost_per_hour"] is None
    kubectl("delete", "cpool", "by-hand", "-n", namespace)
    eventually(lambda: world.get(f"/pool/{shown['pool_id']}").status_code == 404)
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pool("by-hand", f"of {namespace}")))
    again = eventually(lambda: world.get(f"/listPools/of%20{namespace}").json()["pools"])
    assert len(again) == 1 and again[0]["pool_id"] != shown["pool_id"]


def test_an_object_is_found_before_the_watch_has_seen_it(world: Any, kubectl: Any, namespace: str) -> None:
    for number in range(5):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pool(f"fresh-{number}")))
        uid = kubectl("get", "cpool", f"fresh-{number}", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
        assert world.get(f"/pool/{uid}").status_code == 200


def test_a_deployment_that_came_before_its_pool_finds_it(
    world: Any, kubectl: Any, namespace: str, eventually: Eventually
) -> None:
    spec = {"poolRef": {"name": "late"}, "model": {"name": "m"}, "workload": {"engine": "vllm"}}
    body = {"apiVersion": API_VERSION, "kind": "ModelDeployment", "metadata": {"name": "early"}, "spec": spec}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    uid = kubectl("get", "mdep", "early", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    assert world.get(f"/status/{uid}").json()["pool_id"] == ""
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pool("late")))
    pool = kubectl("get", "cpool", "late", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    eventually(lambda: world.get(f"/status/{uid}").json()["pool_id"] == pool)
    assert world.get(f"/status/{uid}").json()["owner_id"] == "kim"
    assert [d["deployment_id"] for d in world.get(f"/listDeployments/{pool}").json()["deployments"]] == [uid]


@pytest.mark.anyio
async def test_many_misses_share_few_lists(cluster: Cluster, namespace: str) -> None:
    store = _store()
    lookup = Lookup(cluster, store, store.pools, per_second=2)
    made = await cluster.create(POOL.path(namespace), _pool("p"))
    uid = made["metadata"]["uid"]
    found = await asyncio.gather(*(lookup.find(uid if n % 2 else str(uuid4())) for n in range(100)))
    assert lookup.lists == 1
    assert [entry is not None for entry in found] == [n % 2 == 1 for n in range(100)]


@pytest.mark.anyio
async def test_who_comes_while_a_list_runs_waits_for_the_next(
    cluster: Cluster, namespace: str, eventually_async: Any
) -> None:
    store = _store()
    lookup = Lookup(cluster, store, store.pools, per_second=100)
    first = asyncio.create_task(lookup.find(str(uuid4())))
    await eventually_async(lambda: asyncio.sleep(0, lookup.lists == 1), interval=0)
    # The list is under way: an object that is made only now need not stand in it.
    made = await cluster.create(POOL.path(namespace), _pool("late"))
    assert await lookup.find(made["metadata"]["uid"]) is not None
    assert await first is None and lookup.lists == 2


@pytest.mark.anyio
async def test_a_client_that_hangs_up_takes_nobodys_answer(cluster: Cluster, namespace: str) -> None:
    store = _store()
    lookup = Lookup(cluster, store, store.pools, per_second=2)
    made = await cluster.create(POOL.path(namespace), _pool("q"))
    gone = asyncio.create_task(lookup.find(str(uuid4())))
    stays = asyncio.create_task(lookup.find(made["metadata"]["uid"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays is not None


@pytest.mark.anyio
async def test_a_watch_that_falls_silent_or_too_old_recovers(
    cluster: Cluster, namespace: str, eventually_async: Any
) -> None:
    store = _store()
    watch = Watch(cluster, store, store.pools, silence=0.3)
    running = asyncio.create_task(watch.run())
    try:

        async def seen(name: str) -> bool:
            return store.pools.named(namespace, name) is not None

        await eventually_async(lambda: asyncio.sleep(0, store.pools.synced))
        await cluster.create(POOL.path(namespace), _pool("first"))
        await eventually_async(lambda: seen("first"))
        # Longer than the silence: opened again from where it stood, without a list.
        before = asyncio.get_running_loop().time()
        await eventually_async(lambda: asyncio.sleep(0, asyncio.get_running_loop().time() > before + 1))
        await cluster.create(POOL.path(namespace), _pool("second"))
        await eventually_async(lambda: seen("second"))
        assert watch.lists == 1
        # As after a long cut: the API server no longer has that version. (Version 1 is always too old.)
        watch.rewind("1")
        await cluster.create(POOL.path(namespace), _pool("third"))
        await eventually_async(lambda: seen("third"))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.anyio
async def test_older_news_never_replaces_newer(cluster: Cluster, namespace: str) -> None:
    store = _store()
    old = await cluster.create(POOL.path(namespace), _pool("r"))
    new = await cluster.merge_patch(POOL.path(namespace, "r"), {"spec": {"gpuCount": 5}})
    uid = old["metadata"]["uid"]
    for body in (new, old):
        store.put(store.pools, body)
    entry = store.pools.get(uid)
    assert entry is not None and entry.object.spec.gpu_count == 5
    # A list that is older than our own write doesn't undo it either.
    store.replace(store.pools, [], int(old["metadata"]["resourceVersion"]))
    assert store.pools.get(uid) is entry
    store.remove(store.pools, uid)
    assert store.put(store.pools, new) is None and store.pools.known_gone(uid)
    assert len(store.pools) == 0 and not store.pools.listing(("owner", "kim"))


@pytest.mark.anyio
async def test_pages_follow_every_change(cluster: Cluster, namespace: str) -> None:
    store = _store()
    bodies = [await cluster.create(POOL.path(namespace), _pool(f"p{n}", namespace)) for n in range(3)]
    key = ("owner", namespace)

    def page(offset: int = 0, limit: int | None = None) -> tuple[list[str], int]:
        body = json.loads(store.pools.page("pools", key, _NOW, offset, limit))
        return [pool["resource_name"] for pool in body["pools"]], body["total"]

    assert page() == ([], 0)
    for body in bodies:
        store.put(store.pools, body)
    assert page() == (["p2", "p1", "p0"], 3) and page(1, 1) == (["p1"], 3)
    store.put(store.pools, await cluster.merge_patch(POOL.path(namespace, "p1"), {"spec": {"gpuCount": 9}}))
    assert b'"gpu_count":9' in store.pools.page("pools", key, _NOW, 1, 1)
    store.remove(store.pools, bodies[2]["metadata"]["uid"])
    assert page() == (["p1", "p0"], 2) and page(1, 1) == (["p0"], 2)


def test_one_broken_object_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    store = _store()

    def body(uid: str, spec: Any) -> dict[str, Any]:
        metadata = {
            "uid": uid,
            "name": uid,
            "namespace": "n",
            "resourceVersion": "5",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        return {"metadata": metadata, "spec": spec}

    good = {"owner": {"id": "o"}, "providerRef": {"name": "p"}}
    store.replace(store.pools, [body("bad", {"owner": 1}), body("good", good)], 5)
    assert [entry.uid for entry in store.pools.listing(ALL)] == ["good"] and "bad" in caplog.text
