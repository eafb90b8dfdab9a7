"""Heartbeats: whose silence counts, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from rig.build import INSTANCE, node
from rig.clock import HandClock
from rig.desk import Desk

from cal_crds import heartbeats
from cal_crds.node import ComputeNode
from cal_operator.liveness import Liveness

pytestmark = pytest.mark.anyio


class Api:
    """The api's part: writes digests, as often as the test says."""

    def __init__(self, desk: Desk, clock: HandClock) -> None:
        self._desk, self._clock = desk, clock
        self._path = f"/api/v1/namespaces/{desk.namespace}/configmaps"
        self._made = False

    async def digest(self, **beats: datetime) -> None:
        body = heartbeats.build("digest-0", self._desk.namespace, beats, self._clock.now())
        if self._made:
            await self._desk.cluster.merge_patch(f"{self._path}/digest-0", {"data": body["data"]})
        else:
            await self._desk.cluster.create(self._path, body)
        self._made = True


def beaten(at: datetime, **spec: Any) -> ComputeNode:
    return node(status={"instance": INSTANCE, "heartbeat": {"state": "Ready", "time": at.isoformat()}}, spec=spec)


async def test_a_silence_counts_only_after_clocks_ran_all_the_while(bare_desk: Desk) -> None:
    clock = HandClock()
    api, liveness = Api(bare_desk, clock), Liveness(clock, bare_desk.namespace, 120)
    quiet = beaten(clock.now())
    clock.move(1000)
    await api.digest()
    await liveness.refresh(bare_desk.cluster)
    assert not liveness.overdue(quiet, clock.now()), "this process has listened for no time yet"
    for _ in range(4):
        clock.move(31)
        await api.digest()
        await liveness.refresh(bare_desk.cluster)
    assert liveness.overdue(quiet, clock.now())


async def test_while_nobody_writes_digests_no_silence_counts(bare_desk: Desk) -> None:
    clock = HandClock()
    api, liveness = Api(bare_desk, clock), Liveness(clock, bare_desk.namespace, 120)
    quiet = beaten(clock.now())
    await api.digest()
    await liveness.refresh(bare_desk.cluster)
    for _ in range(10):
        clock.move(31)
        await liveness.refresh(bare_desk.cluster)
    assert not liveness.overdue(quiet, clock.now()), "the api is away: its silence is not the nodes'"


async def test_a_digest_counts_as_a_beat(bare_desk: Desk) -> None:
    clock = HandClock()
    api, liveness = Api(bare_desk, clock), Liveness(clock, bare_desk.namespace, 120)
    heard = beaten(clock.now())
    for _ in range(8):
        clock.move(31)
        await api.digest(**{heard.metadata.uid: clock.now()})
        await liveness.refresh(bare_desk.cluster)
    assert not liveness.overdue(heard, clock.now())
    assert liveness.last_beat(heard) == clock.now()


async def test_a_node_that_never_beat_can_miss_none(bare_desk: Desk) -> None:
    clock = HandClock()
    api, liveness = Api(bare_desk, clock), Liveness(clock, bare_desk.namespace, 120)
    for _ in range(8):
        clock.move(31)
        await api.digest()
        await liveness.refresh(bare_desk.cluster)
    assert not liveness.overdue(node(status={"instance": INSTANCE}), clock.now())


@pytest.mark.parametrize(("size", "allowed"), [(1, 1), (10, 1), (30, 3)])
async def test_a_pool_loses_at_most_a_tenth_in_five_minutes(bare_desk: Desk, size: int, allowed: int) -> None:
    clock = HandClock()
    liveness = Liveness(clock, bare_desk.namespace, 120)
    lost = 0
    while liveness.may_lose("pool", size) and lost < 100:
        liveness.lost("pool")
        lost += 1
    assert lost == allowed
    clock.move(301)
    assert liveness.may_lose("pool", size)
