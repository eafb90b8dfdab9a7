"""Events: few, each said once an hour, whoever leads."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from rig.clock import HandClock
from rig.desk import Desk

from cal_crds.meta import POOL
from cal_operator.events import Events

pytestmark = pytest.mark.anyio


async def _told(desk: Desk) -> Iterable[str]:
    found = await desk.cluster.list(f"/api/v1/namespaces/{desk.namespace}/events")
    return sorted(event["message"] for event in found["items"])


async def test_the_same_is_said_once_an_hour_also_by_the_next_leader(bare_desk: Desk) -> None:
    pool, clock = await bare_desk.pool(), HandClock()
    first, second = Events(bare_desk.cluster, clock), Events(bare_desk.cluster, clock)
    for events in (first, first, second):
        await events.say(pool, POOL.name, "BudgetNearlySpent", "80 % of 1", warning=True)
    assert await _told(bare_desk) == ["80 % of 1"]
    await second.say(pool, POOL.name, "BudgetNearlySpent", "80 % of 2", warning=True)
    assert await _told(bare_desk) == ["80 % of 1", "80 % of 2"], "another limit is another matter"
    clock.move(3600)
    for events in (first, second):
        await events.say(pool, POOL.name, "BudgetNearlySpent", "80 % of 1", warning=True)
    assert await _told(bare_desk) == ["80 % of 1", "80 % of 1", "80 % of 2"]
