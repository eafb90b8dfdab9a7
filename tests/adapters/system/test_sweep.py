"""The sweep at real accounts: orphans and doubles go, what others bought there stays."""

from __future__ import annotations

from typing import Any

import pytest

from cal_adapters.connect import find_installation
from cal_adapters.contract import Mark
from cal_crds.meta import PROVIDER

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Customer = Any


async def test_orphans_and_doubles_go_and_strangers_stay(customer: Customer, waiting: Any) -> None:
    await customer.register(main=customer.site.key)
    # The same account under a second name: what is bought through the one is no orphan of the other.
    spec = (await customer.cluster.get(PROVIDER.path(name=customer.name)))["spec"]
    await customer.create(PROVIDER, f"{customer.name}-too", spec)
    await customer.pool()
    await customer.deploy()
    await customer.reaches("RUNNING", timeout=90)
    (node,) = await customer.nodes()
    ours = await find_installation(customer.cluster, "cal-system")
    theirs = str(Mark("ffffffffff", "strangerstranger"))
    for name in (str(Mark(ours, "orphanorphan")), str(Mark(ours, node.spec.token)), theirs, "somebody-elses"):
        customer.site.open(name)
    assert len(customer.site.billing()) == 5

    async def swept() -> bool:
        names = [name for _, name in customer.site.billing()]
        assert sorted(names) == sorted([str(Mark(ours, node.spec.token)), theirs, "somebody-elses"])
        return True

    await waiting(swept, 120)
    (still,) = await customer.nodes()
    assert still.status.instance.handle == node.status.instance.handle, "the recorded one of the two stays"
    assert (await customer.deployment()).status.state == "RUNNING"
    await customer.terminate()
    await customer.no_nodes(timeout=120)
    assert sorted(name for _, name in customer.site.billing()) == sorted([theirs, "somebody-elses"])
