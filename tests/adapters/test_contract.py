"""The contract of `cal_adapters.contract`, as tests: one suite over every adapter in the registry. Nothing here names a provider.

Each test is one MUST, numbered as in the contract's docstring. What exists and bills is asked of the world, never of the adapter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import replace
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import pytest
from worlds.contract_world import FOREIGN, INSTALLATION, RAISES, SECRET, Fault, Power, Verb, World

from cal_adapters.contract import (
    ENDED_STATES,
    Adapter,
    ConfirmsIds,
    FollowsLogs,
    Instance,
    LaunchesInSteps,
    LaunchRequest,
    Mark,
    Observation,
    Readiness,
    State,
    Stop,
)
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    NoCapacity,
    NothingBought,
    OutcomeUnknown,
    PriceAboveCap,
)
from cal_adapters.registry import ADAPTERS, load
from cal_crds.names import new_token
from cal_crds.provider import Support

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

_DEADLINE = 60.0
T = TypeVar("T")


# --- helpers


def needs(world: World, *powers: Power) -> None:
    """Skips, with the world's own reason, what the world can't bring about."""
    for power in powers:
        if power in world.lacks:
            pytest.skip(f"{world.name} lacks {power}: {world.lacks[power]}")


def new_mark() -> Mark:
    return Mark(INSTALLATION, new_token())


async def until(world: World, check: Callable[[], Awaitable[T]]) -> T:
    """The first true value of `check`, while the provider's time passes."""
    deadline = time.monotonic() + _DEADLINE
    while not (value := await check()):
        assert time.monotonic() < deadline, f"not within {_DEADLINE} s; last value: {value!r}"
        await world.advance(1)
    return value


async def launched(world: World, adapter: Adapter, mark: Mark | None = None, **changes: Any) -> Instance:
    """An instance that runs and, as far as the adapter can tell, may answer."""
    request = await world.request(mark or new_mark(), **changes)
    instance = await adapter.launch(request)
    await until(world, lambda: _serving(adapter, instance.handle, request))
    return instance


async def _look(adapter: Adapter, handle: str, request: LaunchRequest) -> Observation:
    """As the operator looks at what has not run yet: an adapter that launches in steps is given the chance to take the next one."""
    if isinstance(adapter, LaunchesInSteps):
        return await adapter.advance(handle, request)
    return await adapter.observe(handle)


async def _serving(adapter: Adapter, handle: str, request: LaunchRequest) -> Observation | None:
    seen = await _look(adapter, handle, request)
    assert seen.state in (State.STARTING, State.RUNNING), f"{seen.state}: {seen.message}"
    return seen if seen.state is State.RUNNING and seen.readiness is not Readiness.NO else None


async def ours(world: World) -> list[Mark]:
    """What bills for us, by the world's own account."""
    return [mark for mark in await world.billing() if mark is not None and mark.installation == INSTALLATION]


async def gone(world: World, adapter: Adapter, handle: str) -> None:
    """Stops until it is proven."""

    async def proven() -> bool:
        return await adapter.stop(handle) is Stop.GONE

    await until(world, proven)


async def in_state(world: World, adapter: Adapter, handle: str, *states: State) -> Observation:
    async def seen() -> Observation | None:
        now = await adapter.observe(handle)
        return now if now.state in states else None

    return cast(Observation, await until(world, seen))


async def call(adapter: Adapter, verb: Verb, world: World, instance: Instance | None) -> object:
    """The verb, with whatever arguments it takes."""
    handle = instance.handle if instance else world.unknown_handle()
    match verb:
        case Verb.CHECK:
            return await adapter.check()
        case Verb.OFFERS:
            return await adapter.offers()
        case Verb.FIND:
            return await adapter.find(instance.mark if instance and instance.mark else new_mark())
        case Verb.LAUNCH:
            return await adapter.launch(await world.request(new_mark()))
        case Verb.OBSERVE:
            return await adapter.observe(handle)
        case Verb.STOP:
            return await adapter.stop(handle)
        case Verb.LIST_MARKED:
            return await adapter.list_marked()
        case Verb.LOGS:
            return await adapter.logs(handle, 10)


# --- the suite itself


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_adapter_has_a_world(name: str) -> None:
    assert find_spec(f"worlds.contract_{name}") is not None


