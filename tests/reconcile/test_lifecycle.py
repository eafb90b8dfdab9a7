"""The life of a deployment, by the table of the design, as a user of the API server sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from rig.desk import Desk
from rig.waiting import until

from cal_crds.conditions import Type, is_true
from cal_crds.meta import DEPLOYMENT, NODE, POOL
from cal_crds.node import ComputeNode

pytestmark = pytest.mark.anyio


async def test_from_apply_to_running_to_terminated_and_nothing_is_left(desk: Desk) -> None:
    await desk.open()
    await desk.deploy()
    running = await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    assert running.status.endpoint == node.status.endpoint
    assert node.status.instance is not None and running.status.ready_replicas == 1
    assert is_true(running.status.conditions, Type.READY) and is_true(running.status.conditions, Type.AVAILABLE)
    await desk.bills_exactly([node.spec.token])
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    terminated = await desk.reaches("TERMINATED")
    assert terminated.status.error_message is None and terminated.status.replicas == 0
    await desk.no_nodes()
    assert desk.billing() == []


async def test_every_state_on_the_way_is_seen_where_it_lasts(desk: Desk) -> None:
    await desk.register(launchDelayMilliseconds=1200, readyDelayMilliseconds=1200, stopDelayMilliseconds=1200)
    await desk.pool()
    await desk.deploy()
    await desk.reaches("DEPLOYING")
    await desk.reaches("RUNNING")
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATING")
    await desk.reaches("TERMINATED")


async def test_objects_may_come_in_any_order(desk: Desk) -> None:
    await desk.deploy()
    waiting = await desk.reaches("PENDING")
    assert waiting.status.waiting is not None and waiting.status.waiting.reason == "PoolMissing"
    await desk.pool()

    async def names_the_provider() -> bool:
        found = (await desk.deployment()).status.waiting
        return found is not None and desk.provider in found.message

    await until(names_the_provider)
    await desk.register()
    await desk.reaches("RUNNING")


async def test_scale_up_and_down(desk: Desk) -> None:
    await desk.open()
    await desk.serve()
    await desk.patch(DEPLOYMENT, "model", {"replicas": 3})

    async def three() -> bool:
        return (await desk.deployment()).status.ready_replicas == 3

    await until(three)
    assert len(desk.billing()) == 3
    await desk.patch(DEPLOYMENT, "model", {"replicas": 1})

    async def one() -> bool:
        return len(await desk.nodes()) == 1

    await until(one)
    (kept,) = await desk.nodes()
    await desk.bills_exactly([kept.spec.token])
    await desk.patch(DEPLOYMENT, "model", {"replicas": 0})
    await desk.reaches("STOPPED")
    await desk.no_nodes()


async def test_a_changed_workload_is_rolled_out_and_the_old_one_serves_until_the_new_one_answers(desk: Desk) -> None:
    await desk.register(readyDelayMilliseconds=800)
    await desk.pool()
    old = await desk.serve()
    await desk.patch(DEPLOYMENT, "model", {"workload": {"image": "example/model:2"}})
    served: list[int] = []

    async def rolled() -> bool:
        served.append((await desk.deployment()).status.ready_replicas)
        nodes = await desk.nodes()
        return len(nodes) == 1 and nodes[0].metadata.uid != old.metadata.uid

    await until(rolled)
    assert min(served) >= 1, "for a moment nobody served"
    (new,) = await desk.nodes()
    assert new.spec.workload.image == "example/model:2" and new.spec.predecessor == old.metadata.uid
    await desk.bills_exactly([new.spec.token])


async def test_a_deleted_node_is_stopped_and_replaced(desk: Desk) -> None:
    await desk.open()
    old = await desk.serve()
    await desk.delete(NODE, old.metadata.name)
    new = await until(lambda: _successor(desk, old))
    await desk.bills_exactly([new.spec.token])


async def _successor(desk: Desk, old: ComputeNode) -> ComputeNode:
    nodes = await desk.nodes()
    assert len(nodes) == 1 and nodes[0].metadata.uid != old.metadata.uid and nodes[0].status.answered_time
    return nodes[0]


async def test_a_lost_instance_is_replaced(desk: Desk) -> None:
    await desk.open()
    old = await desk.serve()
    desk.ledger.end(await desk.mark(old), "Lost")
    await desk.patch(DEPLOYMENT, "model", {"backoffLimit": 4})  # any event: no need to wait for the next look
    new = await until(lambda: _successor(desk, old), timeout=60)
    await desk.bills_exactly([new.spec.token])


async def test_a_crash_of_the_only_replica_is_a_failure_and_a_change_of_the_spec_tries_again(desk: Desk) -> None:
    await desk.register(readyDelayMilliseconds=60000)
    await desk.pool()
    await desk.deploy()
    await desk.reaches("DEPLOYING")
    (node,) = await desk.nodes()
    desk.ledger.end(await desk.mark(node), "Failed", 3)
    failed = await desk.reaches("FAILED")
    assert is_true(failed.status.conditions, Type.STALLED) and failed.status.error_message
    assert failed.status.outcome is not None and failed.status.outcome.reason == "Crashed"
    await desk.bills_exactly([])
    await desk.patch(DEPLOYMENT, "model", {"restartedAt": "2026-01-01T00:00:00Z"})
    await desk.reaches("DEPLOYING")
    (again,) = [node for node in await desk.nodes() if node.status.ended is None]
    await desk.bills_exactly([again.spec.token])


async def test_a_training_that_ends_well_is_completed_and_not_started_again(desk: Desk) -> None:
    await desk.register(readyDelayMilliseconds=60000)
    await desk.pool()
    await desk.deploy(workload={"type": "Training", "image": "example/train:1"})
    await desk.reaches("DEPLOYING")
    (node,) = await desk.nodes()
    desk.ledger.end(await desk.mark(node), "Succeeded", 0)
    done = await desk.reaches("STOPPED")
    assert done.status.outcome is not None and done.status.outcome.reason == "Completed"
    assert is_true(done.status.conditions, Type.READY)
    await desk.bills_exactly([])


async def test_a_deleted_deployment_takes_its_instances_along(desk: Desk) -> None:
    await desk.open()
    await desk.deploy(replicas=2)
    await desk.reaches("RUNNING")
    await desk.delete(DEPLOYMENT, "model")
    await desk.no_nodes()
    assert desk.billing() == []


async def test_a_pool_goes_after_its_nodes_and_its_deployments_stay_readable(desk: Desk) -> None:
    await desk.register(stopDelayMilliseconds=1500)
    await desk.pool()
    await desk.serve()
    await desk.delete(POOL, "pool")

    async def terminating() -> bool:
        return (await desk.get_pool()).status.state == "TERMINATING" and bool(desk.billing())

    await until(terminating)

    async def gone() -> bool:
        return await desk.is_gone(POOL, "pool")

    await until(gone)
    assert desk.billing() == [] and not await desk.nodes()
    await desk.reaches("TERMINATED")
    await desk.pool()  # a pool made again under the old name doesn't revive it
    await desk.deploy("other")
    await desk.reaches("RUNNING", "other")
    assert (await desk.deployment()).status.state == "TERMINATED"


async def test_a_pool_without_nodes_goes_too(desk: Desk) -> None:
    await desk.pool()

    async def seen() -> bool:
        return (await desk.get_pool()).status.observed_generation == 1

    await until(seen)
    await desk.delete(POOL, "pool")

    async def gone() -> bool:
        return await desk.is_gone(POOL, "pool")

    await until(gone)


async def test_a_stopped_pool_loses_its_nodes_and_comes_back_by_active(desk: Desk) -> None:
    await desk.open()
    await desk.serve()
    await desk.patch(POOL, "pool", {"desiredState": "Stopped"})
    stopped = await desk.reaches("STOPPED")
    assert stopped.status.error_message is None
    await desk.no_nodes()
    assert desk.billing() == []
    await desk.patch(POOL, "pool", {"desiredState": "Active"})
    await desk.reaches("RUNNING")


async def test_an_endpoint_that_somebody_else_runs_is_registered_and_nothing_is_bought(desk: Desk) -> None:
    await desk.create(
        DEPLOYMENT, "model", {"external": {"endpoint": "https://example.test/v1"}, "model": {"name": "theirs"}}
    )
    running = await desk.reaches("RUNNING")
    assert running.status.endpoint == "https://example.test/v1" and not await desk.nodes()


async def test_the_second_pool_of_a_name_is_told_of_the_conflict(desk: Desk) -> None:
    await desk.open("first", displayName="gpus")

    async def settled(name: str, reason: str) -> bool:
        found = (await desk.get_pool(name)).status.conditions
        return any(condition.reason == reason for condition in found)

    await until(lambda: settled("first", "AsWanted"))
    await desk.pool("second", displayName="gpus")
    loser = await until(lambda: _told(settled))
    assert not await settled("first" if loser == "second" else "second", "NameConflict")


async def _told(settled: Callable[[str, str], Awaitable[bool]]) -> str | None:
    """Which of the two: the younger, or, of the same second, the one with the larger uid."""
    for name in ("first", "second"):
        if await settled(name, "NameConflict"):
            return name
    return None
