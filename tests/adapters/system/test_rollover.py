"""A job that is replaced by another of the same deployment: the node stays, and a heartbeat's word for it counts only if the provider agrees."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cal_crds.base import rfc3339
from cal_crds.meta import NODE

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Customer = Any


@pytest.fixture
def nosana_customer(customer: Customer) -> Customer:
    if customer.site.adapter != "nosana":
        pytest.skip("akash's instances keep their id")
    return customer


async def _beat(customer: Customer, name: str, instance_id: str) -> None:
    """What the api writes for a beat with `old_provider_instance_id`."""
    heartbeat = {"state": "Ready", "time": rfc3339(datetime.now(UTC)), "instanceID": instance_id}
    await customer.cluster.merge_patch(NODE.path(customer.name, name, "status"), {"status": {"heartbeat": heartbeat}})


async def test_the_node_keeps_its_identity_and_takes_only_an_id_that_the_provider_confirms(
    nosana_customer: Customer, waiting: Any
) -> None:
    customer = nosana_customer
    await customer.register(main=customer.site.key)
    await customer.pool()
    await customer.deploy()
    await customer.reaches("RUNNING", timeout=90)
    (node,) = await customer.nodes()
    first = node.status.instance.id
    await _beat(customer, node.metadata.name, "9" * 44)
    async with httpx.AsyncClient(base_url=customer.site.url, trust_env=False) as http:
        name = customer.site.billing()[0][1]
        (await http.post("/_world/deployment", json={"name": name, "relist": True})).raise_for_status()

    async def follows() -> str:
        (still,) = await customer.nodes()
        assert still.metadata.uid == node.metadata.uid and still.status.ended is None
        assert still.status.instance.id not in (first, "9" * 44), still.status.instance
        return str(still.status.instance.id)

    second = await waiting(follows, 90)
    # An agent of the job before, late: its word takes the node back nowhere.
    await _beat(customer, node.metadata.name, first)
    before = customer.site.requests()

    async def looked() -> bool:
        return bool(customer.site.requests() > before + 12)

    await waiting(looked, 120)
    (still,) = await customer.nodes()
    assert (still.metadata.uid, still.status.instance.id) == (node.metadata.uid, second)
    assert len(customer.site.billing()) == 1
    await customer.terminate()
    await customer.no_nodes(timeout=120)
    assert customer.site.billing() == []
