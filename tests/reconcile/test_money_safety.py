"""The protocol that may not have holes: whatever is lost, refused or late, nothing is bought twice and nothing runs on unseen."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest
from rig.desk import Desk, OperatorProcess, until

from cal_adapters.connect import find_installation
from cal_adapters.contract import Mark
from cal_adapters.fake.catalogue import CATALOGUE
from cal_crds.conditions import Type, condition, is_true
from cal_crds.meta import ANNOTATION_ABANDON, DEPLOYMENT, LABEL_OWNER, NODE, POOL, PROVIDER

pytestmark = pytest.mark.anyio

_CHEAPEST = "rtx-3060-x1-global"


async def _one_running(desk: Desk) -> None:
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    await desk.bills_exactly([node.spec.token])


async def test_a_launch_whose_answer_is_lost_is_found_again_and_not_repeated(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    desk.ledger.fail_next("launch", "AnswerLost")
    await desk.deploy()
    await _one_running(desk)


async def test_a_launch_that_never_happened_is_repeated_once_look_ups_prove_it(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    desk.ledger.fail_next("launch", "OutcomeUnknown")
    await desk.deploy()
    await _one_running(desk)


async def test_look_ups_that_fail_prove_nothing(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    desk.ledger.fail_next("launch", "AnswerLost")
    for _ in range(3):
        desk.ledger.fail_next("find", "OutcomeUnknown")
    await desk.deploy()
    await _one_running(desk)


async def test_a_deployment_deleted_while_its_launch_is_unknown_leaves_nothing_behind(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    desk.ledger.fail_next("launch", "AnswerLost")
    for _ in range(2):
        desk.ledger.fail_next("find", "OutcomeUnknown")
    await desk.deploy()

    async def bought() -> bool:
        return bool(desk.billing())

    await until(bought)
    await desk.delete(DEPLOYMENT, "model")
    await desk.no_nodes()
    assert desk.billing() == []


async def test_a_stop_that_fails_is_a_condition_an_event_and_a_retry(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    for _ in range(2):
        desk.ledger.fail_next("stop", "OutcomeUnknown")
    await desk.delete(NODE, node.metadata.name)

    async def told() -> bool:
        return any(is_true(found.status.conditions, Type.STOP_FAILED) for found in await desk.nodes())

    await until(told)
    events = await desk.cluster.list(f"/api/v1/namespaces/{desk.namespace}/events")
    assert any(event["reason"] == "StopFailed" for event in events["items"])

    async def replaced() -> bool:
        return node.spec.token not in desk.billing()

    await until(replaced)
    await _one_running(desk)


async def test_not_found_from_a_credential_that_does_not_work_is_not_gone(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    for _ in range(2):
        desk.ledger.fail_next("stop", "InstanceNotFound")
        desk.ledger.fail_next("check", "CredentialsRefused")
    await desk.patch(DEPLOYMENT, "model", {"replicas": 0})

    async def doubted() -> bool:
        found = condition((await desk.nodes())[0].status.conditions, Type.STOP_FAILED)
        return found is not None

    await until(doubted)
    assert desk.billing() == [node.spec.token], "it bills, whatever the provider says to a stranger"
    await desk.no_nodes()
    assert desk.billing() == []


async def test_an_instance_that_no_node_knows_is_stopped_and_strangers_are_not(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    installation = await find_installation(desk.cluster, "cal-system")
    desk.ledger.add_foreign(Mark(installation, "orphanorphan"), _CHEAPEST)
    desk.ledger.add_foreign(Mark("ffffffffff", "strangerstranger"), _CHEAPEST)
    desk.ledger.add_foreign(None, _CHEAPEST)
    await desk.bills_exactly(["", node.spec.token, "strangerstranger"])
    events = await desk.cluster.list("/api/v1/namespaces/default/events")
    mine = [event for event in events["items"] if event["involvedObject"]["name"] == desk.provider]
    assert "OrphanStopped" in {event["reason"] for event in mine}


async def test_a_second_instance_with_a_node_s_token_is_stopped_and_the_recorded_one_stays(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    installation = await find_installation(desk.cluster, "cal-system")
    desk.ledger.add_foreign(Mark(installation, node.spec.token), _CHEAPEST)
    assert desk.billing() == [node.spec.token, node.spec.token]
    await desk.bills_exactly([node.spec.token])
    (still,) = await desk.nodes()
    assert still.metadata.uid == node.metadata.uid and (await desk.deployment()).status.state == "RUNNING"


async def test_a_sweep_that_cannot_see_says_so_and_stops_nothing(desk: Desk, operator: OperatorProcess) -> None:
    await desk.register(faults=[{"verb": "list", "error": "CredentialsRefused"}])
    installation = await find_installation(desk.cluster, "cal-system")
    desk.ledger.add_foreign(Mark(installation, "orphanorphan"), _CHEAPEST)

    async def blind() -> bool:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{operator.port}/metrics")).text
        return f'cal_sweep_blind{{credential="",provider="{desk.provider}"}} 1.0' in text

    await until(blind)
    assert desk.billing() == ["orphanorphan"]


async def test_nothing_is_bought_above_the_cap_whatever_the_offer_said(desk: Desk) -> None:
    await desk.register()
    await desk.pool(maxCostPerHour="0.10")
    for offer in CATALOGUE:
        desk.ledger.reprice(offer, "10")  # after the offers were read
    await desk.deploy()

    async def told() -> bool:
        found = await desk.deployment()
        waiting = found.status.waiting
        return waiting is not None and any(
            refused.reason in ("LatelyRefused", "AbovePriceCap") for refused in waiting.refused
        )

    await until(told)
    assert desk.billing() == []


async def test_a_price_above_the_cap_waits_and_says_why_offer_by_offer(desk: Desk) -> None:
    await desk.register()
    await desk.pool(maxCostPerHour="0.01")
    await desk.deploy()

    async def told() -> bool:
        waiting = (await desk.deployment()).status.waiting
        assert waiting is not None and waiting.reason == "NoOffer"
        assert {refused.reason for refused in waiting.refused} <= {"AbovePriceCap", "TooFewGPUs"}
        return "AbovePriceCap" in waiting.message

    await until(told)
    assert desk.billing() == []


async def test_the_pool_s_limits_hold_under_fifty_deployments_at_once(desk: Desk) -> None:
    await desk.register()
    await desk.pool(limits={"maxNodes": 5})
    await desk.pool("thrifty", limits={"maxCostPerHour": "0.25"})
    await asyncio.gather(*(desk.deploy(f"m{n}") for n in range(50)))
    await asyncio.gather(*(desk.deploy(f"t{n}", pool="thrifty") for n in range(10)))

    async def all_looked_at() -> bool:
        states = [(await desk.deployment(f"m{n}")).status for n in range(50)]
        states += [(await desk.deployment(f"t{n}")).status for n in range(10)]
        return all(
            status.state == "RUNNING" or (status.waiting and status.waiting.reason == "LimitReached")
            for status in states
        )

    await until(all_looked_at, timeout=90)
    nodes = await desk.nodes()
    pool, thrifty = await desk.get_pool(), await desk.get_pool("thrifty")
    counts = [
        len([node for node in nodes if node.spec.pool_ref.uid == found.metadata.uid]) for found in (pool, thrifty)
    ]
    assert counts == [5, 3], "five nodes, and three at 0.08 USD/h within 0.25"
    assert len(desk.billing()) == 8


async def test_a_paused_provider_buys_nothing_and_still_stops(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    await desk.patch(PROVIDER, desk.provider, {"desiredState": "Paused"})
    await desk.deploy("second")

    async def paused() -> bool:
        waiting = (await desk.deployment("second")).status.waiting
        return waiting is not None and waiting.reason == "Paused"

    await until(paused)
    assert len(desk.billing()) == 1
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")
    assert desk.billing() == []


async def test_a_provider_stays_while_nodes_refer_to_it(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    await desk.delete(PROVIDER, desk.provider)
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")
    assert desk.billing() == [], "the provider was still there to stop by"

    async def gone() -> bool:
        return await desk.is_gone(PROVIDER, desk.provider)

    await until(gone)


async def test_a_credential_s_secret_stays_while_an_instance_must_be_stopped_with_it(desk: Desk) -> None:
    path = f"/api/v1/namespaces/cal-system/secrets/{desk.provider}"
    data = {"apiKey": base64.b64encode(b"hunter2").decode()}
    await desk.cluster.create(
        "/api/v1/namespaces/cal-system/secrets", {"metadata": {"name": desk.provider}, "data": data}
    )
    await desk.create(
        PROVIDER,
        desk.provider,
        {"adapter": "demo", "credentials": [{"name": "main", "secretRef": {"name": desk.provider}}]},
    )
    await until(desk.provider_ready)
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    await desk.cluster.delete(path)
    secret = await desk.cluster.get(path)
    assert secret["metadata"]["deletionTimestamp"] and secret["data"] == data, "still there to stop by"
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")
    assert desk.billing() == []

    async def gone() -> bool:
        found = await desk.cluster.list("/api/v1/namespaces/cal-system/secrets")
        return desk.provider not in {item["metadata"]["name"] for item in found["items"]}

    await until(gone)


async def test_a_secret_that_is_missing_or_not_meant_for_workloads_is_waited_for(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    await desk.deploy(workload={"image": "example/model:1", "env": [reference]})

    async def says(text: str) -> bool:
        return any(text in (node.status.message or "") for node in await desk.nodes())

    await until(lambda: says("doesn't exist"))
    path = f"/api/v1/namespaces/{desk.namespace}/secrets"
    data = {"token": base64.b64encode(b"hunter2").decode()}
    await desk.cluster.create(path, {"metadata": {"name": "hf"}, "data": data})
    await until(lambda: says("isn't meant for this workload"))
    assert desk.billing() == []
    await desk.cluster.merge_patch(f"{path}/hf", {"metadata": {"labels": {LABEL_OWNER: "any"}}})
    await _one_running(desk)


async def test_only_the_annotation_lets_go_of_what_cannot_be_proven_gone(desk: Desk) -> None:
    await desk.register(faults=[{"verb": "stop", "error": "OutcomeUnknown"}])
    await desk.pool()
    await desk.deploy()
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    await desk.patch(DEPLOYMENT, "model", {"replicas": 0})

    async def told() -> bool:
        return is_true((await desk.nodes())[0].status.conditions, Type.STOP_FAILED)

    await until(told)
    path = NODE.path(desk.namespace, node.metadata.name)
    await desk.cluster.merge_patch(path, {"metadata": {"annotations": {ANNOTATION_ABANDON: "true"}}})
    await desk.no_nodes()
    events = await desk.cluster.list(f"/api/v1/namespaces/{desk.namespace}/events")
    assert any(event["reason"] == "Abandoned" and "may still bill" in event["message"] for event in events["items"])


async def test_an_offer_without_room_is_passed_over_and_counts_as_no_attempt(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    for _ in range(4):
        desk.ledger.fail_next("launch", "NoCapacity")
    await desk.deploy(backoffLimit=1)
    await _one_running(desk)


async def test_what_the_provider_refuses_for_good_fails_and_buys_nothing(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    desk.ledger.fail_next("launch", "Refused")
    await desk.deploy()
    failed = await desk.reaches("FAILED")
    assert failed.status.outcome is not None and failed.status.outcome.reason == "Refused"
    assert desk.billing() == []


async def test_max_runtime_stops_what_it_bounds(desk: Desk) -> None:
    await desk.register()
    await desk.pool()
    await desk.deploy(maxRuntimeSeconds=2)
    stopped = await desk.reaches("STOPPED")
    assert stopped.status.outcome is not None and stopped.status.outcome.reason == "MaxRuntimeExceeded"
    await desk.bills_exactly([])


async def _warnings(desk: Desk, reason: str) -> list[str]:
    """What the Events of that reason in the desk's namespace say."""
    found = await desk.cluster.list(f"/api/v1/namespaces/{desk.namespace}/events")
    return [event["message"] for event in found["items"] if event["reason"] == reason]


