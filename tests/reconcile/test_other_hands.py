"""What other hands do: one account registered twice, a provider deleted while a deployment wants more, a status that somebody wiped, a late
record, a Secret that is gone. Step by step, against the real API server and the demo market."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from rig.desk import Desk
from rig.inside import intent, ready
from rig.waiting import until

from cal_adapters.contract import Mark
from cal_adapters.fake import ledger_path
from cal_crds.base import rfc3339
from cal_crds.cluster import ClusterError
from cal_crds.conditions import Reason
from cal_crds.meta import FINALIZER, NODE, POOL, PROVIDER
from cal_crds.node import ComputeNode
from cal_operator import resync
from cal_operator.accounts import Account
from cal_operator.deployments.reconcile import reconcile as reconcile_deployment
from cal_operator.nodes.act import mark_gone, record
from cal_operator.nodes.decide import MarkGone
from cal_operator.nodes.observe import gather
from cal_operator.nodes.reconcile import reconcile as reconcile_node
from cal_operator.probe import Prober
from cal_operator.providers.reconcile import reconcile as reconcile_provider
from cal_operator.sweep import BLIND, Sweep
from cal_operator.world import World

pytestmark = pytest.mark.anyio

_OFFER = "rtx-3060-x1-global"


async def _account(world: World, desk: Desk) -> Account:
    return await world.accounts.get(world.store.providers.named(None, desk.provider), None)


async def _bought(world: World, desk: Desk) -> ComputeNode:
    """A node whose instance runs and is recorded."""
    node = await intent(world, desk)
    await reconcile_node(world, Prober(), node.metadata.uid)
    (bought,) = await desk.nodes()
    assert bought.status.instance is not None
    return bought


async def _twin(world: World, desk: Desk) -> str:
    """A second ComputeProvider that leads to the same market: another region or other settings, the same account. Its uid."""
    name = f"{desk.provider}-twin"
    ledger_path(desk.state_dir, name).symlink_to(ledger_path(desk.state_dir, desk.provider))
    return await ready(world, await desk.create(PROVIDER, name, {"adapter": "demo"}))


async def _swept_for_good(world: World, desk: Desk) -> None:
    """Sweep until an orphan, seen first now, would have been stopped: the one that is made here has been."""
    token = "lost00000000"
    desk.ledger.add_foreign(Mark(world.installation, token), _OFFER)
    sweep = Sweep(world)

    async def swept() -> bool:
        await sweep.run()
        return token not in desk.billing()

    await until(swept)


# --- one account, registered twice ---------------------------------------------------------------------------------------------


async def test_what_was_bought_through_one_provider_is_no_orphan_of_another_on_the_same_account(
    world: World, bare_desk: Desk
) -> None:
    node = await _bought(world, bare_desk)
    await _twin(world, bare_desk)
    await _swept_for_good(world, bare_desk)
    assert bare_desk.billing() == [node.spec.token]


async def test_what_was_bought_through_one_provider_does_not_keep_another_on_the_same_account(
    world: World, bare_desk: Desk
) -> None:
    await _bought(world, bare_desk)
    uid, name = await _twin(world, bare_desk), f"{bare_desk.provider}-twin"
    await bare_desk.delete(PROVIDER, name)
    world.learn(PROVIDER, await bare_desk.cluster.get(PROVIDER.path(name=name)))
    await reconcile_provider(world, uid)
    assert await bare_desk.is_gone(PROVIDER, name)


# --- a provider that is being deleted --------------------------------------------------------------------------------------------


async def _deleted(world: World, desk: Desk) -> None:
    """As a user does, and as the watch tells it."""
    await desk.delete(PROVIDER, desk.provider)
    world.learn(PROVIDER, await desk.cluster.get(PROVIDER.path(name=desk.provider)))


async def test_nothing_more_is_asked_of_a_provider_that_is_being_deleted(world: World, bare_desk: Desk) -> None:
    """It may go at any moment, and what is bought in that moment can't be stopped through anything."""
    await _bought(world, bare_desk)
    await _deleted(world, bare_desk)
    uid = await bare_desk.deploy("second")
    await resync.load(world)
    world.held[uid] = 0.0
    await reconcile_deployment(world, uid)
    assert await bare_desk.nodes(uid) == []
    waiting = (await bare_desk.deployment("second")).status.waiting
    assert waiting is not None and waiting.reason == Reason.DELETING


async def test_an_intent_is_not_bought_once_its_provider_is_being_deleted(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await _deleted(world, bare_desk)
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_a_provider_that_offers_nothing_just_now_stays_while_something_runs_there(
    world: World, bare_desk: Desk
) -> None:
    await intent(world, bare_desk)
    (node,) = await bare_desk.nodes()
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    await bare_desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})
    await bare_desk.cluster.delete(path)
    await resync.compare(world)
    bare_desk.ledger.add_foreign(Mark(world.installation, "lost00000000"), _OFFER)
    sold_out: dict[str, Any] = {"status": {"offers": []}}
    world.learn(
        PROVIDER, await bare_desk.cluster.merge_patch(PROVIDER.path(None, bare_desk.provider, "status"), sold_out)
    )
    await _deleted(world, bare_desk)
    provider = world.store.providers.named(None, bare_desk.provider)
    assert provider is not None
    await reconcile_provider(world, provider.metadata.uid)
    assert not await bare_desk.is_gone(PROVIDER, bare_desk.provider)


