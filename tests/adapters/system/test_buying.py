"""What a person reads when nothing can be bought: an empty account, a market that there isn't, more GPUs than one job has, a limit that is
reached."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cal_crds.conditions import Reason, Status, Type

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Customer = Any


async def _waits(customer: Customer, waiting: Any, *words: str) -> None:
    async def said() -> bool:
        found = (await customer.deployment()).status
        text = f"{found.waiting} {found.error_message}"
        assert all(word in text for word in words), text
        return True

    await waiting(said)
    assert customer.site.billing() == []


async def test_an_empty_account_is_a_condition_and_goes_on_by_itself_once_there_is_money(
    customer: Customer, waiting: Any
) -> None:
    customer.site.fund(0)
    await customer.register(main=customer.site.key)

    async def poor() -> bool:
        found = await customer.provider_condition(Type.FUNDED)
        assert found is not None and found.status == Status.FALSE and found.reason == Reason.INSUFFICIENT_FUNDS
        assert found.message.startswith("main: "), found.message
        assert (await customer.provider()).status.balance == "0"
        return True

    await waiting(poor)
    await customer.pool()
    await customer.deploy()
    await _waits(customer, waiting, "InsufficientFunds", "empty")
    customer.site.fund(50)
    await customer.set_key(customer.site.key)  # so that it is looked at now
    await customer.reaches("RUNNING", timeout=120)
    found = await customer.provider_condition(Type.FUNDED)
    assert found is not None and found.status == Status.TRUE
    await customer.terminate()
    await customer.no_nodes(timeout=120)
    assert customer.site.billing() == []


async def test_a_market_that_there_is_not_is_named(customer: Customer, waiting: Any) -> None:
    await customer.register(main=customer.site.key)
    await customer.pool(providerPoolID="no-such-market")
    await customer.deploy()
    await _waits(customer, waiting, "no-such-market")  # no offer at Nosana; no name of a pool at Akash
    await customer.terminate()
    await customer.reaches("TERMINATED")


async def test_a_gpu_that_nobody_has_and_more_than_are_sold_together_are_said(customer: Customer, waiting: Any) -> None:
    await customer.register(main=customer.site.key)
    await customer.pool()
    await customer.deploy(gpuPerReplica=16)
    await _waits(customer, waiting, "NoOffer", "GPU")
    await customer.terminate()
    await customer.reaches("TERMINATED")


@pytest.mark.parametrize("site", ["akash"], indirect=True)
async def test_bids_that_are_dearer_than_the_offers_do_not_break_the_pool_s_limit(
    customer: Customer, waiting: Any
) -> None:
    """Two orders are open before either has a price: each bid alone would be within what the other's offer leaves."""
    await customer.register(main=customer.site.key)

    async def offered() -> bool:
        return bool((await customer.provider()).status.offers)

    await waiting(offered)
    customer.site.state.factors["rtx4090"] = Decimal("1.3")  # offered at 0.40, bid at 0.52
    await customer.pool(maxCostPerHour=None, limits={"maxCostPerHour": "0.96"})
    await customer.deploy(replicas=2)

    async def one_serves_and_one_waits() -> bool:
        assert len(customer.site.leases()) <= 1
        found = (await customer.deployment()).status
        serves = found.ready_replicas == 1 and found.waiting is not None
        return serves and "held for nodes whose final price" not in found.waiting.message

    await waiting(one_serves_and_one_waits, 120)
    (price,) = customer.site.leases()
    assert price == Decimal("0.52")
    await customer.terminate()
    await customer.no_nodes(timeout=120)
