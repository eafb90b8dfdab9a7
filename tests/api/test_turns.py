"""Turns: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from cal_api.errors import NotReady
from cal_api.turns import Turns

pytestmark = pytest.mark.anyio


async def test_nobody_waits_for_ever_behind_one_that_hangs() -> None:
    turns = Turns(patience=0.05)
    async with turns.of("a"):
        with pytest.raises(NotReady):
            async with turns.of("a"):
                pytest.fail("two at a time")
        # Another thing is not held up.
        async with turns.of("b"):
            pass
    async with turns.of("a"):
        pass


async def test_turns_are_taken_in_order_and_given_back_after_errors() -> None:
    turns, taken = Turns(), list[int]()

    async def one(number: int) -> None:
        async with turns.of("a"):
            taken.append(number)
            await asyncio.sleep(0)
            raise KeyError(number)

    results = await asyncio.gather(*[one(number) for number in range(5)], return_exceptions=True)
    assert taken == list(range(5)) and all(isinstance(result, KeyError) for result in results)