async def test_a_provider_whose_secret_is_gone_goes_with_a_word_and_is_not_swept_unseen(
    world: World, bare_desk: Desk
) -> None:
    secrets = f"/api/v1/namespaces/{world.settings.system_namespace}/secrets"
    await bare_desk.cluster.create(
        secrets, {"metadata": {"name": "key"}, "data": {"apiKey": base64.b64encode(b"hunter2").decode()}}
    )
    credentials = [{"name": "main", "secretRef": {"name": "key"}}]
    made = await bare_desk.create(PROVIDER, bare_desk.provider, {"adapter": "demo", "credentials": credentials})
    uid = await ready(world, made)
    await bare_desk.cluster.merge_patch(f"{secrets}/key", {"metadata": {"finalizers": None}})
    await bare_desk.cluster.delete(f"{secrets}/key")
    await world.accounts.close()  # as in a new process
    await Sweep(world).run()
    assert BLIND.labels(bare_desk.provider, "main")._value.get() == 1
    await _deleted(world, bare_desk)
    await reconcile_provider(world, uid)
    assert await bare_desk.is_gone(PROVIDER, bare_desk.provider)
    assert len(await bare_desk.said_of_provider("Abandoned")) == 1


# --- a status that somebody wiped, a record that comes late ----------------------------------------------------------------------


async def _wipe(world: World, desk: Desk, node: ComputeNode) -> None:
    """`kubectl replace --subresource status` with a file that has none."""
    path = NODE.path(desk.namespace, node.metadata.name)
    wiped: dict[str, Any] = dict.fromkeys((await desk.cluster.get(path))["status"])
    world.learn(NODE, await desk.cluster.merge_patch(f"{path}/status", {"status": wiped}))


async def test_a_node_whose_status_was_wiped_is_not_bought_again(world: World, bare_desk: Desk) -> None:
    node = await _bought(world, bare_desk)
    bare_desk.ledger.forget_marks()
    await _wipe(world, bare_desk, node)

    async def known_again() -> bool:
        await reconcile_node(world, Prober(), node.metadata.uid)
        (still,) = await bare_desk.nodes()
        return still.status.instance is not None

    await until(known_again)
    assert bare_desk.billing() == [node.spec.token]


async def test_a_node_whose_status_was_wiped_goes_only_when_its_instance_is_stopped(
    world: World, bare_desk: Desk
) -> None:
    node = await _bought(world, bare_desk)
    await _wipe(world, bare_desk, node)
    await bare_desk.delete(NODE, node.metadata.name)
    await resync.compare(world)

    async def gone() -> bool:
        await reconcile_node(world, Prober(), node.metadata.uid)
        return not await bare_desk.nodes()

    await until(gone)
    assert bare_desk.billing() == []


async def test_a_record_that_comes_after_the_node_was_given_up_is_stopped(world: World, bare_desk: Desk) -> None:
    """The API server was away from the one who bought, and not from the next leader, whose look-ups found nothing."""
    node = await intent(world, bare_desk)
    bare_desk.ledger.add_foreign(Mark(world.installation, node.spec.token), _OFFER)
    account = await _account(world, bare_desk)
    (bought,) = await account.adapter.find(Mark(world.installation, node.spec.token))
    now = rfc3339(world.clock.now())
    ended = {"cause": "NeverLaunched", "message": "no room", "time": now}
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    await bare_desk.cluster.merge_patch(f"{path}/status", {"status": {"ended": ended, "goneTime": now}})
    await record(world, account, node, bought)
    await bare_desk.bills_exactly([])


async def test_a_node_is_not_let_go_over_an_instance_that_was_recorded_meanwhile(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await bare_desk.delete(NODE, node.metadata.name)
    await resync.compare(world)
    seen = world.store.nodes.get(node.metadata.uid)
    assert seen is not None and seen.metadata.deletion_timestamp is not None
    view, _ = await gather(world, Prober(), seen)
    instance = {"handle": "1", "id": "i", "startTime": rfc3339(world.clock.now()), "pricePerHour": "1"}
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    told = await bare_desk.cluster.merge_patch(f"{path}/status", {"status": {"instance": instance}})
    world.learn(NODE, told)  # another leader's, through the watch
    with pytest.raises(ClusterError):
        await mark_gone(world, view, MarkGone(Reason.GONE, "nothing was bought"))
    assert [still.metadata.name for still in await bare_desk.nodes()] == [node.metadata.name]


# --- a pool that goes between the intent and the deployment's status -------------------------------------------------------------


async def _without_its_pool(world: World, desk: Desk) -> ComputeNode:
    """An intent whose pool went in the moment that it was made: nothing in the deployment's status says yet which one that was."""
    node = await intent(world, desk)
    assert (await desk.deployment()).status.bound_pool_uid is None
    path = POOL.path(desk.namespace, "pool")
    body = await desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})
    await desk.cluster.delete(path)
    world.forget(POOL, body)
    return node


