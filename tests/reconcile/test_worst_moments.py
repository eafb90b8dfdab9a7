"""What comes at the worst moment: a user's wish during our own write, a key that is swapped between the intent and the purchase, a clock that
is set. Step by step, against the real API server and the demo market."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rig.desk import Desk
from rig.inside import intent
from rig.waiting import until

from cal_adapters.contract import Mark
from cal_adapters.fake.catalogue import CATALOGUE
from cal_crds.base import rfc3339
from cal_crds.meta import DEPLOYMENT, FINALIZER, LABEL_MANAGED_BY, MANAGER_API, NODE, PROVIDER
from cal_crds.node import ComputeNode, EndCause
from cal_operator import resync
from cal_operator.accounts import Account
from cal_operator.clock import SystemClock
from cal_operator.deployments.reconcile import _expiry
from cal_operator.deployments.reconcile import reconcile as reconcile_deployment
from cal_operator.nodes.purchase import still_wanted
from cal_operator.nodes.reconcile import reconcile as reconcile_node
from cal_operator.probe import Prober
from cal_operator.providers.reconcile import reconcile as reconcile_provider
from cal_operator.store import Key
from cal_operator.sweep import Sweep
from cal_operator.world import World

pytestmark = pytest.mark.anyio


async def _account(world: World, desk: Desk) -> Account:
    return await world.accounts.get(world.store.providers.named(None, desk.provider), None)


def _forget_wakes(world: World) -> None:
    world.queue._due.clear()
    world.queue._heap.clear()


async def _write_node(world: World, desk: Desk, node: ComputeNode, status: dict[str, Any]) -> None:
    path = NODE.path(desk.namespace, node.metadata.name, "status")
    world.learn(NODE, await desk.cluster.merge_patch(path, {"status": status}))


# --- a user's wish during our own write ------------------------------------------------------------------------------------------


async def test_a_wish_that_lands_just_before_a_status_write_is_looked_at(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    uid = node.spec.deployment_ref.uid
    path = DEPLOYMENT.path(bare_desk.namespace, "model")
    wished = await bare_desk.cluster.merge_patch(path, {"spec": {"desiredState": "Terminated"}})
    _forget_wakes(world)
    world.held[uid] = 0.0
    await reconcile_deployment(world, uid)  # with the picture of before; the reply to its write is newer than the wish
    assert (await bare_desk.deployment()).status.state is not None, "nothing was written: nothing is tested"
    world.learn(DEPLOYMENT, wished)
    assert Key(DEPLOYMENT.name, uid) in world.queue._due


async def test_a_deletion_that_lands_just_before_a_status_write_is_looked_at(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    await bare_desk.delete(NODE, node.metadata.name)
    _forget_wakes(world)
    status = node.status.model_copy(update={"message": "seen before"})
    await world.write_status(NODE, node, node.status, status, again=False)
    assert Key(NODE.name, node.metadata.uid) in world.queue._due


async def test_a_status_write_that_finds_nothing_forgets_the_object(world: World, bare_desk: Desk) -> None:
    """Else a reconcile that wants to look again at once would do so until the watch says what happened."""
    node = await intent(world, bare_desk)
    path = NODE.path(bare_desk.namespace, node.metadata.name)
    await bare_desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})
    await bare_desk.cluster.delete(path)
    status = node.status.model_copy(update={"message": "seen before"})
    assert not await world.write_status(NODE, node, node.status, status)
    assert world.store.nodes.get(node.metadata.uid) is None


async def test_a_deployment_whose_deletion_is_held_up_loses_its_instances_at_once(desk: Desk) -> None:
    """`kubectl delete --cascade=foreground` where no garbage collector runs; somebody else's finalizer anywhere."""
    await desk.open()
    await desk.serve()
    path = DEPLOYMENT.path(desk.namespace, "model")
    await desk.cluster.merge_patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    await desk.delete(DEPLOYMENT, "model")
    await desk.bills_exactly([])
    await desk.no_nodes()
    await desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})


async def test_a_node_that_somebody_else_holds_is_no_longer_counted_once_it_is_gone(desk: Desk) -> None:
    await desk.open()
    node = await desk.serve()
    path = NODE.path(desk.namespace, node.metadata.name)
    held = [*node.metadata.finalizers, "example.com/hold"]
    await desk.cluster.merge_patch(path, {"metadata": {"finalizers": held}})
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")

    async def let_go() -> bool:
        (still,) = await desk.nodes()
        return still.status.gone_time is not None and still.metadata.finalizers == ["example.com/hold"]

    await until(let_go)
    assert desk.billing() == []
    await desk.cluster.merge_patch(path, {"metadata": {"finalizers": None}})


