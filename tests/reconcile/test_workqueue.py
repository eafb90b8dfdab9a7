"""The keyed work queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from rig.waiting import until

from cal_operator.store import Key
from cal_operator.workqueue import WorkQueue

pytestmark = pytest.mark.anyio

A, B = Key("ComputeNode", "a"), Key("ComputeNode", "b")


async def reached(condition: Callable[[], bool]) -> None:
    async def check() -> bool:
        return condition()

    await until(check)


async def drive(queue: WorkQueue, done: Callable[[], bool]) -> None:
    """Run the queue until the condition holds."""
    running = asyncio.create_task(queue.run())
    await reached(done)
    await queue.drain(timeout=1)
    await running


def counting(
    seen: Counter[Key], work: Callable[[Key], Awaitable[None]] | None = None
) -> Callable[[Key], Awaitable[float | None]]:
    async def reconcile(key: Key) -> float | None:
        seen[key] += 1
        if work is not None:
            await work(key)
        return None

    return reconcile


async def test_wakes_of_one_key_are_merged_until_it_runs() -> None:
    seen: Counter[Key] = Counter()
    queue = WorkQueue(counting(seen))
    for _ in range(5):
        queue.wake(A)
    queue.wake(B)
    await drive(queue, lambda: seen[A] > 0 and seen[B] > 0 and len(queue) == 0)
    assert seen == Counter({A: 1, B: 1})


async def test_one_key_is_never_worked_on_twice_at_once_and_a_wake_meanwhile_runs_it_once_more() -> None:
    seen: Counter[Key] = Counter()
    inside, most = 0, 0
    go_on = asyncio.Event()

    async def work(_: Key) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await go_on.wait()
        inside -= 1

    queue = WorkQueue(counting(seen, work))
    queue.wake(A)
    running = asyncio.create_task(queue.run())
    await reached(lambda: inside > 0)
    for _ in range(3):
        queue.wake(A)
    await asyncio.sleep(0)
    go_on.set()
    await reached(lambda: seen[A] == 2 and not inside)
    await queue.drain(timeout=1)
    await running
    assert (seen[A], most) == (2, 1)


async def test_a_key_runs_again_after_the_time_it_asked_for_or_earlier_when_woken() -> None:
    runs = 0

    async def work(_: Key) -> float | None:
        nonlocal runs
        runs += 1
        return 3600.0

    queue = WorkQueue(work)
    queue.wake(A)
    running = asyncio.create_task(queue.run())
    await reached(lambda: runs == 1)
    queue.wake(A, 0.01)
    await reached(lambda: runs == 2)
    await queue.drain(timeout=1)
    await running


async def test_an_error_is_tried_again_and_stops_nobody_else() -> None:
    seen: Counter[Key] = Counter()

    async def work(key: Key) -> float | None:
        seen[key] += 1
        if key == A and seen[A] < 3:
            raise ValueError("odd object")
        return None

    queue = WorkQueue(work, retry_seconds=0.01)
    queue.wake(A)
    queue.wake(B)
    await drive(queue, lambda: seen[A] == 3 and seen[B] == 1)


async def test_a_lane_that_hangs_holds_up_only_itself() -> None:
    seen: Counter[Key] = Counter()
    never = asyncio.Event()

    async def work(key: Key) -> None:
        if key.kind == "slow":
            await never.wait()

    queue = WorkQueue(counting(seen, work), lane_size=2)
    for number in range(10):
        queue.wake(Key("slow", str(number)))
        queue.wake(Key("fast", str(number)))
    await drive(queue, lambda: sum(seen[Key("fast", str(number))] for number in range(10)) == 10)
    assert sum(count for key, count in seen.items() if key.kind == "slow") == 2


async def test_a_lane_that_feeds_another_begins_little_ahead_of_it_and_all_of_it_in_the_end() -> None:
    seen: Counter[Key] = Counter()
    begun_ahead: list[int] = []

    async def work(key: Key) -> None:
        if key.kind == "new":
            begun_ahead.append(len(begun_ahead) + 1 - sum(seen[made] for made in seen if made.kind == "fed"))
            queue.wake(Key("fed", key.uid))
        await asyncio.sleep(0)

    queue = WorkQueue(counting(seen, work), feeds=lambda lane: "fed" if lane == "new" else None, ahead=3)
    keys = [Key("new", str(number)) for number in range(40)]
    for key in keys:
        queue.wake(key)
    await drive(queue, lambda: sum(seen.values()) == 80 and len(queue) == 0)
    # A key that is made and not lined up yet may let one more begin.
    assert max(begun_ahead) <= 2 * 3, begun_ahead


async def test_a_fed_lane_that_hangs_lets_others_begin() -> None:
    seen: Counter[Key] = Counter()
    never = asyncio.Event()

    async def work(key: Key) -> None:
        if key.kind == "fed slow":
            await never.wait()
        if key.kind.startswith("new"):
            queue.wake(Key(key.kind.replace("new", "fed"), key.uid))

    queue = WorkQueue(
        counting(seen, work), feeds=lambda lane: lane.replace("new", "fed") if "new" in lane else None, ahead=2
    )
    for number in range(10):
        queue.wake(Key("new slow", str(number)))
        queue.wake(Key("new fast", str(number)))
    await drive(queue, lambda: sum(seen[Key("fed fast", str(number))] for number in range(10)) == 10)
    assert sum(count for key, count in seen.items() if key.kind == "new slow") <= 4


async def test_a_fed_lane_that_never_comes_to_its_end_does_not_hold_up_new_ones_for_ever() -> None:
    """A provider that stops nothing: its nodes are asked about again and again."""
    seen: Counter[Key] = Counter()

    async def work(key: Key) -> float | None:
        seen[key] += 1
        await asyncio.sleep(0)
        return 0.0 if key.kind == "fed" else None

    feeds = {"new": "fed"}
    queue = WorkQueue(work, feeds=feeds.get, ahead=2, lane_size=2, patience_seconds=0.05)
    for number in range(6):
        queue.wake(Key("fed", str(number)))
    for number in range(2):
        queue.wake(Key("new", str(number)))
    await drive(queue, lambda: sum(count for key, count in seen.items() if key.kind == "new") == 2)


async def test_draining_cancels_what_does_not_end_in_time() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work(_: Key) -> float | None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return None

    queue = WorkQueue(work)
    queue.wake(A)
    running = asyncio.create_task(queue.run())
    await begun.wait()
    await queue.drain(timeout=0.01)
    await running
    assert cancelled.is_set() and len(queue) == 0
