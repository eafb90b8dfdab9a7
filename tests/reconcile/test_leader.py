"""The Lease, on the real API server."""

from __future__ import annotations

import asyncio

import pytest
from rig.clock import HandClock
from rig.desk import Desk

from cal_operator.clock import SystemClock
from cal_operator.leader import Leader, LeadershipLost

pytestmark = pytest.mark.anyio


def candidate(desk: Desk, identity: str, clock: HandClock | None = None, duration: float = 15.0) -> Leader:
    return Leader(desk.cluster, clock or SystemClock(), namespace=desk.namespace, identity=identity, duration=duration)


async def test_a_free_lease_is_taken_and_another_candidate_waits(bare_desk: Desk) -> None:
    first, second = candidate(bare_desk, "one"), candidate(bare_desk, "two")
    await first.acquire()
    assert first.term_start is not None and first.remaining() > 0
    assert not await second._try() and second.remaining() <= 0


async def test_the_same_identity_takes_its_lease_at_once(bare_desk: Desk) -> None:
    await candidate(bare_desk, "one", duration=300.0).acquire()
    async with asyncio.timeout(60):
        await candidate(bare_desk, "one", duration=300.0).acquire()


async def test_a_released_lease_is_taken_at_once(bare_desk: Desk) -> None:
    first, second = candidate(bare_desk, "one", duration=300.0), candidate(bare_desk, "two", duration=300.0)
    await first.acquire()
    await first.release()
    assert first.remaining() <= 0
    async with asyncio.timeout(60):
        await second.acquire()


async def test_a_lease_that_is_not_renewed_is_taken_after_its_whole_time_by_our_own_clock(bare_desk: Desk) -> None:
    clock = HandClock()
    first, second = candidate(bare_desk, "one"), candidate(bare_desk, "two", clock)
    await first.acquire()
    assert not await second._try()
    clock.move(14)
    assert not await second._try()
    clock.move(2)
    assert await second._try()


async def test_a_renewal_seen_starts_the_wait_anew(bare_desk: Desk) -> None:
    clock = HandClock()
    first, second = candidate(bare_desk, "one"), candidate(bare_desk, "two", clock)
    await first.acquire()
    assert not await second._try()
    clock.move(14)
    await first.acquire()
    assert not await second._try()
    clock.move(14)
    assert not await second._try()


async def test_a_leader_whose_lease_was_taken_is_told(bare_desk: Desk) -> None:
    clock = HandClock()
    first, second = candidate(bare_desk, "one", duration=1.0), candidate(bare_desk, "two", clock, duration=1.0)
    await first.acquire()
    await second._try()
    clock.move(2)
    assert await second._try()
    async with asyncio.timeout(60):
        with pytest.raises(LeadershipLost):
            await first.keep()


async def test_two_processes_of_one_identity_do_not_both_lead(bare_desk: Desk) -> None:
    """Two Pods on their host's network, two shells on one machine: both are called by the host's name."""
    first, second = candidate(bare_desk, "one", duration=1.0), candidate(bare_desk, "one", duration=1.0)
    await first.acquire()
    assert await first._try(), "its own renewal is no other's"
    await second.acquire()
    async with asyncio.timeout(60):
        with pytest.raises(LeadershipLost, match="taken by another"):
            await first.keep()
    assert first.remaining() <= 0
    assert await second._try()