async def test_a_world_states_only_lacks_that_exist_and_gives_reasons(world: World) -> None:
    assert set(world.lacks) <= set(Power)
    assert all(len(reason) > 10 for reason in world.lacks.values())


async def test_a_new_world_is_empty(world: World, adapter: Adapter) -> None:
    assert list(await world.billing()) == []
    assert list(await adapter.list_marked()) == []


# --- 2, 3: launch


async def test_a_launch_yields_one_instance_that_bears_the_mark_and_comes_to_run(
    world: World, adapter: Adapter
) -> None:
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    assert instance.mark == mark
    assert 0 < len(instance.handle) <= 512
    assert 0 < len(instance.id) <= 256
    assert await ours(world) == [mark]


async def test_a_launch_names_the_account_that_check_names(world: World, adapter: Adapter) -> None:
    account = await adapter.check()
    instance = await launched(world, adapter)
    assert instance.account == account.id


async def test_launching_twice_yields_the_first_instance(world: World, adapter: Adapter) -> None:
    needs(world, Power.REPEATED_LAUNCH)
    mark = new_mark()
    request = await world.request(mark)
    first = await adapter.launch(request)
    second = await adapter.launch(await world.request(mark))
    assert first.handle == second.handle
    await until(world, lambda: _serving(adapter, first.handle, request))
    assert await ours(world) == [mark]


async def test_launching_at_once_from_several_places_yields_one_instance(world: World, adapter: Adapter) -> None:
    needs(world, Power.CONCURRENT_LAUNCH)
    request = await world.request(new_mark())
    others = [load(world.name, ADAPTERS)(world.context()) for _ in range(3)]
    try:
        instances = await asyncio.gather(*(each.launch(request) for each in (adapter, *others) for _ in range(2)))
    finally:
        for other in others:
            await other.close()
    assert len({instance.handle for instance in instances}) == 1
    await until(world, lambda: _serving(adapter, instances[0].handle, request))
    assert await ours(world) == [request.mark]


async def test_launching_again_after_the_stop_buys_nothing_new(world: World, adapter: Adapter) -> None:
    needs(world, Power.REPEATED_LAUNCH)
    request = await world.request(new_mark())
    instance = await launched(world, adapter, request.mark)
    await gone(world, adapter, instance.handle)
    try:
        late = await adapter.launch(request)
    except AdapterError:
        late = None
    # A provider that forgets its dead may sell again: then it must be found and must be stoppable.
    for mark in await ours(world):
        assert late is not None
        assert mark == request.mark
        await gone(world, adapter, late.handle)
    assert await ours(world) == []


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
async def test_a_cancelled_launch_leaves_at_most_one_instance_which_is_found(
    world: World, adapter: Adapter, steps: int
) -> None:
    request = await world.request(new_mark())
    task = asyncio.create_task(adapter.launch(request))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _settle(world, adapter)
    found = await adapter.find(request.mark)
    again = found[0] if found else await adapter.launch(request)
    await until(world, lambda: _serving(adapter, again.handle, request))
    assert await ours(world) == [request.mark]


async def _settle(world: World, adapter: Adapter) -> None:
    """As long as an accepted launch may be missing from look-ups, in the provider's time (and a moment of ours, for its threads)."""
    await world.advance(adapter.traits.settle_seconds + adapter.traits.launch_timeout_seconds)
    await asyncio.sleep(0.2)


# --- 4: the price cap


async def test_nothing_is_bought_above_the_cap(world: World, adapter: Adapter) -> None:
    needs(world, Power.PRICES)
    request = await world.request(new_mark())
    price = Decimal(request.offer.price_per_hour)
    assert price > 0
    await _is_not_bought(world, adapter, replace(request, max_price_per_hour=price / 2))


async def test_nothing_is_bought_when_the_price_has_risen_above_the_cap(world: World, adapter: Adapter) -> None:
    needs(world, Power.PRICES)
    request = await world.request(new_mark())
    await world.reprice(request.offer.id, 10)
    await _is_not_bought(world, adapter, request)


async def _is_not_bought(world: World, adapter: Adapter, request: Any) -> None:
    """PriceAboveCap at once; or, where the price is only known later, an instance that ends without ever having run."""
    try:
        instance = await adapter.launch(request)
    except PriceAboveCap:
        pass
    else:
        seen = await until(world, lambda: _ended_without_running(adapter, instance.handle, request))
        assert seen is not None and seen.message
        await gone(world, adapter, instance.handle)
    assert await ours(world) == []


