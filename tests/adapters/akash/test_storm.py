"""A storm: everything fails at random while purchases are made, go on in new processes, and are ended. Nothing is bought twice or left over.

The buyer here follows the operator's rules as far as the adapter depends on them: look before buying, and after an unknown outcome look
again until the provider's lists must have caught up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter
from cal_adapters.contract import ENDED_STATES, LaunchRequest, State, Stop
from cal_adapters.errors import AdapterError, NoCapacity, NothingBought

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(170)]

Make = Callable[..., AkashAdapter]
_ROUNDS = 400


class Buyer:
    """One node: at most one instance of it may ever run at a time, and none when it is done."""

    def __init__(self, make: Make, world: AkashWorld, request: LaunchRequest, dice: random.Random) -> None:
        self._make, self._world, self._request, self._dice = make, world, request, dice
        self._adapter = make()
        self.handle: str | None = None
        self.doubtful = False
        self.state = State.STARTING

    async def run(self) -> None:
        """Until it runs."""
        for _ in range(_ROUNDS):
            if self._dice.random() < 0.15:
                self._adapter = self._make()  # another process takes over; this one has forgotten everything
            try:
                if self.handle is None:
                    await self._buy()
                else:
                    self.state = (await self._adapter.advance(self.handle, self._request)).state
                    assert self.state not in ENDED_STATES
            except NoCapacity as error:
                raise AssertionError(f"there were bids: {error.message}") from error
            except AdapterError:
                pass
            if self.state is State.RUNNING:
                return
            await self._world.advance(2)
        raise AssertionError("it never ran")

    async def _buy(self) -> None:
        if self.doubtful:
            traits = self._adapter.traits
            await self._world.advance(traits.settle_seconds + traits.launch_timeout_seconds)
        found = await self._adapter.find(self._request.mark)
        if found:
            self.handle, self.doubtful = found[0].handle, False
            return
        self.doubtful = True
        try:
            self.handle = (await self._adapter.launch(self._request)).handle
        except NothingBought:
            self.doubtful = False
            raise

    async def end(self) -> None:
        """Until it is proven gone."""
        assert self.handle is not None
        for _ in range(_ROUNDS):
            try:
                if await self._adapter.stop(self.handle) is Stop.GONE:
                    return
            except AdapterError:
                pass
            await self._world.advance(2)
        raise AssertionError("it never ended")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_in_a_storm_nothing_is_bought_twice_and_nothing_is_left(
    world: AkashWorld, make: Make, new_request: Callable[..., Any], seed: int
) -> None:
    dice = random.Random(seed)
    buyers = [Buyer(make, world, await new_request(), dice) for _ in range(4)]
    world.akash.plan.roll(0.3, seed)
    await asyncio.gather(*(buyer.run() for buyer in buyers))
    bought = Counter(item.groups[0] for item in world.akash.state.deployments.values())
    assert set(bought.values()) == {1} and len(bought) == len(buyers)
    # Which bid it is depends on which were seen; none is above the cap.
    taken = [item.lease.bid.usd for item in world.akash.state.deployments.values() if item.lease is not None]
    assert len(taken) == len(buyers) and max(taken) <= Decimal("0.8")
    await asyncio.gather(*(buyer.end() for buyer in buyers))
    assert list(await world.billing()) == []
    assert sum(world.akash.plan.shown.values()) > 20, "it was no storm"
