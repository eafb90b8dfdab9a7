"""The protocol that may not have holes: whatever is lost, refused or late, nothing is bought twice and nothing runs on unseen."""

from __future__ import annotations

import base64

import httpx
import pytest
from rig.desk import Desk, OperatorProcess
from rig.waiting import until

from cal_adapters.connect import find_installation
from cal_adapters.contract import Mark
from cal_crds.conditions import Type, condition, is_true
from cal_crds.meta import ANNOTATION_ABANDON, DEPLOYMENT, LABEL_OWNER, NODE, PROVIDER

pytestmark = pytest.mark.anyio

_CHEAPEST = "rtx-3060-x1-global"


async def _one_running(desk: Desk) -> None:
    await desk.reaches("RUNNING")
    (node,) = await desk.nodes()
    await desk.bills_exactly([node.spec.token])


async def test_a_launch_whose_answer_is_lost_is_found_again_and_not_repeated(desk: Desk) -> None:
    await desk.open()
    desk.ledger.fail_next("launch", "AnswerLost")
    await desk.deploy()
    await _one_running(desk)


async def test_a_launch_that_never_happened_is_repeated_once_look_ups_prove_it(desk: Desk) -> None:
    await desk.open()
    desk.ledger.fail_next("launch", "OutcomeUnknown")
    await desk.deploy()
    await _one_running(desk)


async def test_look_ups_that_fail_prove_nothing(desk: Desk) -> None:
    await desk.open()
    desk.ledger.fail_next("launch", "AnswerLost")
    for _ in range(3):
        desk.ledger.fail_next("find", "OutcomeUnknown")
    await desk.deploy()
    await _one_running(desk)


async def test_a_deployment_deleted_while_its_launch_is_unknown_leaves_nothing_behind(desk: Desk) -> None:
    await desk.open()
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
    await desk.open()
    node = await desk.serve()
    for _ in range(2):
        desk.ledger.fail_next("stop", "OutcomeUnknown")
    await desk.delete(NODE, node.metadata.name)

    async def told() -> bool:
        return any(is_true(found.status.conditions, Type.STOP_FAILED) for found in await desk.nodes())

    await until(told)

    async def evented() -> bool:  # the Event follows the condition
        return any(event["reason"] == "StopFailed" for event in await desk.events())

    await until(evented)

    async def replaced() -> bool:  # the object goes a moment after what it stands for
        present = [found.spec.token for found in await desk.nodes()]
        return node.spec.token not in [*desk.billing(), *present]

    await until(replaced)
    await _one_running(desk)


async def test_not_found_from_a_credential_that_does_not_work_is_not_gone(desk: Desk) -> None:
    await desk.open()
    node = await desk.serve()
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
    await desk.open()
    node = await desk.serve()
    installation = await find_installation(desk.cluster, "cal-system")
    desk.ledger.add_foreign(Mark(installation, "orphanorphan"), _CHEAPEST)
    desk.ledger.add_foreign(Mark("ffffffffff", "strangerstranger"), _CHEAPEST)
    desk.ledger.add_foreign(None, _CHEAPEST)
    await desk.bills_exactly(["", node.spec.token, "strangerstranger"])
    events = await desk.events("default")
    mine = [event for event in events if event["involvedObject"]["name"] == desk.provider]
    assert "OrphanStopped" in {event["reason"] for event in mine}


async def test_a_second_instance_with_a_node_s_token_is_stopped_and_the_recorded_one_stays(desk: Desk) -> None:
    await desk.open()
    node = await desk.serve()
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


async def test_a_provider_stays_while_nodes_refer_to_it(desk: Desk) -> None:
    await desk.open()
    await desk.serve()
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
    await desk.serve()
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
    await desk.open()
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
    node = await desk.serve()
    await desk.patch(DEPLOYMENT, "model", {"replicas": 0})

    async def told() -> bool:
        return is_true((await desk.nodes())[0].status.conditions, Type.STOP_FAILED)

    await until(told)
    path = NODE.path(desk.namespace, node.metadata.name)
    await desk.cluster.merge_patch(path, {"metadata": {"annotations": {ANNOTATION_ABANDON: "true"}}})
    await desk.no_nodes()
    events = await desk.events()
    assert any(event["reason"] == "Abandoned" and "may still bill" in event["message"] for event in events)


async def test_an_offer_without_room_is_passed_over_and_counts_as_no_attempt(desk: Desk) -> None:
    await desk.open()
    for _ in range(4):
        desk.ledger.fail_next("launch", "NoCapacity")
    await desk.deploy(backoffLimit=1)
    await _one_running(desk)


async def test_what_the_provider_refuses_for_good_fails_and_buys_nothing(desk: Desk) -> None:
    await desk.open()
    desk.ledger.fail_next("launch", "Refused")
    await desk.deploy()
    failed = await desk.reaches("FAILED")
    assert failed.status.outcome is not None and failed.status.outcome.reason == "Refused"
    assert desk.billing() == []
