"""A life of many instances while requests are cut, lost, garbled, refused and answered from the past: one instance each, none left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from cal_adapters.contract import ENDED_STATES, Mark, State, Stop
from cal_adapters.errors import AdapterError, InstanceNotFound, NothingBought, OutcomeUnknown

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(170)]
T = TypeVar("T")
#: Percent of all requests that meet each; about a third of them altogether.
FAULTS: dict[str, dict[str, Any]] = {
    "cut": {},
    "cut-after": {},
    "garbage": {},
    "html": {"status": 502},
    "status": {"status": 500, "body": {"error": "Ops something went wrong, please again."}},
    "rate": {"retry_after": 1},
    "stale": {"seconds": 5},
}
PERCENT = 5


class Keeper:
    """What an operator does with one mark, in its order: look, launch, record, advance, stop; it goes on after every error."""

    def __init__(self, rig: Any, mark: Mark) -> None:
        self.rig, self.mark, self.errors = rig, mark, 0

    async def live(self) -> None:
        request = await self.rig.world.request(self.mark)
        handle = await self._obtain(request)
        await self._again(lambda: self._runs(handle, request))
        await self._again(lambda: self._gone(handle))

    async def _again(self, act: Callable[[], Awaitable[T]]) -> T:
        """Until it gives a true value; time passes between two tries."""
        while True:
            try:
                value = await act()
                if value:
                    return value
            except InstanceNotFound:
                raise
            except AdapterError:
                self.errors += 1
            await self.rig.advance(1)

    async def _obtain(self, request: Any) -> str:
        while True:
            try:
                return str((await self.rig.adapter.launch(request)).handle)
            except NothingBought:
                self.errors += 1
            except OutcomeUnknown:
                self.errors += 1
                found = await self._look_until_settled()
                if found:
                    return found

    async def _look_until_settled(self) -> str | None:
        traits = self.rig.adapter.traits
        for _ in range(int(traits.settle_seconds + traits.launch_timeout_seconds) // 5 + 1):
            try:
                found = await self.rig.adapter.find(self.mark)
                if found:
                    return str(found[0].handle)
            except AdapterError:
                self.errors += 1
            await self.rig.advance(5)
        return None

    async def _runs(self, handle: str, request: Any) -> bool:
        seen = await self.rig.adapter.advance(handle, request)
        assert seen.state not in ENDED_STATES, seen
        return bool(seen.state is State.RUNNING)

    async def _gone(self, handle: str) -> bool:
        return bool(await self.rig.adapter.stop(handle) is Stop.GONE)


async def test_nothing_is_bought_twice_and_nothing_is_left(rig: Any, make_mark: Any) -> None:
    for kind, more in FAULTS.items():
        await rig.fault("^(GET|POST|PATCH) /api/", kind, times=0, percent=PERCENT, **more)
    keepers = [Keeper(rig, make_mark()) for _ in range(16)]
    await asyncio.gather(*(keeper.live() for keeper in keepers))
    await rig.http.delete("/_world/faults")
    await rig.advance(4000)
    shown = (await rig.ask("stats"))["faults"]
    errors = sum(keeper.errors for keeper in keepers)
    assert shown > 30
    assert errors > 10
    bought = Counter(bill["name"] for bill in await rig.ask("bills"))
    assert set(bought.values()) == {1}
    assert set(bought) == {str(keeper.mark) for keeper in keepers}
    assert await rig.ask("billing") == []
    for leftover in await rig.adapter.list_marked():
        await rig.gone(leftover.handle)
    assert list(await rig.adapter.list_marked()) == []