async def _ended_without_running(adapter: Adapter, handle: str, request: LaunchRequest) -> Observation | None:
    try:
        seen = await _look(adapter, handle, request)
    except (NoCapacity, PriceAboveCap):
        seen = await adapter.observe(handle)
        assert seen.state is State.FAILED
    assert seen.state is not State.RUNNING, "it runs above its cap"
    return seen if seen.state in ENDED_STATES else None


async def test_the_final_price_is_told(world: World, adapter: Adapter) -> None:
    needs(world, Power.PRICES)
    instance = await launched(world, adapter)
    seen = await adapter.observe(instance.handle)
    request = await world.request(new_mark())
    told = instance.price_per_hour if seen.price_per_hour is None else seen.price_per_hour
    assert told is not None
    assert request.max_price_per_hour is not None
    assert 0 < told <= request.max_price_per_hour


# --- 5: look-ups


async def test_find_knows_the_living_and_only_them(world: World, adapter: Adapter) -> None:
    mark = new_mark()
    assert list(await adapter.find(mark)) == []
    instance = await launched(world, adapter, mark)
    await _settle(world, adapter)
    assert [found.handle for found in await adapter.find(mark)] == [instance.handle]
    assert list(await adapter.find(new_mark())) == []
    await gone(world, adapter, instance.handle)
    assert list(await adapter.find(mark)) == []


async def test_list_marked_reads_to_the_very_end(world: World, adapter: Adapter) -> None:
    marks = [new_mark() for _ in range(world.crowd)]
    for mark in marks:
        await adapter.launch(await world.request(mark))
    await _settle(world, adapter)
    listed = await adapter.list_marked()
    assert sorted(str(found.mark) for found in listed) == sorted(map(str, marks))
    for mark in (marks[0], marks[-1]):
        assert [found.mark for found in await adapter.find(mark)] == [mark]


async def test_list_marked_shows_only_our_own(world: World, adapter: Adapter) -> None:
    await world.add_foreign()
    mark = new_mark()
    await launched(world, adapter, mark)
    await _settle(world, adapter)
    assert [found.mark for found in await adapter.list_marked()] == [mark]
    assert len(list(await world.billing())) >= 2


async def test_another_installation_sees_its_own_only(world: World, adapter: Adapter) -> None:
    mark = new_mark()
    await launched(world, adapter, mark)
    other = load(world.name, ADAPTERS)(world.context(installation=FOREIGN))
    try:
        assert mark not in [found.mark for found in await other.list_marked()]
    finally:
        await other.close()


async def test_look_ups_raise_rather_than_guess(world: World, adapter: Adapter) -> None:
    for verb in (Verb.FIND, Verb.LIST_MARKED):
        for fault in sorted(world.faults.get(verb, ())):
            await world.fail_next(verb, fault)
            with pytest.raises(AdapterError):
                await call(adapter, verb, world, None)


# --- 6: observe


async def test_observe_tells_endpoint_and_readiness_of_what_runs(world: World, adapter: Adapter) -> None:
    instance = await launched(world, adapter)
    seen = await adapter.observe(instance.handle)
    assert seen.state is State.RUNNING
    assert seen.readiness in (Readiness.YES, Readiness.PROBE)
    assert seen.endpoint
    assert "://" in seen.endpoint


@pytest.mark.parametrize(("exit_code", "state"), [(0, State.SUCCEEDED), (3, State.FAILED)])
async def test_an_instance_that_ends_by_itself_says_how(
    world: World, adapter: Adapter, exit_code: int, state: State
) -> None:
    needs(world, Power.EXIT_CODES)
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await world.end(mark, exit_code)
    seen = await in_state(world, adapter, instance.handle, *ENDED_STATES)
    assert seen.state is state
    assert seen.exit_code in (exit_code, None)
    assert seen.readiness is not Readiness.YES
    await gone(world, adapter, instance.handle)
    assert await ours(world) == []


async def test_an_instance_whose_machine_is_gone_is_lost(world: World, adapter: Adapter) -> None:
    needs(world, Power.LOSS)
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await world.lose(mark)
    seen = await in_state(world, adapter, instance.handle, *ENDED_STATES)
    assert seen.state in (State.LOST, State.TERMINATED)
    await gone(world, adapter, instance.handle)
    assert await ours(world) == []


