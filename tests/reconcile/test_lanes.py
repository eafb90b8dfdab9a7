"""Who stands in line behind whom."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from rig.build import deployment, node, pool
from rig.waiting import until

from cal_crds.base import Resource
from cal_crds.meta import DEPLOYMENT, NODE, POOL, Kind
from cal_operator.lanes import fed_lane, lane_of
from cal_operator.store import Key, Store
from cal_operator.workqueue import WorkQueue

BOUGHT: dict[str, Any] = {
    "instance": {"handle": "h", "id": "i", "startTime": "2026-05-01T11:00:00Z", "pricePerHour": "1"}
}
ENDED: dict[str, Any] = {**BOUGHT, "ended": {"cause": "Lost", "message": "gone", "time": "2026-05-01T11:30:00Z"}}


@pytest.fixture
def store() -> Store:
    made = Store()
    put(made, POOL, pool())
    return made


def put(store: Store, kind: Kind, resource: Resource, uid: str | None = None) -> Key:
    body = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    uid = uid or resource.metadata.uid
    body["metadata"] |= {"resourceVersion": str(len(store.nodes) + 1), "uid": uid, "name": f"{kind.name.lower()}-{uid}"}
    if kind is POOL:
        body["metadata"]["name"] = "pool"
    store.put(kind.name, body)
    return Key(kind.name, uid)


def test_what_buys_or_stops_does_not_stand_behind_what_is_looked_at(store: Store) -> None:
    buying = lane_of(store, put(store, NODE, node("new")))
    looking = lane_of(store, put(store, NODE, node("running", status=BOUGHT)))
    ending = lane_of(store, put(store, NODE, node("ended", status=ENDED)))
    deleting = lane_of(store, put(store, NODE, node("deleted", deleting=True, status=BOUGHT)))
    assert buying == ending == deleting != looking
    assert all("market" in lane for lane in (buying, looking)), "apart by provider"


def test_a_deployment_without_state_and_node_feeds_its_provider_s_purchases(store: Store) -> None:
    fresh = put(store, DEPLOYMENT, deployment())
    assert fed_lane(lane_of(store, fresh)) == lane_of(
        store, put(store, NODE, node("n", spec={"deploymentRef": {"name": "x", "uid": "x"}}))
    )
    stated = put(store, DEPLOYMENT, deployment(status={"state": "PENDING"}), "stated")
    homeless = put(store, DEPLOYMENT, deployment(poolRef={"name": "missing"}), "homeless")
    assert lane_of(store, stated) == lane_of(store, homeless) == DEPLOYMENT.name
    put(store, NODE, node("its"))
    assert lane_of(store, fresh) == DEPLOYMENT.name, "its node is under way"
    assert fed_lane(DEPLOYMENT.name) is None


@pytest.mark.anyio
async def test_nodes_that_can_not_be_looked_at_hold_up_no_purchase(store: Store) -> None:
    elsewhere = {"deploymentRef": {"name": "x", "uid": "x"}}
    looks = [put(store, NODE, node(f"running-{number}", spec=elsewhere, status=BOUGHT)) for number in range(50)]
    purchase, fresh = put(store, NODE, node("new", spec=elsewhere)), put(store, DEPLOYMENT, deployment())
    done: set[Key] = set()

    async def work(key: Key) -> None:
        if key in looks:
            await asyncio.Event().wait()
        done.add(key)

    queue = WorkQueue(work, partial(lane_of, store), fed_lane)
    for key in (*looks, purchase, fresh):
        queue.wake(key)
    running = asyncio.create_task(queue.run())

    async def both() -> bool:
        return done == {purchase, fresh}

    await until(both)
    await queue.drain(timeout=0)
    await running