async def test_a_node_whose_pool_is_gone_is_not_bought(world: World, bare_desk: Desk) -> None:
    node = await _without_its_pool(world, bare_desk)
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


async def test_a_deployment_is_bound_to_the_pool_that_its_nodes_were_bought_through(
    world: World, bare_desk: Desk
) -> None:
    node = await _without_its_pool(world, bare_desk)
    await bare_desk.pool()  # made again under the old name: it doesn't revive what the first one bought
    await resync.compare(world)
    await reconcile_deployment(world, node.spec.deployment_ref.uid)
    (still,) = await bare_desk.nodes()
    assert still.metadata.deletion_timestamp is not None
    assert (await bare_desk.deployment()).status.bound_pool_uid == node.spec.pool_ref.uid


# --- an object that was taken for gone -------------------------------------------------------------------------------------------


async def test_an_object_that_was_taken_for_gone_and_is_there_is_looked_at_again(world: World, bare_desk: Desk) -> None:
    """Whatever stands between us and the API server may say 404 of anything, once."""
    node = await _bought(world, bare_desk)
    world.forget(NODE, await bare_desk.cluster.get(NODE.path(bare_desk.namespace, node.metadata.name)))
    await resync.compare(world)
    assert world.store.nodes.get(node.metadata.uid) is not None


# --- limits that are lowered while purchases are on their way --------------------------------------------------------------------


async def _lower(world: World, desk: Desk, spec: dict[str, Any]) -> None:
    world.learn(POOL, await desk.cluster.merge_patch(POOL.path(desk.namespace, "pool"), {"spec": spec}))


async def _two_intents(world: World, desk: Desk) -> list[ComputeNode]:
    """In a pool with limits; the older one first."""
    await intent(world, desk)
    await _lower(world, desk, {"limits": {"maxNodes": 5, "maxCostPerHour": "5"}})
    uid = await desk.deploy("second")
    await resync.load(world)
    await reconcile_deployment(world, uid)
    nodes = await desk.nodes()
    assert len(nodes) == 2
    return sorted(nodes, key=lambda node: node.spec.deployment_ref.uid == uid)


@pytest.mark.parametrize("limits", [{"maxNodes": 1}, {"maxCostPerHour": "0.1"}])
async def test_a_limit_that_was_lowered_holds_for_what_is_not_bought_yet(
    world: World, bare_desk: Desk, limits: dict[str, Any]
) -> None:
    first, second = await _two_intents(world, bare_desk)
    await _lower(world, bare_desk, {"limits": {"maxNodes": 5, "maxCostPerHour": "5", **limits}})
    for node in (second, first):
        await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == [first.spec.token]
    await reconcile_node(world, Prober(), second.metadata.uid)
    (waiting,) = [node for node in await bare_desk.nodes() if node.metadata.uid == second.metadata.uid]
    assert waiting.status.message is not None and "limits.max" in waiting.status.message
    await _lower(world, bare_desk, {"limits": None})
    world.memories.of(second.metadata.uid).retry_at = 0.0
    await reconcile_node(world, Prober(), second.metadata.uid)
    assert bare_desk.billing() == sorted([first.spec.token, second.spec.token])


async def test_a_cap_that_was_lowered_holds_for_what_is_not_bought_yet(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await _lower(world, bare_desk, {"maxCostPerHour": "0.01"})
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []


# --- what can't be stopped -------------------------------------------------------------------------------------------------------


async def test_an_orphan_that_can_not_be_stopped_is_asked_for_by_one_task_only(world: World, bare_desk: Desk) -> None:
    """Else each round would begin another one, and a day of it would be a storm of stops."""
    made = await bare_desk.provider_object(faults=[{"verb": "stop", "error": "Refused"}])
    world.store.put(PROVIDER.name, made)
    for _ in range(2):
        await reconcile_provider(world, made["metadata"]["uid"])
    bare_desk.ledger.add_foreign(Mark(world.installation, "lost00000000"), _OFFER)
    sweep, end = Sweep(world), world.clock.monotonic() + 5 * world.settings.orphan_grace_seconds

    async def rounds() -> bool:
        await sweep.run()
        return world.clock.monotonic() > end

    await until(rounds)
    assert len([task for task in world._background if "orphan" in task.get_name()]) == 1


async def test_a_node_whose_finalizer_was_taken_away_gets_it_back(world: World, bare_desk: Desk) -> None:
    """`kubectl replace` with a file of before: the next deletion would let it go over its running instance."""
    node = await _bought(world, bare_desk)
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    world.learn(NODE, await bare_desk.cluster.merge_patch(path, {"metadata": {"finalizers": ["example.com/hold"]}}))
    await reconcile_node(world, Prober(), node.metadata.uid)
    (still,) = await bare_desk.nodes()
    assert sorted(still.metadata.finalizers) == sorted([FINALIZER, "example.com/hold"])