async def test_an_unknown_word_is_unknown_and_is_told(world: World, adapter: Adapter) -> None:
    needs(world, Power.STRANGE_STATES)
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await world.strange_state(mark)
    seen = await in_state(world, adapter, instance.handle, State.UNKNOWN)
    assert seen.message


# --- 7: what was never there


async def test_observe_of_an_unknown_handle_is_not_found(world: World, adapter: Adapter) -> None:
    with pytest.raises(InstanceNotFound):
        await adapter.observe(world.unknown_handle())


async def test_stop_of_an_unknown_handle_is_gone(world: World, adapter: Adapter) -> None:
    assert await adapter.stop(world.unknown_handle()) is Stop.GONE


@pytest.mark.parametrize("verb", [Verb.OBSERVE, Verb.STOP, Verb.FIND, Verb.LIST_MARKED])
async def test_refused_credentials_never_look_like_absence(world: World, adapter: Adapter, verb: Verb) -> None:
    needs(world, Power.CREDENTIALS)
    instance = await launched(world, adapter)
    await world.revoke_credentials()
    with pytest.raises(CredentialsRefused):
        await call(adapter, verb, world, instance)
    with pytest.raises(CredentialsRefused):
        await call(adapter, verb, world, None)
    with pytest.raises(CredentialsRefused):
        await adapter.check()


@pytest.mark.parametrize("verb", [Verb.OBSERVE, Verb.STOP])
async def test_a_fault_is_never_taken_for_absence(world: World, adapter: Adapter, verb: Verb) -> None:
    for fault in sorted(world.faults.get(verb, ())):
        if fault is Fault.ANSWER_LOST:
            continue
        await world.fail_next(verb, fault)
        with pytest.raises(AdapterError) as raised:
            await call(adapter, verb, world, None)
        assert not isinstance(raised.value, InstanceNotFound), fault


@pytest.mark.parametrize("handle", ["", "x", "../../..", "a/b?c=d#e", "nul\0", "line\nbreak", "ü" * 300, "9" * 512])
async def test_a_handle_that_can_not_be_is_an_error_of_the_contract(
    world: World, adapter: Adapter, handle: str
) -> None:
    kept = await launched(world, adapter)
    with pytest.raises(AdapterError):
        await adapter.observe(handle)
    with suppress(AdapterError):
        await adapter.stop(handle)
    assert await ours(world) == [kept.mark]


# --- 8: stop


async def test_stop_ends_the_instance_and_says_gone_only_when_nothing_bills(world: World, adapter: Adapter) -> None:
    mark = new_mark()
    instance = await launched(world, adapter, mark)

    async def proven() -> bool:
        answer = await adapter.stop(instance.handle)
        assert answer is Stop.STOPPING or await ours(world) == []
        return answer is Stop.GONE

    await until(world, proven)


async def test_stop_of_what_has_just_been_bought(world: World, adapter: Adapter) -> None:
    instance = await adapter.launch(await world.request(new_mark()))
    await gone(world, adapter, instance.handle)
    await world.advance(30)
    assert await ours(world) == []


async def test_stopping_again_is_gone_again(world: World, adapter: Adapter) -> None:
    instance = await launched(world, adapter)
    await gone(world, adapter, instance.handle)
    assert await adapter.stop(instance.handle) is Stop.GONE


async def test_what_is_gone_is_observed_as_ended_or_not_found(world: World, adapter: Adapter) -> None:
    instance = await launched(world, adapter)
    await gone(world, adapter, instance.handle)
    try:
        seen = await adapter.observe(instance.handle)
    except InstanceNotFound:
        return
    assert seen.state in ENDED_STATES


async def test_stop_touches_nothing_else(world: World, adapter: Adapter) -> None:
    await world.add_foreign()
    before = len(list(await world.billing()))
    kept, stopped = new_mark(), new_mark()
    await launched(world, adapter, kept)
    instance = await launched(world, adapter, stopped)
    await gone(world, adapter, instance.handle)
    assert await ours(world) == [kept]
    assert len(list(await world.billing())) == before + 1


