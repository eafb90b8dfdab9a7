"""A provider that is deleted while something runs there that no node knows: it stays until that is stopped, or somebody says otherwise."""

from __future__ import annotations

import pytest
from rig.desk import Desk
from rig.inside import ready
from rig.waiting import until

from cal_adapters.contract import Mark
from cal_crds.cluster import NotFound
from cal_crds.conditions import Type, condition
from cal_crds.meta import ANNOTATION_ABANDON, PROVIDER
from cal_crds.provider import ComputeProvider
from cal_operator.providers.reconcile import reconcile
from cal_operator.sweep import Sweep
from cal_operator.world import World

pytestmark = pytest.mark.anyio

_OFFER = "rtx-3060-x1-global"


async def _delete(world: World, desk: Desk) -> None:
    """As a user does, and as the watch tells it."""
    await desk.delete(PROVIDER, desk.provider)
    world.learn(PROVIDER, await desk.cluster.get(PROVIDER.path(name=desk.provider)))


async def _why_not_gone(desk: Desk) -> str:
    provider = ComputeProvider.parse(await desk.cluster.get(PROVIDER.path(name=desk.provider)))
    ready = condition(provider.status.conditions, Type.READY)
    assert ready is not None and ready.reason == "Deleting"
    return ready.message


async def test_it_stays_until_the_sweep_has_stopped_what_no_node_knows(world: World, bare_desk: Desk) -> None:
    uid = await ready(world, await bare_desk.provider_object())
    bare_desk.ledger.add_foreign(Mark(world.installation, "lost00000000"), _OFFER)
    await _delete(world, bare_desk)
    await reconcile(world, uid)
    assert (await _why_not_gone(bare_desk)).startswith(
        "1 instances run there that no node knows, and are being stopped:"
    )
    sweep = Sweep(world)

    async def gone() -> bool:
        await sweep.run()
        await reconcile(world, uid)
        return await bare_desk.is_gone(PROVIDER, bare_desk.provider)

    await until(gone)
    assert bare_desk.billing() == []
    assert await bare_desk.said_of_provider("Abandoned") == []


async def test_strangers_instances_are_no_reason_to_stay(world: World, bare_desk: Desk) -> None:
    uid = await ready(world, await bare_desk.provider_object())
    bare_desk.ledger.add_foreign(Mark("0123456789", "theirs000000"), _OFFER)
    bare_desk.ledger.add_foreign(None, _OFFER)
    await _delete(world, bare_desk)
    await reconcile(world, uid)
    assert await bare_desk.is_gone(PROVIDER, bare_desk.provider)
    assert len(bare_desk.billing()) == 2


async def test_one_that_can_not_be_asked_stays_and_is_asked_again_soon(world: World, bare_desk: Desk) -> None:
    uid = await ready(world, await bare_desk.provider_object())
    await _delete(world, bare_desk)
    bare_desk.ledger.fail_next("list", "OutcomeUnknown")
    assert await reconcile(world, uid) == 5.0
    assert (await _why_not_gone(bare_desk)).startswith(
        "it can't be told whether something runs there that no node knows:"
    )
    await reconcile(world, uid)
    assert await bare_desk.is_gone(PROVIDER, bare_desk.provider)


async def test_the_annotation_lets_it_go_and_an_event_says_what_may_run_on(world: World, bare_desk: Desk) -> None:
    uid = await ready(world, await bare_desk.provider_object())
    bare_desk.ledger.fail_next("list", "OutcomeUnknown")
    await _delete(world, bare_desk)
    annotated = {"metadata": {"annotations": {ANNOTATION_ABANDON: "true"}}}
    world.learn(PROVIDER, await bare_desk.cluster.merge_patch(PROVIDER.path(name=bare_desk.provider), annotated))
    await reconcile(world, uid)
    assert await bare_desk.is_gone(PROVIDER, bare_desk.provider)
    (said,) = await bare_desk.said_of_provider("Abandoned")
    assert "may still bill" in said and "can't be told" in said


async def test_one_whose_key_is_refused_goes_and_an_event_says_that_nobody_looked(
    world: World, bare_desk: Desk
) -> None:
    uid = await ready(world, await bare_desk.provider_object())
    bare_desk.ledger.fail_next("list", "CredentialsRefused")
    await _delete(world, bare_desk)
    await reconcile(world, uid)
    assert await bare_desk.is_gone(PROVIDER, bare_desk.provider)
    (said,) = await bare_desk.said_of_provider("Abandoned")
    assert said.startswith("deleted unlooked at")


async def test_one_that_never_offered_anything_goes_at_once(world: World, bare_desk: Desk) -> None:
    made = await bare_desk.provider_object(faults=[{"verb": verb, "error": "NotSent"} for verb in ("offers", "list")])
    uid = str(made["metadata"]["uid"])
    world.store.put(PROVIDER.name, made)
    await reconcile(world, uid)
    await _delete(world, bare_desk)
    await reconcile(world, uid)
    with pytest.raises(NotFound):
        await bare_desk.cluster.get(PROVIDER.path(name=bare_desk.provider))