async def test_a_pool_s_total_warns_once_at_four_fifths_and_stops_what_runs_when_it_is_spent(desk: Desk) -> None:
    await desk.register()
    # At 0.08 USD/h the warning is due after 4.8 seconds, the end after 6.
    await desk.pool(limits={"maxTotalCost": "0.00013334"})
    await desk.deploy()
    await desk.reaches("RUNNING")

    async def warned() -> bool:
        assert await _warnings(desk, "BudgetNearlySpent") == ["80 % of limits.maxTotalCost (0.00013334 USD) is spent"]
        return True

    await until(warned)
    assert (await desk.get_pool()).status.cost is not None
    stopped = await desk.reaches("STOPPED")
    ready = condition(stopped.status.conditions, Type.READY)
    assert ready is not None and ready.reason == "BudgetSpent"
    await desk.bills_exactly([])
    await desk.deploy("second")
    await desk.reaches("STOPPED", "second")
    assert len(desk.ledger.history()) == 1, "a spent pool buys nothing"
    assert await warned(), "said once, however often it was looked at"
    await desk.patch(POOL, "pool", {"limits": {"maxTotalCost": "5"}})
    await desk.reaches("RUNNING")


async def test_pending_timeout_gives_up_with_the_reason(desk: Desk) -> None:
    await desk.register()
    await desk.pool(allowedGPUTypes=["gpu-that-nobody-has"])
    await desk.deploy(pendingTimeoutSeconds=1)
    failed = await desk.reaches("FAILED")
    assert failed.status.outcome is not None and failed.status.outcome.reason == "PendingTimeout"
    assert "GPUTypeNotAllowed" in (failed.status.error_message or "")
