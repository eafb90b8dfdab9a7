"""The steps of a purchase against the stand-in: which bid is taken, when it is given up, and that no step does harm twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from worlds.akash_faults import Fault
from worlds.akash_state import Bid, Bidder, Deployment
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter
from cal_adapters.contract import EnvValue, Instance, LaunchesInSteps, LaunchRequest, Observation, State, Stop
from cal_adapters.errors import InsufficientFunds, NoCapacity, NotSent, OutcomeUnknown, PriceAboveCap, Refused
from cal_crds.workload import Port, PortProtocol, Resources, Workload, WorkloadType

pytestmark = pytest.mark.anyio

Make = Callable[..., AkashAdapter]
NewRequest = Callable[..., Any]


def only(world: AkashWorld) -> Deployment:
    """The one deployment there is."""
    (item,) = world.akash.state.deployments.values()
    return item


async def bought(adapter: AkashAdapter, request: LaunchRequest, world: AkashWorld) -> tuple[Instance, Observation]:
    """Launched, and observed after the bids had their time."""
    instance = await adapter.launch(request)
    await world.advance(21)
    return instance, await adapter.advance(instance.handle, request)


async def test_the_cheapest_bid_is_taken_though_it_came_last_and_one_that_keeps_its_machine_comes_before_one_that_does_not(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    _, seen = await bought(adapter, request, world)
    lease = only(world).lease
    assert lease is not None
    assert lease.bid.provider.name == "cheap"
    assert seen.price_per_hour is not None and round(seen.price_per_hour, 6) == Decimal("0.4")


async def test_no_bid_is_looked_at_before_bids_had_their_time(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await world.advance(18)
    seen = await adapter.advance(instance.handle, request)
    assert seen.state is State.STARTING
    assert "collecting bids until" in seen.message
    assert only(world).lease is None
    assert "listBids" not in world.akash.requests


async def test_a_new_process_goes_on_with_the_request_alone(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await adapter.close()
    await world.advance(21)
    successor = make()
    assert isinstance(successor, LaunchesInSteps)
    assert only(world).lease is None
    assert (await successor.advance(instance.handle, request)).state is State.STARTING
    assert only(world).lease is not None
    await world.advance(4)
    assert (await successor.advance(instance.handle, request)).state is State.RUNNING


async def test_to_observe_is_not_to_buy(world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest) -> None:
    instance = await adapter.launch(await new_request())
    for seconds in (0, 21, 100):
        await world.advance(seconds)
        assert (await adapter.observe(instance.handle)).state is State.STARTING
    assert only(world).lease is None and only(world).closed is None


async def test_steps_that_race_make_one_lease(world: AkashWorld, make: Make, new_request: NewRequest) -> None:
    request = await new_request()
    adapters = [make() for _ in range(4)]
    instance = await adapters[0].launch(request)
    await world.advance(21)
    seen = await asyncio.gather(*(each.advance(instance.handle, request) for each in adapters for _ in range(2)))
    assert {each.state for each in seen} == {State.STARTING}
    assert len(world.akash.state.deployments) == 1
    lease = only(world).lease
    assert lease is not None and lease.bid.provider.name == "cheap"


async def leased_unanswered(adapter: AkashAdapter, request: LaunchRequest, world: AkashWorld, after: float) -> str:
    """A deployment so many seconds old whose lease was made, with the answer lost; its handle."""
    instance = await adapter.launch(request)
    await world.advance(after)
    world.akash.plan.faults.append(Fault("createLeases", "cut_after"))
    with pytest.raises(OutcomeUnknown):
        await adapter.advance(instance.handle, request)
    assert only(world).lease is not None
    return instance.handle


async def test_a_lost_answer_to_the_lease_is_found_out_by_the_next_look(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    handle = await leased_unanswered(adapter, request, world, after=21)
    await world.advance(4)
    assert (await adapter.advance(handle, request)).state is State.RUNNING


async def test_a_lease_that_a_lagging_node_does_not_show_is_not_given_up(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    handle = await leased_unanswered(adapter, request, world, after=58)
    await world.advance(4)
    world.akash.plan.faults.append(Fault("getDeployment", "stale", seconds=20))
    seen = await adapter.advance(handle, request)
    assert seen.state is State.STARTING and "taken" in seen.message
    assert only(world).closed is None
    assert (await adapter.advance(handle, request)).state is State.RUNNING


async def test_a_provider_that_missed_the_manifest_is_handed_it_again_but_not_at_every_look(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance, _ = await bought(adapter, request, world)
    lease = only(world).lease
    assert lease is not None
    lease.handed = None
    for _ in range(3):
        seen = await adapter.advance(instance.handle, request)
        assert seen.state is State.STARTING
    assert lease.handed is None, "it was handed over a moment ago"
    await world.advance(31)
    await adapter.advance(instance.handle, request)
    assert lease.handed is not None
    await world.advance(4)
    assert (await adapter.advance(instance.handle, request)).state is State.RUNNING


async def test_without_an_acceptable_bid_it_is_closed_says_why_and_the_deposit_comes_back(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    credit = world.akash.state.accounts[0].credits
    request = await new_request(max_price_per_hour=Decimal("0.1"))
    instance = await adapter.launch(request)
    assert world.akash.state.accounts[0].credits < credit
    await world.advance(21)
    assert "no acceptable bid yet: no bids" in (await adapter.advance(instance.handle, request)).message
    await world.advance(40)
    with pytest.raises(NoCapacity, match="no acceptable bid within 60 s: no bids"):
        await adapter.advance(instance.handle, request)
    assert only(world).closed is not None
    assert world.akash.state.accounts[0].credits == credit
    with pytest.raises(NoCapacity):
        await make().advance(instance.handle, request)
    assert (await adapter.observe(instance.handle)).state is State.FAILED
    assert await adapter.stop(instance.handle) is Stop.GONE


async def test_bids_above_the_cap_are_refused_even_where_the_order_lets_them_through(
    world: AkashWorld, make: Make, new_request: NewRequest
) -> None:
    request = await new_request(max_price_per_hour=Decimal("0.3"))
    adapter = make()
    instance = await adapter.launch(request)
    item, state = only(world), world.akash.state
    for usd in ("0.300001", "7"):
        amount = state.amount(Decimal(usd), "uact")
        gpu = {"units": 1, "model": "rtx4090", "ram": "24Gi", "interface": "pcie"}
        item.extra.append(Bid(Bidder(f"b{usd[0]}", 0, Decimal(1)), Decimal(usd), amount, item.made, gpu))
    await world.advance(21)
    assert "above the cap of 0.3" in (await adapter.advance(instance.handle, request)).message
    await world.advance(40)
    with pytest.raises(PriceAboveCap):
        await adapter.advance(instance.handle, request)
    assert item.lease is None and item.closed is not None


@pytest.mark.parametrize(
    "gpu",
    [
        {"units": 1, "model": "t4"},
        {"units": 1, "model": "rtx4090", "ram": "48Gi"},
        {"units": 1, "model": "rtx4090", "interface": "sxm"},
        {"units": 0, "model": "rtx4090"},
        {"units": 1},
    ],
    ids=str,
)
async def test_a_cheap_bid_with_other_gpus_is_passed_over(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, gpu: dict[str, Any]
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    item = only(world)
    item.extra.append(Bid(Bidder("bargain", 0, Decimal(1)), Decimal("0.01"), Decimal(17), item.made, gpu))
    await world.advance(21)
    await adapter.advance(instance.handle, request)
    assert item.lease is not None and item.lease.bid.provider.name == "cheap"


async def test_a_bid_in_a_coin_whose_worth_is_unknown_is_passed_over(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    only(world).denom = "ibc/170C677610AC31DF0904FFE09CD3B5C657492170E7E52372E48756B71E56F2F1"
    await world.advance(21)
    assert "whose worth isn't known" in (await adapter.advance(instance.handle, request)).message
    assert only(world).lease is None


async def test_a_hash_that_is_not_ours_is_closed_and_never_leased(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await world.advance(21)
    rotated = replace(request, env=[EnvValue("CAL_TEST_SECRET", "another value since", secret=True)])
    seen = await make().advance(instance.handle, rotated)
    assert seen.state is State.LOST
    assert "hash" in seen.message
    assert only(world).lease is None and only(world).closed is not None


async def test_while_the_console_answers_without_the_chain_nothing_is_leased_or_closed(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await world.advance(21)
    world.akash.plan.faults.append(Fault("getDeployment", "unchained"))
    assert "can't be verified" in (await adapter.advance(instance.handle, request)).message
    assert only(world).lease is None and only(world).closed is None
    await adapter.advance(instance.handle, request)
    assert only(world).lease is not None


async def test_after_a_stop_a_late_step_buys_nothing(world: AkashWorld, make: Make, new_request: NewRequest) -> None:
    request, first, second = await new_request(), make(), make()
    instance = await first.launch(request)
    await world.advance(21)
    assert await first.stop(instance.handle) is Stop.GONE
    with pytest.raises(NoCapacity):
        await second.advance(instance.handle, request)
    assert only(world).lease is None


async def test_a_bid_that_is_gone_when_it_is_taken_leads_to_another_look_not_to_an_error(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await world.advance(21)
    message = "Cannot create lease: The selected bid is no longer open. Please refresh and select an available bid."
    world.akash.plan.faults.append(Fault("createLeases", "status", status=400, message=message))
    seen = await adapter.advance(instance.handle, request)
    assert seen.state is State.STARTING and "no longer open" in seen.message
    await adapter.advance(instance.handle, request)
    assert only(world).lease is not None


async def test_an_account_that_pays_in_akt_is_capped_in_dollars(
    world: AkashWorld, make: Make, new_request: NewRequest
) -> None:
    world.akash.state.accounts[0].denom = "uakt"
    world.akash.state.akt = Decimal("0.25")
    adapter = make()
    request = await new_request()
    _, seen = await bought(adapter, request, world)
    item = only(world)
    assert item.denom == "uakt"
    assert item.highest == (Decimal("0.8") * 1_000_000 / 600 / Decimal("0.25")).quantize(
        Decimal("0.000001"), rounding="ROUND_FLOOR"
    )
    assert seen.price_per_hour is not None and abs(seen.price_per_hour - Decimal("0.4")) < Decimal("0.000001")
    assert (await adapter.check()).balance == Decimal(250) - Decimal("0.125")


async def test_an_account_that_does_not_tell_its_coin_pays_in_the_configured_one(
    world: AkashWorld, make: Make, new_request: NewRequest
) -> None:
    world.akash.state.accounts[0].denom = None
    await make().launch(await new_request())
    assert only(world).sdl["profiles"]["placement"][only(world).groups[0]]["pricing"]["http-8000"]["denom"] == "uact"


async def test_without_a_cap_the_price_is_still_bounded(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request(max_price_per_hour=None)
    _, seen = await bought(adapter, request, world)
    assert only(world).highest == Decimal("2666.666666")
    assert seen.price_per_hour is not None and seen.price_per_hour < Decimal("0.5")


async def test_a_console_that_refuses_names_is_asked_without_one(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    world.akash.state.nameless = True
    for number, requests in ((1, 2), (2, 3)):
        instance = await adapter.launch(await new_request())
        assert len(world.akash.state.deployments) == number
        assert world.akash.requests["createDeployment"] == requests, "refused once, and from then on not tried again"
        assert instance.mark is not None
        assert [found.handle for found in await adapter.find(instance.mark)] == [instance.handle]


async def test_a_cap_of_nothing_buys_nothing(world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest) -> None:
    with pytest.raises(PriceAboveCap):
        await adapter.launch(await new_request(max_price_per_hour=Decimal(0)))
    assert not world.akash.state.deployments


async def test_an_account_without_money_is_told_so(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    world.akash.state.accounts[0].credits = Decimal(10)
    with pytest.raises(InsufficientFunds):
        await adapter.launch(await new_request())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": None}, "image"),
        ({"ports": []}, "port"),
        ({"type": WorkloadType.TRAINING}, "would never end"),
        ({"working_dir": "/srv"}, "working directory"),
        ({"args": ["a\x00b"]}, r"U\+0000"),
        ({"command": ["\u2028"]}, r"U\+2028"),
    ],
)
async def test_what_akash_cannot_do_is_refused_before_anything_is_bought(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, changes: dict[str, Any], said: str
) -> None:
    request = await new_request()
    workload = request.workload.model_copy(update=changes)
    with pytest.raises(Refused, match=said):
        await adapter.launch(replace(request, workload=workload))
    assert world.akash.requests == {}


async def test_a_launch_that_cannot_see_what_was_bought_before_buys_nothing_and_says_so(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    world.akash.plan.faults.append(Fault("listDeployments", "garbage"))
    with pytest.raises(NotSent, match="Nothing was bought"):
        await adapter.launch(await new_request())
    assert not world.akash.state.deployments


async def test_launching_at_once_in_one_process_buys_once(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instances = await asyncio.gather(*(adapter.launch(request) for _ in range(5)))
    assert len({instance.handle for instance in instances}) == 1
    assert len(world.akash.state.deployments) == 1


async def test_ports_become_addresses(world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest) -> None:
    request = await new_request()
    ports = [Port(name="ssh", port=22, protocol=PortProtocol.TCP), Port(name="web", port=80)]
    workload = Workload(image="x", ports=ports, resources=Resources(cpu="500m", memory="1Gi"))
    instance, _ = await bought(adapter, replace(request, workload=workload), world)
    await world.advance(4)
    seen = await adapter.advance(instance.handle, request)
    assert seen.endpoint == "tcp://cheap.provider.invalid:30022"
    assert seen.node_address is not None and seen.node_address.startswith("akash1cheap")


async def test_a_websocket_port_is_told_as_one(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    workload = Workload(image="x", ports=[Port(name="live", port=9000, protocol=PortProtocol.WEBSOCKET)])
    instance, _ = await bought(adapter, replace(request, workload=workload), world)
    await world.advance(4)
    assert (await adapter.advance(instance.handle, request)).endpoint == world.url.replace("http", "ws")


async def test_a_reclaimed_lease_runs_on_with_a_notice_and_is_lost_when_it_is_down(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance, _ = await bought(adapter, request, world)
    await world.advance(4)
    lease = only(world).lease
    assert lease is not None
    lease.reclaimed = world.akash.state.now() + 3600
    seen = await adapter.advance(instance.handle, request)
    assert seen.state is State.RUNNING
    assert "takes its machine back" in seen.message and "decommission" in seen.message
    lease.up = False
    assert (await adapter.advance(instance.handle, request)).state is State.LOST
    assert await adapter.stop(instance.handle) is Stop.GONE


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("lease_closed_reason_unstable", State.LOST),
        ("lease_closed_reason_manifest_timeout", State.LOST),
        (None, State.LOST),
        ("lease_closed_owner", State.TERMINATED),
        ("lease_closed_reason_insufficient_funds", State.TERMINATED),
    ],
)
async def test_how_a_lease_ended_is_told(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, reason: str | None, state: State
) -> None:
    request = await new_request()
    instance, _ = await bought(adapter, request, world)
    lease = only(world).lease
    assert lease is not None
    lease.ended, lease.reason = world.akash.state.now(), reason
    seen = await adapter.advance(instance.handle, request)
    assert seen.state is state
    assert (reason or "closed") in seen.message


async def test_a_provider_that_falls_silent_later_makes_it_unknown_not_lost(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance, _ = await bought(adapter, request, world)
    await world.advance(4)
    assert (await adapter.advance(instance.handle, request)).state is State.RUNNING
    lease = only(world).lease
    assert lease is not None
    lease.seen = False
    before = world.akash.requests["createLeases"]
    await world.advance(60)
    assert (await adapter.observe(instance.handle)).state is State.UNKNOWN
    assert world.akash.requests["createLeases"] == before, "what ran isn't handed its manifest again"


async def test_a_stop_that_the_chain_does_not_take_yet_is_stopping(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    world.akash.plan.faults.append(
        Fault("closeDeployment", "status", status=400, message="Deployment escrow cannot be settled yet")
    )
    assert await adapter.stop(instance.handle) is Stop.STOPPING
    assert await adapter.stop(instance.handle) is Stop.GONE


async def test_a_node_that_lags_behind_the_creation_proves_nothing(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    world.akash.plan.faults.append(Fault("getDeployment", "stale", seconds=20))
    assert await adapter.stop(instance.handle) is Stop.STOPPING
    assert only(world).closed is None
    assert await adapter.stop(instance.handle) is Stop.GONE


async def test_a_node_that_lags_behind_the_end_proves_nothing(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    await world.advance(30)
    world.akash.plan.faults += [Fault("getDeployment", "stale", times=2, seconds=20)]
    assert await adapter.stop(instance.handle) is Stop.STOPPING
    assert only(world).closed is not None
    assert await adapter.stop(instance.handle) is Stop.GONE


@pytest.mark.parametrize(
    "said",
    [
        {"services": [1, 2], "forwarded_ports": {}, "ips": {}},
        {"services": {"http-8000": {"available": "plenty", "uris": {"a": 1}}}, "forwarded_ports": {}, "ips": {}},
        {"services": {"x" * 5000: {}}, "forwarded_ports": "none", "ips": {}},
        "fine",
    ],
    ids=str,
)
async def test_no_word_of_a_providers_keeps_us_from_stopping(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, said: Any
) -> None:
    instance, _ = await bought(adapter, await new_request(), world)
    lease = only(world).lease
    assert lease is not None
    lease.said = said
    assert (await adapter.observe(instance.handle)).state is State.UNKNOWN
    assert await adapter.stop(instance.handle) is Stop.GONE
    world.akash.violations.clear()  # of course it isn't what the description promises


@pytest.mark.parametrize(
    "uri", ["evil.example/path", "a b", "javascript:alert(1)", "user@host", "[::1]", "", "x\ny", "-x"]
)
async def test_only_a_host_name_becomes_an_address(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, uri: str
) -> None:
    instance, _ = await bought(adapter, await new_request(), world)
    lease = only(world).lease
    assert lease is not None
    service = {"name": "http-8000", "available": 1, "total": 1, "uris": [uri]}
    lease.said = {"services": {"http-8000": service}, "forwarded_ports": {}, "ips": {}}
    seen = await adapter.observe(instance.handle)
    assert (seen.state, seen.endpoint) == (State.RUNNING, None)


async def test_a_bid_that_cannot_be_read_hides_no_other(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    item = only(world)
    item.extra.append(
        Bid(Bidder("odd", 0, Decimal(1)), Decimal("0.01"), Decimal(17), item.made, {"units": 1, "model": "x" * 5000})
    )
    await world.advance(21)
    await adapter.advance(instance.handle, request)
    assert item.lease is not None and item.lease.bid.provider.name == "cheap"
