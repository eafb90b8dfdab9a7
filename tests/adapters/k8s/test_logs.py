"""Logs through a real API server: from a kubelet that restarts, and from Nodes where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from worlds.k8s_kubelet import Kubelet, open_kubelet

from cal_adapters.contract import Mark, State
from cal_adapters.errors import AdapterError, InstanceNotFound

pytestmark = pytest.mark.anyio

Eventually = Callable[..., Any]


@pytest.fixture
async def kubelet(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Kubelet]:
    async with open_kubelet(tmp_path / "kubelet") as made:
        yield made


@pytest.fixture
async def launch(site: Any, adapter: Any, request_for: Any, eventually_async: Eventually) -> Callable[..., Any]:
    """await launch(running=True, before=...): an instance on the site's Nodes; `before` is called when an offer is at hand."""

    async def go(*, running: bool = True, before: Callable[[], Any] = lambda: None) -> Any:
        async def offered() -> Any:
            return [offer for offer in await adapter.offers() if offer.region == site.region]

        offer = (await eventually_async(offered))[0]
        before()
        bought = await adapter.launch(request_for(offer))

        async def runs() -> bool:
            return (await adapter.observe(bought.handle)).state is State.RUNNING

        if running:
            await eventually_async(runs)
        return bought

    return go


def point_at(site: Any, node: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    site.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)


async def heard(lines: AsyncIterator[str], count: int) -> list[str]:
    return [await asyncio.wait_for(anext(lines), 30) for _ in range(count)]


async def test_a_followed_log_goes_on_over_a_restart_of_the_kubelet(
    site: Any, adapter: Any, kubelet: Kubelet, launch: Any
) -> None:
    point_at(site, site.node(), kubelet.status())
    bought = await launch()
    pod = str(bought.mark)
    for number in range(5):
        await kubelet.say(pod, f"line {number}")
    await kubelet.say(pod, "50 %\r100 %\u2028done\r")
    assert await adapter.logs(bought.handle, 2) == ["line 4", "50 %\r100 %\u2028done"]
    async with aclosing(adapter.follow(bought.handle, 3)) as lines:
        assert await heard(lines, 3) == ["line 3", "line 4", "50 %\r100 %\u2028done"]
        await kubelet.say(pod, "line 5")
        assert await heard(lines, 1) == ["line 5"]
        await kubelet.cut()
        await kubelet.say(pod, "line 6 with  blanks ")
        assert await heard(lines, 1) == ["line 6 with  blanks "], "nothing twice, nothing lost"
        await kubelet.say(pod, "ä" * 200_000)
        assert await heard(lines, 1) == ["ä" * 200_000]
        site.write_status(bought.mark, {"phase": "Succeeded"})
        await kubelet.end(pod)
        with pytest.raises(StopAsyncIteration):
            await heard(lines, 1)


async def test_following_what_has_not_started_waits_for_its_first_line(
    site: Any, adapter: Any, kubelet: Kubelet, launch: Any
) -> None:
    node = site.node()
    point_at(site, node, kubelet.status())
    bought = await launch(running=False, before=lambda: site.kubectl("cordon", node))
    assert await adapter.logs(bought.handle, 10) == []
    async with aclosing(adapter.follow(bought.handle, 10)) as lines:
        first = asyncio.create_task(heard(lines, 1))
        site.kubectl("uncordon", node)
        await kubelet.say(str(bought.mark), "hello")
        assert await first == ["hello"]


async def test_where_there_is_no_kubelet_it_says_so(site: Any, adapter: Any, launch: Any, free_port: int) -> None:
    addresses = [{"type": kind, "address": "127.0.0.1"} for kind in ("InternalIP", "Hostname")]
    point_at(site, site.node(), {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": free_port}}})
    bought = await launch()
    with pytest.raises(AdapterError, match="doesn't reach the Pod's kubelet") as caught:
        await adapter.logs(bought.handle, 10)
    assert not caught.value.provider_fault, "one dead kubelet is no failure of the cluster"
    with pytest.raises(AdapterError, match="doesn't reach the Pod's kubelet"):
        await heard(adapter.follow(bought.handle, 10), 1)


async def test_following_what_never_was_is_not_found(site: Any, adapter: Any) -> None:
    cluster = (await adapter.check()).id
    handle = f"{cluster}/{site.namespace}/{Mark('a8b8c8d8e8', 'nosuchtoken')}/no-such-uid"
    async with aclosing(adapter.follow(handle, 10)) as lines:
        with pytest.raises(InstanceNotFound):
            await heard(lines, 1)


async def test_following_ends_when_the_pod_is_deleted(site: Any, adapter: Any, kubelet: Kubelet, launch: Any) -> None:
    point_at(site, site.node(), kubelet.status())
    bought = await launch()
    await kubelet.say(str(bought.mark), "hello")
    async with aclosing(adapter.follow(bought.handle, 10)) as lines:
        assert await heard(lines, 1) == ["hello"]
        await adapter.stop(bought.handle)
        await kubelet.end(str(bought.mark))
        with pytest.raises(StopAsyncIteration):
            await heard(lines, 1)
