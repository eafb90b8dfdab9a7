"""Following a real process of this machine: written to a file by its shim, read by the relay's own adapter."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rig.follower import Follower

from cal_adapters.contract import Adapter, Context, LaunchRequest, Mark, Stop
from cal_adapters.registry import load
from cal_crds import names
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, PROVIDER
from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import ProviderSpec
from cal_crds.workload import ServedModel, Workload

pytestmark = pytest.mark.anyio

_SPEC = {"adapter": "local"}


@pytest.fixture
async def run(cluster: Cluster, market: Any, adapter_state: Path, eventually_async: Any) -> AsyncIterator[Any]:
    """`await run(script)`: a node whose instance is this shell script; stopped after the test."""
    provider = f"local-{os.getpid()}-{names.new_token()[:6]}"
    body = {"apiVersion": API_VERSION, "kind": "ComputeProvider", "metadata": {"name": provider}, "spec": _SPEC}
    await cluster.create(PROVIDER.path(), body)
    context = Context(provider, ProviderSpec.model_validate(_SPEC), "0a1b2c3d4e", state_dir=adapter_state)
    adapter: Adapter = load("local", ["local"])(context)
    handles = []

    async def start(script: str) -> Any:
        node = await market.node(bought=False, providerRef={"name": provider})
        instance = await adapter.launch(_request(node.mark, script))
        handles.append(instance.handle)
        await node.status(instance={"handle": instance.handle, "id": instance.id, "pricePerHour": "0"})
        return node

    yield start
    for handle in handles:
        await eventually_async(lambda handle=handle: _gone(adapter, handle))
    await adapter.close()


async def _gone(adapter: Adapter, handle: str) -> bool:
    return await adapter.stop(handle) is Stop.GONE


def _request(mark: Mark, script: str) -> LaunchRequest:
    return LaunchRequest(
        mark=mark,
        node="n",
        namespace="default",
        deployment_uid="d",
        pool_uid="p",
        offer=Offer(id="local-cpu"),
        provider_pool_id=None,
        tenancy=Tenancy.SHARED,
        gpu_count=0,
        max_price_per_hour=Decimal(0),
        model=ServedModel(name="m"),
        workload=Workload(command=["sh", "-c", script]),
    )


async def test_a_process_is_followed_to_its_end(run: Any, follow: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    node = await run(f"echo one; echo two >&2; read word < {go}; echo $word; printf 'no line end'")
    client = await follow(node.uid)
    await client.until_line("two")
    go.write_text("three\n")
    assert (await client.rest())[0] == 1000
    assert sorted(client.lines[:2]) == ["one", "two"]
    assert client.lines[2:] == ["three", "no line end"]
    assert client.frames[-1]["type"] == "end"


async def test_a_burst_of_lines_arrives_whole_and_in_order(run: Any, follow: Any, tmp_path: Path) -> None:
    """As many as the relay keeps: they wait for a client however slow this machine is just now."""
    client = await _burst(run, follow, tmp_path, 1900)
    assert client.lines == ["start", *map(str, range(1, 1901))]


async def test_of_a_longer_burst_nothing_is_missing_unsaid(run: Any, follow: Any, tmp_path: Path) -> None:
    client = await _burst(run, follow, tmp_path, 20_000)
    numbers = [int(line) for line in client.lines[1:]]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 20_000
    assert len(numbers) + client.lost == 20_000


async def _burst(run: Any, follow: Any, tmp_path: Path, lines: int) -> Follower:
    """A client that has read, to its end, the log of a process that wrote so many numbers at once after its first line."""
    go = tmp_path / "go"
    os.mkfifo(go)
    node = await run(f"echo start; read word < {go}; seq 1 {lines}")
    client: Follower = await follow(node.uid)
    await client.until_line("start")
    go.write_text("\n")
    assert (await client.rest())[0] == 1000
    assert client.lines[0] == "start"
    return client
