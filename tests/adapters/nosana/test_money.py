"""Buying once and stopping for good: what the provider's states, faults and delays may not break."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cal_adapters.contract import Mark, State, Stop
from cal_adapters.errors import (
    CredentialsRefused,
    InstanceNotFound,
    InsufficientFunds,
    OutcomeUnknown,
    PriceAboveCap,
    RateLimited,
    Refused,
)
from cal_crds.node import OfferAttribute

pytestmark = pytest.mark.anyio

START = r"^POST /api/deployments/\w+/start$"
CREATE = r"^POST /api/deployments/create$"
ARCHIVE = r"^POST /api/deployments/\w+/archive$"


# --- launch


async def test_the_name_is_the_mark_and_the_deployment_is_extended_by_itself(rig: Any) -> None:
    mark, _ = await rig.launched()
    made = await rig.deployment(mark)
    assert made["name"] == str(mark)
    assert (made["strategy"], made["replicas"], made["timeout"]) == ("SIMPLE-EXTEND", 1, 60)


async def test_a_running_job_outlives_its_timeout_many_times(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.advance(60 * 60 * 24)
    assert (await rig.adapter.observe(instance.handle)).state is State.RUNNING


async def test_a_draft_whose_creation_was_not_answered_is_found_and_finished_by_advance(
    rig: Any, make_mark: Any
) -> None:
    mark = make_mark()
    await rig.fault(CREATE, "cut-after")
    request = await rig.world.request(mark)
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.launch(request)
    (found,) = await rig.adapter.find(mark)
    # To observe is never to buy.
    assert (await rig.adapter.observe(found.handle)).state is State.STARTING
    assert (await rig.deployment(mark))["status"] == "DRAFT"
    assert await rig.ask("billing") == []
    assert (await rig.adapter.advance(found.handle, request)).state is State.STARTING
    await rig.advance(2)
    assert (await rig.adapter.observe(found.handle)).state is State.RUNNING


async def test_a_start_without_an_answer_gives_the_instance_all_the_same(rig: Any) -> None:
    await rig.fault(START, "cut-after")
    mark, instance = await rig.launched()
    assert (await rig.deployment(mark))["status"] in ("STARTING", "RUNNING")
    await rig.advance(2)
    assert (await rig.adapter.observe(instance.handle)).state is State.RUNNING


async def test_a_start_that_was_refused_bought_nothing_and_the_next_launch_uses_the_same_draft(
    rig: Any, make_mark: Any
) -> None:
    mark = make_mark()
    await rig.fault(START, "rate", retry_after=3)
    with pytest.raises(RateLimited) as raised:
        await rig.adapter.launch(await rig.world.request(mark))
    assert raised.value.retry_after == 3
    assert await rig.ask("billing") == []
    await rig.adapter.launch(await rig.world.request(mark))
    assert (await rig.deployment(mark))["status"] in ("STARTING", "RUNNING")


async def test_of_two_drafts_of_one_mark_only_the_older_is_ever_started(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    request = await rig.world.request(mark)
    await asyncio.gather(*(rig.adapter.launch(request) for _ in range(5)))
    made = [item for item in await rig.ask("deployments") if item["name"] == str(mark)]
    younger = [item for item in await rig.adapter.find(mark) if item.id not in [x["id"] for x in await _started(rig)]]
    assert len(made) == 1 + len(younger)
    for instance in younger:
        assert (await rig.adapter.advance(instance.handle, request)).state is State.FAILED
    await rig.advance(2)
    assert len(await _started(rig)) == 1


async def _started(rig: Any) -> list[Any]:
    return [item for item in await rig.ask("deployments") if item["status"] != "DRAFT"]


async def test_what_was_stopped_is_not_bought_again_by_a_late_launch(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.gone(instance.handle)
    with pytest.raises(Refused, match="bought before"):
        await rig.adapter.launch(await rig.world.request(mark))
    assert await rig.ask("billing") == []


async def test_a_leftover_draft_is_not_bought_after_the_first_was_stopped(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    request = await rig.world.request(mark)
    instance = await rig.adapter.launch(request)
    await rig.tell("crowd", key=rig.key, names=[str(mark)], started=False)
    (leftover,) = [found for found in await rig.adapter.find(mark) if found.handle != instance.handle]
    await rig.advance(2)
    await rig.gone(instance.handle)
    with pytest.raises(Refused, match="bought before"):
        await rig.adapter.launch(request)
    assert (await rig.adapter.advance(leftover.handle, request)).state is State.FAILED
    await rig.gone(leftover.handle)
    assert (await rig.ask("billing"), len(await rig.ask("bills"))) == ([], 1)


async def test_what_was_started_counts_before_an_older_draft(rig: Any, make_mark: Any) -> None:
    """The provider dates a deployment before it can be seen."""
    mark = make_mark()
    await rig.tell("crowd", key=rig.key, names=[str(mark)], started=False, age=3600)
    (older,) = await rig.adapter.find(mark)
    await rig.tell("crowd", key=rig.key, names=[str(mark)])
    request = await rig.world.request(mark)
    launched = await rig.adapter.launch(request)
    assert launched.handle != older.handle
    assert (await rig.adapter.advance(older.handle, request)).state is State.FAILED
    await rig.advance(2)
    assert len(await _started(rig)) == 1


async def test_a_draft_above_its_cap_is_never_started(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    request = await rig.world.request(mark)
    await rig.fault(START, "rate")
    with pytest.raises(RateLimited):
        await rig.adapter.launch(request)
    await rig.tell("market", slug="nvidia-3060", usd_reward_per_hour=50)
    (found,) = await rig.adapter.find(mark)
    seen = await rig.adapter.advance(found.handle, request)
    assert seen.state is State.FAILED
    assert "above the cap" in seen.message
    assert (await rig.deployment(mark))["status"] == "DRAFT"


async def test_the_price_is_asked_again_before_anything_is_made(rig: Any, make_mark: Any) -> None:
    request = await rig.world.request(make_mark())
    with pytest.raises(PriceAboveCap):
        await rig.adapter.launch(replace(request, max_price_per_hour=Decimal("0.0527")))
    assert await rig.ask("deployments") == []
    # Exactly at the cap is bought: 0.048 plus the network's ten percent.
    await rig.adapter.launch(replace(request, max_price_per_hour=Decimal("0.0528")))


async def test_a_launch_ends_in_time_and_without_a_second_creation(rig: Any, make_mark: Any) -> None:
    await rig.fault(CREATE, "hang-after", seconds=60)
    mark = make_mark()
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(rig.adapter.launch(await rig.world.request(mark)), 15)
    assert len(await rig.ask("deployments")) == 1


@pytest.mark.parametrize("kind", ["cut", "cut-after", "garbage", "html"])
async def test_a_creation_is_never_sent_twice(rig: Any, make_mark: Any, kind: str) -> None:
    await rig.fault(CREATE, kind, status=502)
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.launch(await rig.world.request(make_mark()))
    assert len(await rig.ask("deployments")) == (1 if kind == "cut-after" else 0)


async def test_unknown_markets_and_other_pools_are_refused(rig: Any, make_mark: Any) -> None:
    request = await rig.world.request(make_mark())
    with pytest.raises(Refused, match="not of the pool's market"):
        await rig.adapter.launch(replace(request, provider_pool_id="nvidia-4090"))
    for attributes in ([], [OfferAttribute(name="market_address", value="../../x")]):
        offer = request.offer.model_copy(update={"attributes": attributes})
        with pytest.raises(Refused):
            await rig.adapter.launch(replace(request, offer=offer, provider_pool_id=None))
    assert await rig.ask("deployments") == []


# --- stop


async def test_a_stop_while_starting_is_tried_again_until_it_is_allowed(rig: Any) -> None:
    await rig.tell("delays", start=20)
    _, instance = await rig.launched()
    assert await rig.adapter.stop(instance.handle) is Stop.STOPPING
    await rig.gone(instance.handle)
    assert await rig.ask("billing") == []


async def test_a_draft_is_taken_back_so_that_no_late_start_buys_it(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    await rig.fault(START, "rate")
    with pytest.raises(RateLimited):
        await rig.adapter.launch(await rig.world.request(mark))
    (found,) = await rig.adapter.find(mark)
    assert await rig.adapter.stop(found.handle) is Stop.STOPPING
    assert (await rig.deployment(mark))["replicas"] == 0
    await rig.gone(found.handle)
    late = await rig.http.post(f"/api/deployments/{found.id}/start", headers={"Authorization": f"Bearer {rig.key}"})
    assert late.status_code == 500
    await rig.advance(600)
    assert (await rig.ask("billing"), await rig.ask("bills")) == ([], [])


async def test_a_late_start_of_an_emptied_draft_lists_no_job(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    await rig.fault(START, "status", status=502, times=2)
    instance = await rig.adapter.launch(await rig.world.request(mark))
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.stop(instance.handle)
    assert (await rig.deployment(mark))["status"] == "DRAFT"
    assert (await rig.deployment(mark))["replicas"] == 0
    late = await rig.http.post(f"/api/deployments/{instance.id}/start", headers={"Authorization": f"Bearer {rig.key}"})
    assert late.status_code == 200
    await rig.advance(60)
    assert (await rig.deployment(mark))["jobs"] == []
    await rig.gone(instance.handle)


async def test_gone_is_said_only_of_an_archived_deployment(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.fault(ARCHIVE, "status", status=502)
    with pytest.raises(OutcomeUnknown):
        await _stop_until_error(rig, instance.handle)
    assert (await rig.deployment(mark))["status"] == "STOPPED"
    await rig.gone(instance.handle)
    assert (await rig.deployment(mark))["status"] == "ARCHIVED"


async def _stop_until_error(rig: Any, handle: str) -> None:
    for _ in range(60):
        assert await rig.adapter.stop(handle) is Stop.STOPPING
        await rig.advance(1)


async def test_a_job_listed_after_the_stop_is_waited_for_and_stopped(rig: Any) -> None:
    await rig.tell("delays", stragglers=True, list=30)
    _, instance = await rig.launched()
    await rig.advance(1)
    took = await rig.gone(instance.handle)
    assert took >= 20
    assert await rig.ask("billing") == []
    await rig.advance(3600)
    assert await rig.ask("billing") == []


async def test_an_archived_deployment_whose_job_runs_on_is_not_gone(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.tell("deployment", name=str(mark), status="ARCHIVED")
    assert len(await rig.ask("billing")) == 1
    assert [found.mark for found in await rig.adapter.find(mark)] == [mark]
    assert await rig.adapter.stop(instance.handle) is Stop.STOPPING
    assert await rig.ask("billing") == []
    assert await rig.adapter.stop(instance.handle) is Stop.GONE


async def test_insufficient_funds_is_not_gone_and_is_stopped_for_good(rig: Any) -> None:
    await rig.tell("account", key=rig.key, owner=(await rig.ask("stats"))["owners"][0], assigned=0.01)
    mark, instance = await rig.launched()
    await rig.advance(2)
    seen = await rig.adapter.observe(instance.handle)
    assert (seen.state, (await rig.deployment(mark))["status"]) == (State.STARTING, "INSUFFICIENT_FUNDS")
    assert "can't pay" in seen.message
    assert [found.mark for found in await rig.adapter.list_marked()] == [mark]
    await rig.gone(instance.handle)
    await rig.tell("account", key=rig.key, owner=(await rig.ask("stats"))["owners"][0], assigned=1000)
    await rig.advance(3600)
    assert await rig.ask("billing") == []


async def test_an_account_without_credits_buys_nothing(rig: Any, make_mark: Any) -> None:
    owner = (await rig.ask("stats"))["owners"][0]
    await rig.tell("account", key=rig.key, owner=owner, assigned=0)
    with pytest.raises(InsufficientFunds, match="0 US dollars"):
        await rig.adapter.launch(await rig.world.request(make_mark()))
    assert await rig.ask("deployments") == []


async def test_a_balance_that_can_not_be_read_stops_nobody(rig: Any) -> None:
    await rig.fault("^GET /api/credits", "html", status=503, times=2)
    await rig.running()


async def test_insufficient_funds_comes_back_by_itself(rig: Any) -> None:
    owner = (await rig.ask("stats"))["owners"][0]
    await rig.tell("account", key=rig.key, owner=owner, assigned=0.01)
    _, instance = await rig.launched()
    await rig.advance(2)
    await rig.tell("account", key=rig.key, owner=owner, assigned=1000)
    await rig.advance(900)
    assert (await rig.adapter.observe(instance.handle)).state is State.RUNNING


async def test_a_wrong_state_is_looked_at_and_not_repeated_blindly(rig: Any) -> None:
    """Somebody else stopped it between our look and our call."""
    mark, instance = await rig.running()
    wrong = {"error": "Deployment is in the incorrect state."}
    await rig.fault(r"/stop$", "status", status=500, body=wrong)
    before = (await rig.ask("stats"))["requests"]
    assert await rig.adapter.stop(instance.handle) is Stop.STOPPING
    assert (await rig.ask("stats"))["requests"] - before == 2
    assert (await rig.deployment(mark))["status"] == "RUNNING"


async def test_another_500_to_a_stop_is_an_error(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.fault(r"/stop$", "status", status=500, body={"error": "Failed to stop deployment."})
    with pytest.raises(OutcomeUnknown, match="Failed to stop"):
        await rig.adapter.stop(instance.handle)


async def test_a_part_that_is_not_found_proves_nothing(rig: Any) -> None:
    _, instance = await rig.running()
    missing = {"status": 404, "body": {"error": "Job not found"}, "times": 2}
    await rig.fault(r"^GET /api/deployments/\w+/jobs", "status", **missing)
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.observe(instance.handle)
    await rig.fault(r"^POST /api/deployments/\w+/stop", "status", **{**missing, "times": 1})
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.stop(instance.handle)


# --- not found


async def test_deleted_at_the_provider_is_gone(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.advance(60)
    await rig.tell("deployment", name=str(mark), delete=True)
    with pytest.raises(InstanceNotFound):
        await rig.adapter.observe(instance.handle)
    assert await rig.adapter.stop(instance.handle) is Stop.GONE


async def test_a_key_of_another_account_never_frees_an_instance(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.advance(60)
    await rig.tell("account", key="nos_other")
    other = rig.another("nos_other")
    try:
        for call in (other.stop, other.observe):
            with pytest.raises(CredentialsRefused, match="opens account"):
                await call(instance.handle)
        assert list(await other.list_marked()) == []
        assert (await other.check()).id != instance.account
    finally:
        await other.close()


async def test_a_key_whose_account_is_unknown_never_frees_an_instance(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.advance(60)
    await rig.tell("account", key="nos_fresh", fresh=True)
    fresh = rig.another("nos_fresh")
    try:
        with pytest.raises(OutcomeUnknown, match="can't be told"):
            await fresh.stop(instance.handle)
        assert (await fresh.check()).id is None
    finally:
        await fresh.close()


async def test_not_found_counts_only_when_reads_have_caught_up(rig: Any) -> None:
    mark, instance = await rig.launched()
    await rig.fault(r"^GET /api/deployments/\w+$", "stale", seconds=10, times=2)
    for call in (rig.adapter.observe, rig.adapter.stop):
        with pytest.raises(OutcomeUnknown, match="so lately"):
            await call(instance.handle)
    assert (await rig.deployment(mark))["status"] != "DRAFT"


#: What web frameworks say of a path that leads nowhere, as while a new version of the API is rolled out.
_NO_ROUTE = {"message": "Route GET:/api/deployments/x not found", "error": "Not Found", "statusCode": 404}


@pytest.mark.parametrize(
    "body",
    [
        {"status": 404, "kind": "html"},
        {"status": 404, "kind": "status", "body": {"error": "no such route"}},
        {"status": 404, "kind": "status", "body": {"error": "Not Found"}},
        {"status": 404, "kind": "status", "body": _NO_ROUTE},
        {"status": 404, "kind": "status", "body": {"message": "Page not found", "statusCode": 404}},
    ],
)
async def test_a_404_in_another_shape_proves_nothing(rig: Any, body: dict[str, Any]) -> None:
    _, instance = await rig.running()
    await rig.advance(60)
    await rig.adapter.observe(instance.handle)  # tells the provider's time: that it was made lately is no reason here
    for call in (rig.adapter.observe, rig.adapter.stop):
        await rig.fault(r"^GET /api/deployments/\w+$", times=2, **body)
        with pytest.raises(OutcomeUnknown, match=r"answered 404: [^;]*$"):
            await call(instance.handle)


# --- the sweep


async def test_a_status_that_nobody_knows_hides_nothing_from_the_sweep(rig: Any) -> None:
    kept, _ = await rig.running()
    strange, _ = await rig.running()
    rig.odd = "LEVITATING"
    await rig.tell("deployment", name=str(strange), status=rig.odd)
    listed = await rig.adapter.list_marked()
    assert sorted(str(found.mark) for found in listed) == sorted(map(str, (kept, strange)))


async def test_archived_ones_are_neither_listed_nor_paged_through(rig: Any) -> None:
    _, instance = await rig.running()
    await rig.gone(instance.handle)
    mark, _ = await rig.launched()
    assert [found.mark for found in await rig.adapter.list_marked()] == [mark]


async def test_a_list_without_end_is_an_error(rig: Any) -> None:
    page = {"deployments": [], "pagination": {"cursor_next": "again", "cursor_prev": None, "total_items": 1}}
    await rig.fault(r"^GET /api/deployments$", "status", status=200, body=page, times=0)
    for call in (rig.adapter.list_marked, lambda: rig.adapter.find(Mark("0a1b2c3d4e", "abcdefgh"))):
        with pytest.raises(OutcomeUnknown, match="doesn't come to an end"):
            await call()


# --- several accounts and ids


async def test_a_jobs_id_is_confirmed_after_it_rolled_over_and_that_of_an_ended_one_is_not(rig: Any) -> None:
    mark, instance = await rig.running()
    first = (await rig.adapter.observe(instance.handle)).id
    await rig.tell("deployment", name=str(mark), relist=True)
    await rig.advance(2)
    second = (await rig.adapter.observe(instance.handle)).id
    assert first != second
    for claimed in (second, instance.id):
        assert await rig.adapter.confirm(instance.handle, claimed)
    # A hint that is as old as that must not take the node back to a job that has ended.
    for claimed in (first, "", "x/../y", "ünicode", "9" * 44, "?job="):
        assert not await rig.adapter.confirm(instance.handle, claimed)


async def test_check_tells_the_account_and_what_is_left(rig: Any) -> None:
    _, instance = await rig.running()
    account = await rig.adapter.check()
    assert account.id == instance.account
    assert account.balance == Decimal("1000.0")


@pytest.mark.parametrize("key", ["", "  ", "nos_\nbad", "nos_ünicode"])
async def test_a_key_that_can_not_be_sent_is_refused_and_the_market_still_shown(rig: Any, key: str) -> None:
    adapter = rig.another(key)
    try:
        with pytest.raises(CredentialsRefused, match="no usable `apiKey`"):
            await adapter.check()
        assert await adapter.offers()
    finally:
        await adapter.close()


async def test_after_a_stop_advance_does_nothing(rig: Any, make_mark: Any) -> None:
    mark = make_mark()
    request = await rig.world.request(mark)
    await rig.fault(START, "rate", times=2)
    for _ in range(2):
        with pytest.raises(RateLimited):
            await rig.adapter.launch(request)
    (found,) = await rig.adapter.find(mark)
    await rig.fault(START, "status", status=502)
    with pytest.raises(OutcomeUnknown):
        await rig.adapter.stop(found.handle)
    assert (await rig.adapter.advance(found.handle, request)).state is State.TERMINATED
    assert (await rig.deployment(mark))["status"] == "DRAFT"
    await rig.gone(found.handle)
    assert (await rig.adapter.advance(found.handle, request)).state is State.TERMINATED
    assert await rig.ask("bills") == []