async def test_a_lost_answer_to_a_stop_is_no_proof(world: World, adapter: Adapter) -> None:
    if Fault.ANSWER_LOST not in world.faults.get(Verb.STOP, ()):
        pytest.skip(f"{world.name} can't lose the answer to a stop")
    instance = await launched(world, adapter)
    await world.fail_next(Verb.STOP, Fault.ANSWER_LOST)
    with pytest.raises(OutcomeUnknown):
        await adapter.stop(instance.handle)
    await gone(world, adapter, instance.handle)
    assert await ours(world) == []


# --- 9: errors


@pytest.mark.parametrize("verb", list(Verb))
async def test_faults_arrive_as_their_types(world: World, adapter: Adapter, verb: Verb) -> None:
    instance = await launched(world, adapter)
    before = sorted(map(str, await world.billing()))
    for fault in sorted(world.faults.get(verb, ())):
        if fault is Fault.ANSWER_LOST:
            continue
        await world.fail_next(verb, fault)
        with pytest.raises(AdapterError) as raised:
            await call(adapter, verb, world, instance)
        assert isinstance(raised.value, RAISES[fault]), f"{fault}: {raised.value!r}"
        assert raised.value.message, fault
        if verb is Verb.LAUNCH and isinstance(raised.value, NothingBought):
            assert sorted(map(str, await world.billing())) == before, f"{fault}: something was bought"
    await call(adapter, verb, world, instance)


async def test_a_lost_answer_on_launch_leaves_nothing_orphaned(world: World, adapter: Adapter) -> None:
    if Fault.ANSWER_LOST not in world.faults.get(Verb.LAUNCH, ()):
        pytest.skip(f"{world.name} can't lose the answer to a launch")
    request = await world.request(new_mark())
    await world.fail_next(Verb.LAUNCH, Fault.ANSWER_LOST)
    with pytest.raises(OutcomeUnknown):
        await adapter.launch(request)
    await _settle(world, adapter)
    found = await adapter.find(request.mark)
    assert len(found) == 1
    assert [listed.handle for listed in await adapter.list_marked()] == [found[0].handle]
    if Power.REPEATED_LAUNCH not in world.lacks:
        assert (await adapter.launch(request)).handle == found[0].handle
    assert len([mark for mark in await ours(world) if mark == request.mark]) == 1
    await gone(world, adapter, found[0].handle)
    assert await ours(world) == []


# --- 10: secrets


