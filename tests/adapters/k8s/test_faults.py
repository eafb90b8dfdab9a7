"""What goes wrong between the adapter and the API server, by a proxy between them: pages of others, answers that are lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from worlds.k8s_proxy import Answer, Proxy, open_proxy
from worlds.k8s_site import kubeconfig as kubeconfig_of
from worlds.k8s_site import upstream

from cal_adapters.contract import Stop
from cal_adapters.errors import OutcomeUnknown
from cal_adapters.k8s.rights import RULES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy(kwok_cluster: Any, anyio_backend: str) -> AsyncIterator[Proxy]:
    async with open_proxy(*upstream(Path(kwok_cluster.kubeconfig))) as made:
        yield made


@pytest.fixture
async def behind(site: Any, proxy: Proxy, adapters: Any, limited: Any) -> Any:
    """An adapter behind the proxy."""
    return adapters(secret={"kubeconfig": kubeconfig_of(proxy.url, limited.token(list(RULES)))})


@pytest.fixture
async def request_(site: Any, adapter: Any, request_for: Any, eventually_async: Callable[..., Any]) -> Any:
    """A request for the site's only Node."""
    site.node()

    async def offered() -> Any:
        return [offer for offer in await adapter.offers() if offer.region == site.region]

    return request_for((await eventually_async(offered))[0])


async def test_a_404_page_of_somebody_else_proves_nothing(
    site: Any, adapter: Any, behind: Any, proxy: Proxy, request_: Any
) -> None:
    bought = await adapter.launch(request_)
    page = Answer(404, "<html>no such app</html>")
    for verb in (behind.observe, behind.stop, behind.logs):
        proxy.fail(r"/pods/cal-", page)
        with pytest.raises(OutcomeUnknown):
            await (verb(bought.handle, 10) if verb == behind.logs else verb(bought.handle))
    assert site.pod(request_.mark) is not None


async def test_a_status_about_something_else_proves_nothing(
    adapter: Any, behind: Any, proxy: Proxy, request_: Any
) -> None:
    """An API server that doesn't know the path, or a Pod of another name."""
    bought = await adapter.launch(request_)
    other = {"kind": "Status", "reason": "NotFound", "code": 404, "details": {"kind": "pods", "name": "another"}}
    for body in (other, {**other, "details": {}}):
        proxy.fail(r"/pods/cal-", Answer(404, body))
        with pytest.raises(OutcomeUnknown):
            await behind.stop(bought.handle)


@pytest.mark.parametrize("lost", [r"^POST .*/pods$", r"^POST .*/secrets", r"^POST .*/services", r"^PATCH .*/pods/"])
async def test_an_answer_lost_anywhere_in_a_launch_ends_in_one_whole_instance(
    site: Any, behind: Any, proxy: Proxy, request_: Any, lost: str
) -> None:
    proxy.fail(lost, Answer(lost=True))
    with pytest.raises(OutcomeUnknown):
        await behind.launch(request_)
    found = await behind.find(request_.mark)
    assert len(found) == (1 if "PATCH" in lost else 0), "only the open gate is a purchase"
    bought = await behind.launch(request_)
    assert await behind.find(request_.mark) == [bought]
    assert [instance.mark for instance in await behind.list_marked()].count(request_.mark) == 1
    assert site.names("pods,secrets,services") == [str(request_.mark)] * 3


async def test_a_stop_that_broke_off_is_taken_up_again(
    site: Any, behind: Any, proxy: Proxy, request_: Any, eventually_async: Callable[..., Any]
) -> None:
    bought = await behind.launch(request_)
    proxy.fail(r"^DELETE .*/secrets/", Answer(lost=True), times=2)

    async def broken() -> bool:
        try:
            return await behind.stop(bought.handle) is Stop.GONE
        except OutcomeUnknown:
            return True

    await eventually_async(broken)
    assert await behind.stop(bought.handle) is Stop.GONE
    assert site.names("pods,secrets,services") == []
