"""What may be spent: price caps, the limits of pools, pauses and time limits hold, and say so."""

from __future__ import annotations

import asyncio

import pytest
from rig.desk import Desk
from rig.waiting import until

from cal_adapters.fake.catalogue import CATALOGUE
from cal_crds.conditions import Type, condition
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import DEPLOYMENT, POOL, PROVIDER

pytestmark = pytest.mark.anyio


async def test_nothing_is_bought_above_the_cap_whatever_the_offer_said(desk: Desk) -> None:
    await desk.open(maxCostPerHour="0.10")
    for offer in CATALOGUE:
        desk.ledger.reprice(offer, "10")  # after the offers were read
    await desk.deploy()

    async def told() -> bool:
        found = await desk.deployment()
        waiting = found.status.waiting
        return waiting is not None and any(
            refused.reason in ("LatelyRefused", "AbovePriceCap") for refused in waiting.refused
        )

    await until(told)
    assert desk.billing() == []


async def test_a_price_above_the_cap_waits_and_says_why_offer_by_offer(desk: Desk) -> None:
    await desk.open(maxCostPerHour="0.01")
    await desk.deploy()

    async def told() -> bool:
        waiting = (await desk.deployment()).status.waiting
        assert waiting is not None and waiting.reason == "NoOffer"
        assert {refused.reason for refused in waiting.refused} <= {"AbovePriceCap", "TooFewGPUs"}
        return "AbovePriceCap" in waiting.message

    await until(told)
    assert desk.billing() == []


async def test_the_pool_s_limits_hold_under_fifty_deployments_at_once(desk: Desk) -> None:
    await desk.open(limits={"maxNodes": 5})
    await desk.pool("thrifty", limits={"maxCostPerHour": "0.25"})
    await asyncio.gather(*(desk.deploy(f"m{n}") for n in range(50)))
    await asyncio.gather(*(desk.deploy(f"t{n}", pool="thrifty") for n in range(50)))

    async def all_looked_at() -> bool:
        found = (await desk.cluster.list(DEPLOYMENT.path(desk.namespace)))["items"]
        states = [ModelDeployment.parse(item).status for item in found]
        return len(states) == 100 and all(
            status.state == "RUNNING" or (status.waiting and status.waiting.reason == "LimitReached")
            for status in states
        )

    await until(all_looked_at, timeout=90)
    nodes = await desk.nodes()
    pool, thrifty = await desk.get_pool(), await desk.get_pool("thrifty")
    counts = [
        len([node for node in nodes if node.spec.pool_ref.uid == found.metadata.uid]) for found in (pool, thrifty)
    ]
    assert counts == [5, 3], "five nodes, and three at 0.08 USD/h within 0.25"
    assert len(desk.billing()) == len(desk.ledger.history()) == 8, "and never one more"


async def test_a_paused_provider_buys_nothing_and_still_stops(desk: Desk) -> None:
    await desk.open()
    await desk.serve()
    await desk.patch(PROVIDER, desk.provider, {"desiredState": "Paused"})
    await desk.deploy("second")

    async def paused() -> bool:
        waiting = (await desk.deployment("second")).status.waiting
        return waiting is not None and waiting.reason == "Paused"

    await until(paused)
    assert len(desk.billing()) == 1
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")
    assert desk.billing() == []


async def test_max_runtime_stops_what_it_bounds(desk: Desk) -> None:
    await desk.open()
    await desk.deploy(maxRuntimeSeconds=2)
    stopped = await desk.reaches("STOPPED")
    assert stopped.status.outcome is not None and stopped.status.outcome.reason == "MaxRuntimeExceeded"
    await desk.bills_exactly([])


async def _warnings(desk: Desk, reason: str) -> list[str]:
    """What the Events of that reason in the desk's namespace say."""
    return [event["message"] for event in await desk.events() if event["reason"] == reason]


async def test_a_pool_s_total_warns_once_at_four_fifths_and_stops_what_runs_when_it_is_spent(desk: Desk) -> None:
    await desk.register()
    # At 0.08 USD/h the warning is due after 4.8 seconds, the end after 6.
    await desk.pool(limits={"maxTotalCost": "0.00013334"})
    await desk.deploy()

    async def warned() -> bool:
        assert await _warnings(desk, "BudgetNearlySpent") == ["80 % of limits.maxTotalCost (0.00013334 USD) is spent"]
        return True

    await until(warned)
    stopped = await desk.reaches("STOPPED")
    ready = condition(stopped.status.conditions, Type.READY)
    assert ready is not None and ready.reason == "BudgetSpent"
    await desk.bills_exactly([])
    assert len(desk.ledger.history()) == 1, "it ran before"
    await desk.deploy("second")
    await desk.reaches("STOPPED", "second")
    assert len(desk.ledger.history()) == 1, "a spent pool buys nothing"
    assert await warned(), "said once, however often it was looked at"
    await desk.patch(POOL, "pool", {"limits": {"maxTotalCost": "5"}})
    await desk.reaches("RUNNING")


async def test_a_pool_s_rate_warns_once_at_four_fifths_and_buys_on_up_to_the_limit(desk: Desk) -> None:
    await desk.open(limits={"maxCostPerHour": "0.2", "maxTotalCost": "0"})
    await desk.patch(POOL, "pool", {"limits": {"maxTotalCost": "100"}})
    await desk.serve()
    assert await _warnings(desk, "RateNearlyUsed") == []
    await desk.deploy("second")
    await desk.reaches("RUNNING", "second")

    async def warned() -> bool:
        assert await _warnings(desk, "RateNearlyUsed") == ["80 % of limits.maxCostPerHour (0.2 USD/h) is in use"]
        return True

    await until(warned)
    await desk.deploy("third")

    async def refused() -> bool:
        waiting = (await desk.deployment("third")).status.waiting
        return waiting is not None and waiting.reason == "LimitReached"

    await until(refused)
    assert await warned() and len(desk.billing()) == 2
    assert await _warnings(desk, "BudgetNearlySpent") == [], "of nothing there are no four fifths"


async def test_pending_timeout_gives_up_with_the_reason(desk: Desk) -> None:
    await desk.open(allowedGPUTypes=["gpu-that-nobody-has"])
    await desk.deploy(pendingTimeoutSeconds=1)
    failed = await desk.reaches("FAILED")
    assert failed.status.outcome is not None and failed.status.outcome.reason == "PendingTimeout"
    assert "GPUTypeNotAllowed" in (failed.status.error_message or "")
