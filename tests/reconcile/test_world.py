"""Steps of the operator taken one by one, against the real API server and the demo market: what a stale picture, a lost race or an end
in the middle must not lead to."""

from __future__ import annotations

import asyncio

import pytest
from rig.desk import QUICK, Desk, OperatorProcess
from rig.inside import intent
from rig.waiting import until

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster
from cal_crds.meta import DEPLOYMENT, NODE
from cal_crds.node import ComputeNode
from cal_operator import resync
from cal_operator.__main__ import build
from cal_operator.nodes.act import record
from cal_operator.nodes.reconcile import reconcile as reconcile_node
from cal_operator.probe import Prober
from cal_operator.settings import parse
from cal_operator.world import World

pytestmark = pytest.mark.anyio


async def test_nothing_is_bought_for_a_node_that_is_gone(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    await bare_desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})
    await bare_desk.cluster.delete(path)
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_nothing_is_bought_for_a_deployment_that_is_gone(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await bare_desk.delete(DEPLOYMENT, "model")
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_nothing_is_bought_for_a_deployment_that_was_terminated(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await bare_desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_nothing_is_bought_with_a_lease_that_may_end_before_the_call_does(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    world.leader._valid_until = world.clock.monotonic() + 3.0
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_what_is_wanted_is_bought_and_recorded(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await reconcile_node(world, Prober(), node.metadata.uid)
    (bought,) = await bare_desk.nodes()
    assert bought.status.instance is not None
    assert bare_desk.billing() == [node.spec.token]


async def test_an_instance_whose_node_has_gone_meanwhile_is_stopped(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    account = await world.accounts.get(world.store.providers.named(None, bare_desk.provider), None)
    bare_desk.ledger.dawdle(0.5)
    launching = asyncio.create_task(reconcile_node(world, Prober(), node.metadata.uid))

    async def bought() -> bool:
        return bool(bare_desk.billing())

    await until(bought)
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    await bare_desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})
    await bare_desk.cluster.delete(path)
    await launching
    await bare_desk.bills_exactly([])
    assert account.provider == bare_desk.provider


async def _bought_through_another_account(world: World, desk: Desk) -> ComputeNode:
    """A node that a former operator may have bought for, through a key that opened another account than today's."""
    body = await desk.cluster.get(NODE.path(desk.namespace, (await intent(world, desk)).metadata.name))
    kept = {key: body["metadata"][key] for key in ("namespace", "labels", "finalizers", "ownerReferences")}
    spec = {**body["spec"], "slot": 7, "token": "boughtbefore", "account": "another-account"}
    made = await desk.cluster.create(
        NODE.path(desk.namespace), {**body, "metadata": {**kept, "name": "bought-before"}, "spec": spec, "status": {}}
    )
    world.learn(NODE, made)
    return ComputeNode.parse(made)


async def _look_until_settled(world: World, node: ComputeNode) -> None:
    """Reconcile for longer than a look-up needs until its silence counts."""
    account = await world.accounts.get(world.store.providers.named(None, node.spec.provider_ref.name), None)
    traits = account.adapter.traits
    end = world.clock.monotonic() + traits.launch_timeout_seconds + traits.settle_seconds + 1.0

    async def settled() -> bool:
        await reconcile_node(world, Prober(), node.metadata.uid)
        return world.clock.monotonic() > end

    await until(settled)


async def test_a_look_up_through_another_account_buys_nothing_again(world: World, bare_desk: Desk) -> None:
    node = await _bought_through_another_account(world, bare_desk)
    await _look_until_settled(world, node)
    assert bare_desk.billing() == []
    assert any(event["reason"] == "WrongAccount" for event in await bare_desk.events())


async def test_a_look_up_through_another_account_frees_no_node(world: World, bare_desk: Desk) -> None:
    node = await _bought_through_another_account(world, bare_desk)
    await bare_desk.delete(NODE, node.metadata.name)
    await resync.compare(world)
    await _look_until_settled(world, node)
    assert [still.metadata.name for still in await bare_desk.nodes() if still.metadata.deletion_timestamp] == [
        "bought-before"
    ]


async def test_a_second_handle_never_replaces_the_first(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    account = await world.accounts.get(world.store.providers.named(None, bare_desk.provider), None)
    await reconcile_node(world, Prober(), node.metadata.uid)
    (bought,) = await bare_desk.nodes()
    bare_desk.ledger.add_foreign(await bare_desk.mark(node), "rtx-3060-x1-global")
    second = (await account.adapter.find(await bare_desk.mark(node)))[-1]
    assert bought.status.instance is not None and second.handle != bought.status.instance.handle
    await record(world, account, node, second)  # with the version of before the first was written
    (still,) = await bare_desk.nodes()
    assert still.status.instance == bought.status.instance
    await bare_desk.bills_exactly([node.spec.token])


async def test_a_launch_under_way_is_recorded_before_the_process_ends(bare_desk: Desk, own_plane: ControlPlane) -> None:
    """SIGTERM between the effect and the answer of a launch: neither cancellation nor shutdown splits launch and record."""
    namespace = f"{bare_desk.namespace}-system"
    await bare_desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    flags = (*QUICK, f"--system-namespace={namespace}")
    process = OperatorProcess(own_plane.kubeconfig, bare_desk.state_dir, free_ports(1)[0], *flags).start()
    try:
        await bare_desk.open()
        bare_desk.ledger.dawdle(1.3)
        await bare_desk.deploy()

        async def bought() -> bool:
            return bool(bare_desk.billing())

        await until(bought)
    finally:
        code = process.stop()
    assert code == 0
    (node,) = await bare_desk.nodes()
    assert node.status.instance is not None, "bought, and the process ended without writing it down"
    assert bare_desk.billing() == [node.spec.token]


# --- leaders that stood in line, or still, for too long -------------------------------------------------------------------------


async def _full(world: World, bare_desk: Desk, busy: asyncio.Event) -> asyncio.Future[list[None]]:
    """Calls that hold every slot of the market's gate until `busy` is set."""
    account = await world.accounts.get(world.store.providers.named(None, bare_desk.provider), None)

    async def hang() -> None:
        await busy.wait()

    calls = [account.gate.call("hang", hang) for _ in range(account.adapter.traits.concurrency)]
    held = asyncio.gather(*calls)
    await asyncio.sleep(0)
    return held


async def _in_line(world: World, node: ComputeNode) -> asyncio.Task[float | None]:
    """A pass over the node, which waits for a slot to launch in."""
    launching = asyncio.create_task(reconcile_node(world, Prober(), node.metadata.uid))

    async def waits() -> bool:
        return world.memories.of(node.metadata.uid).outcome_unknown

    await until(waits)
    return launching


async def test_a_launch_that_stood_in_line_until_the_lease_was_over_buys_nothing(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    free = asyncio.Event()
    held = await _full(world, bare_desk, free)
    launching = await _in_line(world, node)
    world.leader._valid_until = world.clock.monotonic()  # the API server was away, or this process stood still
    free.set()
    await asyncio.gather(held, launching)
    assert bare_desk.billing() == []


async def test_look_ups_settle_after_the_call_was_made_and_not_after_it_was_asked_for(
    world: World, bare_desk: Desk
) -> None:
    node = await intent(world, bare_desk)
    bare_desk.ledger.fail_next("launch", "AnswerLost")
    free = asyncio.Event()
    held = await _full(world, bare_desk, free)
    launching = await _in_line(world, node)
    made = world.clock.now()
    free.set()
    await asyncio.gather(held, launching)
    attempted = world.memories.of(node.metadata.uid).attempted
    assert bare_desk.billing() == [node.spec.token]
    assert attempted is not None and attempted >= made


async def test_no_capacity_that_is_heard_of_late_does_not_end_a_node_that_another_leader_bought(
    world: World, bare_desk: Desk
) -> None:
    node = await intent(world, bare_desk)
    account = await world.accounts.get(world.store.providers.named(None, bare_desk.provider), None)
    bare_desk.ledger.fail_next("launch", "NoCapacity")
    free = asyncio.Event()
    held = await _full(world, bare_desk, free)
    launching = await _in_line(world, node)
    path = NODE.path(bare_desk.namespace, node.metadata.name, "status")
    instance = {"handle": "h", "id": "i", "startTime": "2026-01-01T00:00:00Z", "pricePerHour": "1"}
    await bare_desk.cluster.merge_patch(path, {"status": {"instance": instance}})
    free.set()
    await asyncio.gather(held, launching, return_exceptions=True)
    (bought,) = await bare_desk.nodes()
    assert bought.status.instance is not None and bought.status.gone_time is None
    assert account.provider == bare_desk.provider


async def test_the_lease_has_connections_of_its_own(bare_desk: Desk, own_plane: ControlPlane) -> None:
    namespace = f"{bare_desk.namespace}-lease"
    await bare_desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    settings = parse([f"--kubeconfig={own_plane.kubeconfig}", f"--system-namespace={namespace}"])
    async with await Cluster.connect(str(own_plane.kubeconfig)) as busy:
        world = await build(busy, bare_desk.cluster, settings)
    # The others are of no use any more.
    await world.leader.acquire()
    assert world.leader.remaining() > 0