# --- a key that is swapped ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_bought_from_another_account_than_the_intent_names(world: World, bare_desk: Desk) -> None:
    """Were its answer lost, no look-up could find it: they go by the account that the node names."""
    node = await intent(world, bare_desk)
    account = await _account(world, bare_desk)
    assert account.opened is not None and node.spec.account == account.opened.id
    account.opened = replace(account.opened, id="another-account")
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == []
    (ended,) = await bare_desk.nodes()
    assert ended.status.ended is not None and ended.status.ended.cause is EndCause.NEVER_LAUNCHED
    uid = node.spec.deployment_ref.uid

    async def asked_for_again() -> bool:
        await reconcile_deployment(world, uid)
        return any(one.spec.account == "another-account" for one in await bare_desk.nodes())

    await until(asked_for_again)


async def test_an_intent_names_its_account_also_before_a_new_operator_has_checked_any(
    world: World, bare_desk: Desk
) -> None:
    """The resources of the operator before say that all is ready; were the answer lost and the key swapped, nothing else would tell where it bought."""
    first = await intent(world, bare_desk)
    await world.accounts.close()  # as in a new process
    uid = await bare_desk.deploy("second")
    await resync.load(world)
    await reconcile_deployment(world, uid)
    (node,) = await bare_desk.nodes(uid)
    assert node.spec.account is not None and node.spec.account == first.spec.account


async def test_a_stop_through_an_account_that_is_not_known_yet_proves_nothing(world: World, bare_desk: Desk) -> None:
    """Providers say "gone" of whatever the key's account doesn't hold."""
    node = await intent(world, bare_desk)
    instance = {"handle": "999999", "id": "i", "account": "another-account", "startTime": rfc3339(world.clock.now())}
    await _write_node(world, bare_desk, node, {"instance": {**instance, "pricePerHour": "1"}})
    await bare_desk.delete(NODE, node.metadata.name)
    await resync.compare(world)
    account = await _account(world, bare_desk)
    account.opened = None  # the key was swapped a moment ago, and wasn't checked yet
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert [still.metadata.name for still in await bare_desk.nodes()] == [node.metadata.name]
    (still,) = await bare_desk.nodes()
    assert still.status.gone_time is None


# --- an instance that shows late -----------------------------------------------------------------------------------------------


