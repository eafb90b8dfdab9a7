"""What a person, `kubectl wait` and Flux read of providers, pools and deployments that aren't as one might think."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rig.desk import Desk
from rig.waiting import until

from cal_crds.conditions import Condition, Reason, Status, Type, condition
from cal_crds.meta import DEPLOYMENT, PROVIDER
from cal_crds.provider import ComputeProvider

pytestmark = pytest.mark.anyio


async def _provider(desk: Desk) -> ComputeProvider:
    return ComputeProvider.parse(await desk.cluster.get(PROVIDER.path(name=desk.provider)))


async def _ready(desk: Desk, reason: Reason) -> Condition:
    async def said() -> list[Condition]:
        conditions = (await _provider(desk)).status.conditions
        return [found for found in conditions if found.type == Type.READY and found.reason == reason]

    return (await until(said))[0]


async def test_a_paused_provider_is_as_wanted(desk: Desk) -> None:
    await desk.open()
    await desk.patch(PROVIDER, desk.provider, {"desiredState": "Paused"})
    ready = await _ready(desk, Reason.PAUSED)
    assert ready.status == Status.TRUE and "buys nothing" in ready.message
    busy = condition((await _provider(desk)).status.conditions, Type.RECONCILING)
    assert busy is not None and busy.status == Status.FALSE


async def test_a_provider_that_is_deleted_says_what_it_waits_for_and_goes_then(desk: Desk) -> None:
    await desk.open()
    await desk.serve()
    await desk.cluster.delete(PROVIDER.path(name=desk.provider))
    ready = await _ready(desk, Reason.DELETING)
    assert ready.status == Status.FALSE and ready.message.startswith("1 nodes are not proven gone")
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})

    async def gone() -> bool:
        found = await desk.cluster.list(PROVIDER.path())
        return desk.provider not in [item["metadata"]["name"] for item in found["items"]]

    await until(gone)
    assert desk.billing() == []


async def test_nothing_is_bought_in_a_pool_that_turns_out_to_be_another_s_twin(desk: Desk) -> None:
    await desk.open(displayName="the same")
    for number in range(4):
        await desk.deploy(f"early-{number}", pool="younger")
    elder = (await desk.get_pool()).metadata.creation_timestamp

    async def a_second_later() -> bool:  # which pool is the younger shows in whole seconds
        return elder is not None and datetime.now(UTC) > elder + timedelta(seconds=1)

    await until(a_second_later)
    await desk.pool("younger", displayName="the same")
    for number in range(4):

        async def waits(name: str = f"early-{number}") -> bool:
            waiting = (await desk.deployment(name)).status.waiting
            return waiting is not None and waiting.reason == Reason.POOL_NOT_READY and "the same" in waiting.message

        await until(waits)
    assert desk.billing() == [] and await desk.nodes() == []


async def test_a_missing_pool_is_named(desk: Desk) -> None:
    await desk.deploy(pool="nowhere")

    async def told() -> bool:
        waiting = (await desk.deployment()).status.waiting
        return waiting is not None and waiting.reason == Reason.POOL_MISSING and "nowhere" in waiting.message

    await until(told)


async def test_what_waits_for_room_in_the_pool_says_for_how_much_also_while_others_serve(desk: Desk) -> None:
    await desk.open(limits={"maxNodes": 1})
    await desk.deploy(replicas=2)
    found = await desk.reaches("DEGRADED")
    ready = condition(found.status.conditions, Type.READY)
    assert ready is not None and ready.message == "1 of 2 replicas answer; the pool's limits.maxNodes (1) is reached"


def test_a_kubeconfig_that_is_not_there_is_said_in_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    argv = [sys.executable, "-P", "-m", "cal_operator", f"--kubeconfig={tmp_path_factory.mktemp('none')}/kubeconfig"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "Config not found" in ended.stderr and "Traceback" not in ended.stderr