async def test_no_secret_in_a_message_a_log_line_or_a_repr(
    world: World, adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    context = world.context()
    hidden = {SECRET, *(context.credentials.data.values() if context.credentials else ())}
    said: list[object] = [context, adapter, await world.request(new_mark())]
    with caplog.at_level(logging.DEBUG):
        instance = await launched(world, adapter)
        said += [instance, await adapter.observe(instance.handle), await adapter.list_marked()]
        for fault in sorted(world.faults.get(Verb.LAUNCH, ())):
            await world.fail_next(Verb.LAUNCH, fault)
            with pytest.raises(AdapterError) as raised:
                await adapter.launch(await world.request(new_mark()))
            said += [raised.value, raised.value.__cause__, raised.value.message]
    text = caplog.text + "".join(repr(each) + str(each) for each in said)
    assert not [secret for secret in hidden if secret in text]


# --- 11: state


async def test_a_restart_loses_nothing(world: World, adapter: Adapter) -> None:
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await adapter.close()
    successor = load(world.name, ADAPTERS)(world.context())
    try:
        assert (await successor.observe(instance.handle)).state is State.RUNNING
        assert [found.handle for found in await successor.find(mark)] == [instance.handle]
        await gone(world, successor, instance.handle)
    finally:
        await successor.close()
    assert await ours(world) == []


async def test_closing_twice_is_fine_and_touches_no_instance(world: World, adapter: Adapter) -> None:
    instance = await launched(world, adapter)
    await adapter.close()
    await adapter.close()
    assert await ours(world) == [instance.mark]


# --- 12: offers and traits


async def test_offers_are_distinct_and_cheapest_first(world: World, adapter: Adapter) -> None:
    offers = await adapter.offers()
    assert 0 < len(offers) <= 500
    assert len({offer.id for offer in offers}) == len(offers)
    prices = [Decimal(offer.price_per_hour) for offer in offers]
    assert prices == sorted(prices)
    assert all((offer.gpu_type is None) <= (offer.gpu_count == 0) for offer in offers)


async def test_offers_without_credentials_are_told_or_refused(world: World) -> None:
    adapter = load(world.name, ADAPTERS)(world.context(credentials=False))
    try:
        assert await adapter.offers()
    except CredentialsRefused:
        assert adapter.traits.needs_credentials
    finally:
        await adapter.close()


async def test_nothing_is_bought_without_credentials_where_they_are_needed(world: World) -> None:
    adapter = load(world.name, ADAPTERS)(world.context(credentials=False))
    try:
        if adapter.traits.needs_credentials:
            with pytest.raises(CredentialsRefused):
                await adapter.launch(await world.request(new_mark()))
        assert await ours(world) == []
    finally:
        await adapter.close()


async def test_capabilities_say_what_the_adapter_can(world: World, adapter: Adapter) -> None:
    can_follow = Support.LOG_STREAMING in adapter.traits.capabilities.supports
    assert can_follow == isinstance(adapter, FollowsLogs)
    assert adapter.traits.capabilities.adapter_type in ("depin", "on_prem")


# --- logs


async def test_logs_are_the_last_lines_in_order(world: World, adapter: Adapter) -> None:
    needs(world, Power.LOGS)
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    for line in ("one", "two", "three"):
        await world.say(mark, line)
    await until(world, lambda: _ends_with(adapter, instance.handle, ["one", "two", "three"]))
    assert list(await adapter.logs(instance.handle, 2)) == ["two", "three"]
    assert list(await adapter.logs(instance.handle, 0)) == []


async def _ends_with(adapter: Adapter, handle: str, lines: list[str]) -> bool:
    return list(await adapter.logs(handle, len(lines))) == lines


async def test_logs_of_an_ended_instance_can_still_be_read(world: World, adapter: Adapter) -> None:
    needs(world, Power.LOGS, Power.EXIT_CODES, Power.LOGS_AFTER_END)
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await world.say(mark, "last words")
    await world.end(mark, 3)
    await in_state(world, adapter, instance.handle, State.FAILED)
    assert "last words" in await adapter.logs(instance.handle, 100)


async def test_logs_of_an_unknown_handle_are_not_found(world: World, adapter: Adapter) -> None:
    needs(world, Power.LOGS)
    with pytest.raises(InstanceNotFound):
        await adapter.logs(world.unknown_handle(), 10)


async def test_followed_logs_bring_history_then_news_and_end_with_the_instance(world: World, adapter: Adapter) -> None:
    needs(world, Power.LOGS, Power.EXIT_CODES)
    if not isinstance(adapter, FollowsLogs):
        pytest.skip(f"{world.name} doesn't follow logs")
    mark = new_mark()
    instance = await launched(world, adapter, mark)
    await world.say(mark, "before")
    await until(world, lambda: _ends_with(adapter, instance.handle, ["before"]))
    async with aclosing(cast(Any, adapter.follow(instance.handle, 1))) as lines:
        assert await _next(lines) == "before"
        await world.say(mark, "after")
        assert await _next(lines) == "after"
        await world.end(mark, 0)
        ticking = asyncio.create_task(_tick(world))
        try:
            await asyncio.wait_for(_drain(lines), _DEADLINE)
        finally:
            ticking.cancel()


async def _next(lines: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(lines), _DEADLINE)


async def _drain(lines: AsyncIterator[str]) -> None:
    async for line in lines:
        assert line not in ("before", "after"), "a line came twice"


async def _tick(world: World) -> None:
    while True:
        await world.advance(1)
        await asyncio.sleep(0.1)


# --- ids


async def test_a_claimed_id_is_confirmed_only_if_it_belongs_to_the_instance(world: World, adapter: Adapter) -> None:
    if not isinstance(adapter, ConfirmsIds):
        pytest.skip(f"{world.name}'s instances keep their id")
    instance = await launched(world, adapter)
    other = await launched(world, adapter)
    seen: Collection[str | None] = {instance.id, (await adapter.observe(instance.handle)).id}
    assert [await adapter.confirm(instance.handle, claimed) for claimed in seen if claimed] == [
        True for claimed in seen if claimed
    ]
    assert not await adapter.confirm(instance.handle, other.id)
    assert not await adapter.confirm(instance.handle, "no-such-id")