async def test_the_sweep_ends_what_shows_up_late_for_a_node_that_was_given_up(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    now = rfc3339(world.clock.now())
    ended = {"cause": "NeverLaunched", "message": "no room", "time": now}
    await _write_node(world, bare_desk, node, {"ended": ended, "goneTime": now})
    bare_desk.ledger.add_foreign(Mark(world.installation, node.spec.token), "rtx-3060-x1-global")
    sweep = Sweep(world)

    async def swept() -> bool:
        await sweep.run()
        return bare_desk.billing() == []

    await until(swept)


# --- a clock that is set -------------------------------------------------------------------------------------------------------


class _SetClock(SystemClock):
    """A machine's clock that somebody sets an hour ahead."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


async def test_a_clock_set_ahead_proves_no_purchase_absent(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    clock = world.clock = _SetClock()
    bare_desk.ledger.fail_next("launch", "OutcomeUnknown")
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert world.memories.of(node.metadata.uid).outcome_unknown
    clock.ahead = timedelta(hours=1)
    await reconcile_node(world, Prober(), node.metadata.uid)
    await reconcile_node(world, Prober(), node.metadata.uid)
    assert bare_desk.billing() == [], "bought again while the first call may still be on its way"


# --- what must not be asked again at once, and what is asked again ----------------------------------------------------------


async def test_a_pending_time_that_is_over_while_a_replica_lives_is_no_reason_to_hurry(
    world: World, bare_desk: Desk
) -> None:
    made = await bare_desk.provider_object()
    world.store.put(PROVIDER.name, made)
    await reconcile_provider(world, made["metadata"]["uid"])
    await reconcile_provider(world, made["metadata"]["uid"])
    await bare_desk.pool(limits={"maxNodes": 1})
    uid = await bare_desk.deploy(replicas=2, pendingTimeoutSeconds=1)
    await resync.load(world)
    world.held[uid] = 0.0
    await reconcile_deployment(world, uid)
    waiting = (await bare_desk.deployment()).status.waiting
    assert waiting is not None and waiting.since is not None
    since = waiting.since

    async def over() -> bool:
        return world.clock.now() - since > timedelta(seconds=1.5)

    await until(over)
    world.held[uid] = 0.0
    await reconcile_deployment(world, uid)
    again = await reconcile_deployment(world, uid)
    assert again is None or again > 0.5


async def test_an_end_of_time_to_live_that_is_not_carried_out_is_tried_again(world: World, bare_desk: Desk) -> None:
    made = await bare_desk.create(
        DEPLOYMENT,
        "short",
        {
            "external": {"endpoint": "http://127.0.0.1:9"},
            "model": {"name": "tiny"},
            "desiredState": "Terminated",
            "ttlSecondsAfterTerminated": 0,
        },
        labels={LABEL_MANAGED_BY: MANAGER_API},
    )
    world.learn(DEPLOYMENT, made)
    deployment = world.store.deployments.get(made["metadata"]["uid"])
    assert deployment is not None
    over = deployment.status.model_copy(update={"terminated_time": world.clock.now() - timedelta(seconds=1)})
    assert _expiry(world, deployment, over) is not None


async def test_a_paused_provider_is_asked_for_no_step_that_spends(world: World, bare_desk: Desk) -> None:
    node = await intent(world, bare_desk)
    assert await still_wanted(world, node) is not None
    paused = await bare_desk.cluster.merge_patch(
        PROVIDER.path(name=bare_desk.provider), {"spec": {"desiredState": "Paused"}}
    )
    world.learn(PROVIDER, paused)
    assert await still_wanted(world, node) is None


async def test_a_final_price_above_the_offer_s_does_not_break_the_pool_s_limit(desk: Desk) -> None:
    await desk.open(limits={"maxCostPerHour": "0.15"})
    for offer in CATALOGUE:
        desk.ledger.reprice(offer, "2")  # after the offers were read: what was 0.08 costs 0.16
    await desk.deploy()

    async def refused() -> bool:
        assert desk.ledger.history() == []
        return any(
            node.status.ended is not None and "above 0.15" in node.status.ended.message for node in await desk.nodes()
        )

    await until(refused)
    assert desk.billing() == []


async def test_prices_that_rise_together_do_not_break_the_pool_s_limit(desk: Desk) -> None:
    """Each final price would be within what the limit leaves beside the other's offer."""
    await desk.open(limits={"maxCostPerHour": "0.25"})
    for offer in CATALOGUE:
        desk.ledger.reprice(offer, "2")  # after the offers were read: what was 0.08 costs 0.16
    await desk.deploy(replicas=2)

    async def one_bought_one_waits() -> bool:
        waiting = (await desk.deployment()).status.waiting
        return len(desk.ledger.history()) == 1 and waiting is not None and waiting.reason in ("LimitReached", "NoOffer")

    await until(one_bought_one_waits)
    assert len(desk.billing()) == 1


async def test_a_secret_that_was_replaced_as_a_whole_is_held_again(world: World, bare_desk: Desk) -> None:
    """`kubectl replace` and tools that write Secrets take every finalizer away that they don't know."""
    secrets = f"/api/v1/namespaces/{world.settings.system_namespace}/secrets"
    data = {"apiKey": base64.b64encode(b"hunter2").decode()}
    await bare_desk.cluster.create(secrets, {"metadata": {"name": "key"}, "data": data})
    node = await intent(world, bare_desk)
    credentials = {"credentials": [{"name": "main", "secretRef": {"name": "key"}}]}
    path = PROVIDER.path(name=bare_desk.provider)
    world.learn(PROVIDER, await bare_desk.cluster.merge_patch(path, {"spec": credentials}))
    provider = world.store.providers.named(None, node.spec.provider_ref.name)
    assert provider is not None
    await reconcile_provider(world, provider.metadata.uid)
    assert FINALIZER in (await bare_desk.cluster.get(f"{secrets}/key"))["metadata"]["finalizers"]
    await bare_desk.cluster.merge_patch(f"{secrets}/key", {"metadata": {"finalizers": None}})
    await reconcile_provider(world, provider.metadata.uid)
    assert FINALIZER in (await bare_desk.cluster.get(f"{secrets}/key"))["metadata"].get("finalizers", [])
