"""The gate in front of a provider account: a circuit instead of a retry storm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rig.clock import HandClock

from cal_adapters.contract import Traits
from cal_adapters.errors import AdapterError, CredentialsRefused, NoCapacity, NotSent, OutcomeUnknown, RateLimited
from cal_crds.provider import Capabilities
from cal_operator.gate import CircuitOpen, Gate

pytestmark = pytest.mark.anyio


def gate(clock: HandClock, **traits: float) -> Gate:
    values = {"calls_per_second": 1e6, "concurrency": 8, **traits}
    return Gate("market", Traits(capabilities=Capabilities(adapter_type="depin"), **values), clock)  # type: ignore[arg-type]


def failing(error: AdapterError) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        raise error

    return call


async def answering() -> str:
    return "fine"


async def fail(subject: Gate, error: AdapterError) -> None:
    with pytest.raises(type(error)):
        await subject.call("observe", failing(error))


async def test_answers_and_errors_pass() -> None:
    subject = gate(HandClock())
    assert await subject.call("observe", answering) == "fine"
    await fail(subject, NoCapacity("full"))
    assert subject.closed_for() == 0


@pytest.mark.parametrize(
    ("errors", "closes"),
    [
        ([NoCapacity("full")] * 20, False),
        ([OutcomeUnknown("502")] * 4, False),
        ([OutcomeUnknown("502")] * 5, True),
        ([OutcomeUnknown("502")] * 4 + [NoCapacity("it answered")] + [OutcomeUnknown("502")], False),
        ([NotSent("refused")], True),
        ([CredentialsRefused("401")], True),
        ([RateLimited("429", retry_after=7)], True),
        ([RateLimited("429")], False),
    ],
    ids=[
        "refusals",
        "four faults",
        "five faults",
        "answered in between",
        "not reached",
        "bad key",
        "told when",
        "not told when",
    ],
)
async def test_what_closes_the_circuit(errors: list[AdapterError], closes: bool) -> None:
    subject = gate(HandClock())
    for error in errors:
        await fail(subject, error)
    assert (subject.closed_for() > 0) is closes


async def test_nothing_is_sent_while_it_is_closed_and_one_call_tries_it_after() -> None:
    clock = HandClock()
    subject = gate(clock)
    await fail(subject, RateLimited("429", retry_after=7))
    sent = 0

    async def call() -> str:
        nonlocal sent
        sent += 1
        return "fine"

    with pytest.raises(CircuitOpen) as refused:
        await subject.call("launch", call)
    assert sent == 0 and refused.value.retry_after == 7
    clock.move(7.1)
    assert await subject.call("launch", call) == "fine"


async def test_the_pause_grows_while_it_keeps_failing() -> None:
    clock = HandClock()
    subject = gate(clock)
    pauses = []
    for _ in range(12):
        clock.move(subject.closed_for() + 0.1)
        await fail(subject, OutcomeUnknown("502"))
        pauses.append(subject.closed_for())
    assert pauses[4] < 3 < pauses[8] and max(pauses) <= 150


async def test_a_call_without_an_answer_ends_as_outcome_unknown() -> None:
    subject = gate(HandClock())

    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(OutcomeUnknown):
        await subject.call("launch", hang, bound=lambda: 0.01)


async def test_no_more_calls_at_once_than_the_provider_likes() -> None:
    subject = gate(HandClock(), concurrency=3)
    inside, most = 0, 0

    async def call() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(10):
            await asyncio.sleep(0)
        inside -= 1

    await asyncio.gather(*(subject.call("observe", call) for _ in range(20)))
    assert most == 3


async def test_who_stands_in_line_when_it_closes_sends_nothing() -> None:
    subject, sent = gate(HandClock(), concurrency=2), 0

    async def refused() -> str:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0)
        raise CredentialsRefused("revoked")

    ends = await asyncio.gather(*(subject.call("stop", refused) for _ in range(50)), return_exceptions=True)
    assert {type(end) for end in ends} == {CredentialsRefused, CircuitOpen}
    assert sent <= 2


async def test_a_call_whose_time_is_over_before_its_turn_is_never_sent() -> None:
    subject = gate(HandClock())
    with pytest.raises(NotSent):
        await subject.call("launch", answering, bound=lambda: -1.0)
    assert subject.closed_for() == 0, "that was no fault of the provider's"


@pytest.mark.parametrize("told", [86400.0, -5.0])
async def test_a_pause_that_the_provider_asks_for_has_bounds(told: float) -> None:
    """Stops go through the gate too: a header mustn't keep what bills from being ended for a day."""
    subject = gate(HandClock())
    error = RateLimited("429", retry_after=told)
    await fail(subject, error)
    assert subject.closed_for() <= 600
    assert error.retry_after is None or 0 < error.retry_after <= 600
