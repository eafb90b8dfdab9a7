"""The watch cache of nodes, against the real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cal_crds.cluster import Cluster
from cal_relay.index import NodeIndex, NodeRecord

pytestmark = pytest.mark.anyio


@pytest.fixture
async def index(cluster: Cluster) -> AsyncIterator[NodeIndex]:
    made = NodeIndex(cluster)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


async def _now(value: Any) -> Any:
    return value


async def test_a_node_is_known_by_all_its_names_until_it_is_deleted(
    index: NodeIndex, market: Any, eventually_async: Any
) -> None:
    node = await market.node()
    await eventually_async(lambda: _now((found := index.get(node.uid)) and found.handle))
    # Other tests have nodes on the same API server: names of this one alone.
    second, handle = f"second-{node.uid}", f"handle-{node.uid}"
    await node.status(instance={"id": second, "handle": handle})
    await eventually_async(lambda: _now(index.by_id(second)))
    for name in (node.uid, second, handle):
        assert [found.uid for found in index.by_id(name)] == [node.uid]
    assert node.uid in [found.uid for found in index.by_id(node.id)], "an earlier id still leads to it"
    assert [found.uid for found in index.of_deployment(market.namespace, market.deployment_uid)] == [node.uid]
    assert index.of_deployment("elsewhere", market.deployment_uid) == []
    await node.delete()
    await eventually_async(lambda: _now(index.get(node.uid) is None))
    assert index.by_id(second) == [] and index.of_deployment(market.namespace, market.deployment_uid) == []


async def test_whoever_waits_for_a_node_is_woken(index: NodeIndex, market: Any, eventually_async: Any) -> None:
    node = await market.node()
    await eventually_async(lambda: _now((found := index.get(node.uid)) and found.handle))
    waiting = asyncio.create_task(index.change(node.uid))
    await node.status(goneTime="2026-01-01T00:00:00Z")
    async with asyncio.timeout(60):
        await waiting
    assert index.get(node.uid).gone  # type: ignore[union-attr]


async def test_a_node_larger_than_128_kib_is_watched(index: NodeIndex, market: Any, eventually_async: Any) -> None:
    await eventually_async(lambda: _now(index.fault is None))
    env = [{"name": f"E{number}", "value": "x" * 30000} for number in range(20)]
    node = await market.node(workload={"env": env})
    await eventually_async(lambda: _now(index.get(node.uid)))


async def test_what_went_while_nobody_watched_is_gone_after_the_next_list(index: NodeIndex, market: Any) -> None:
    node = await market.node()
    gone, handle = f"gone-{node.uid}", f"handle-{node.uid}"
    index.put(NodeRecord("n", market.namespace, gone, "d", 0, "", "p", None, handle, "i"))
    assert index.by_id(handle)
    await index._list()
    assert index.get(gone) is None and index.by_id(handle) == []
    assert index.get(node.uid)


async def test_five_thousand_nodes_are_small_and_found_at_once(cluster: Cluster) -> None:
    index = NodeIndex(cluster)
    for number in range(5000):
        index.put(
            NodeRecord(
                f"n{number}",
                "default",
                f"u{number}",
                f"d{number // 5}",
                number % 5,
                "",
                "p",
                None,
                f"h{number}",
                f"i{number}",
            )
        )
    assert [found.name for found in index.by_id("i4321")] == ["n4321"]
    assert [found.name for found in index.of_deployment("default", "d864")] == [
        f"n{number}" for number in range(4320, 4325)
    ]
    for number in range(5000):
        index.drop(f"u{number}")
    assert len(index) == 0 and not any((index._by_id, index._by_deployment, index._ids))
