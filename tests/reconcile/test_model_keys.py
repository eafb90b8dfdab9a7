"""The API key of a model, from the installation's key to the process that asks its callers for it, and that it is nowhere else.

The models are processes of the `local` adapter that guard everything but /health, as the engine does whose variable they read.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from rig.build import deployment, node
from rig.desk import QUICK, Desk, OperatorProcess
from rig.guarded_model import MODEL
from rig.waiting import until

from cal_adapters.akash.bidding import order_of
from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds import archive
from cal_crds.cluster import Cluster
from cal_crds.engines import ENGINES
from cal_crds.meta import DEPLOYMENT, LABEL_DEPLOYMENT, PROVIDER
from cal_crds.modelkeys import derive, new_secret, read_secret, secret_path
from cal_operator.__main__ import build
from cal_operator.model_keys import ModelKeys
from cal_operator.nodes.purchase import build_request
from cal_operator.settings import parse
from cal_operator.workload_secrets import EnvMissing
from cal_operator.world import World

pytestmark = pytest.mark.anyio

WORKLOAD = {"engine": "vllm", "command": [sys.executable, "-c", MODEL], "ports": [{"name": "http", "port": 8000}]}


async def _open(desk: Desk) -> None:
    """The desk's provider runs processes; its pool costs nothing."""
    await desk.create(PROVIDER, desk.provider, {"adapter": "local"})
    await until(desk.provider_ready, what="a ready provider")
    await desk.pool(gpuCount=0)


async def _close(desk: Desk, *names: str) -> None:
    for name in names:
        await desk.patch(DEPLOYMENT, name, {"desiredState": "Terminated"})
    await desk.no_nodes()


async def _key(desk: Desk, uid: str, system: str = "cal-system") -> str:
    return derive(read_secret(await desk.cluster.get(secret_path(system))), uid)


async def _answer(endpoint: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{endpoint}/v1/models", headers=headers)).status_code


async def _endpoints(desk: Desk, name: str, count: int) -> list[str]:
    async def all_serve() -> list[str]:
        nodes = (await desk.deployment(name)).status.nodes
        serving = [replica.endpoint for replica in nodes if replica.endpoint]
        return serving if len(serving) == count else []

    await desk.reaches("RUNNING", name)
    return await until(all_serve, what=f"{count} endpoints")


async def _everything(cluster: Cluster) -> dict[str, str]:
    """Every object of the API server, of every kind that can be listed, as JSON."""
    roots = ["/api/v1"]
    for group in (await cluster.get("/apis"))["groups"]:
        roots += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    found: dict[str, str] = {}
    for root in roots:
        for kind in (await cluster.get(root))["resources"]:
            if "list" in kind["verbs"] and "/" not in kind["name"]:
                for item in (await cluster.list(f"{root}/{kind['name']}"))["items"]:
                    meta = item["metadata"]
                    found[f"{kind['name']} {meta.get('namespace', '')}/{meta['name']}"] = json.dumps(item)
    return found


async def test_callers_need_the_key_of_that_very_deployment_and_probes_need_none(desk: Desk) -> None:
    await _open(desk)
    first = await desk.deploy("first", workload=WORKLOAD, replicas=2, gpuPerReplica=0)
    second = await desk.deploy("second", workload=WORKLOAD, gpuPerReplica=0)
    try:
        endpoints, (other,) = await _endpoints(desk, "first", 2), await _endpoints(desk, "second", 1)
        mine, theirs = await _key(desk, first), await _key(desk, second)
        for endpoint in endpoints:
            assert [await _answer(endpoint, key) for key in (mine, theirs, None)] == [200, 401, 401]
        assert [await _answer(other, key) for key in (mine, theirs, None)] == [401, 200, 401]
    finally:
        await _close(desk, "first", "second")


async def test_it_stands_in_no_object_and_no_log(desk: Desk, operator: OperatorProcess) -> None:
    await _open(desk)
    uid = await desk.deploy(workload=WORKLOAD, gpuPerReplica=0)
    try:
        await _endpoints(desk, "model", 1)
        key = await _key(desk, uid)
        objects = await _everything(desk.cluster)
    finally:
        await _close(desk, "model")
    objects |= {f"after its end: {name}": text for name, text in (await _everything(desk.cluster)).items()}
    forms = (key, key.removeprefix("cal-"), base64.b64encode(key.encode()).decode())
    assert any(uid in text for text in objects.values()), "the look misses what it should see"
    assert [name for name, text in objects.items() if any(form in text for form in forms)] == []
    installation = (await desk.cluster.get(secret_path("cal-system")))["data"]["key"]
    holders = {name.removeprefix("after its end: ") for name, text in objects.items() if installation in text}
    assert holders == {"secrets cal-system/cal-model-key"}
    log = operator.log.read_text()
    assert log and not any(form in log for form in (*forms, installation))


async def test_an_engine_that_prints_it_and_fails_leaves_it_neither_in_the_status_nor_in_the_kept_log(
    desk: Desk,
) -> None:
    await _open(desk)
    talker = 'import os; print("args:", {"api_key": os.environ["VLLM_API_KEY"]}); raise SystemExit("key " + os.environ["VLLM_API_KEY"])'
    workload = {**WORKLOAD, "command": [sys.executable, "-c", talker]}
    uid = await desk.deploy(workload=workload, gpuPerReplica=0)
    failed = await desk.reaches("FAILED")
    key = await _key(desk, uid)

    async def kept() -> list[str]:
        found = await desk.cluster.list(
            f"/api/v1/namespaces/{desk.namespace}/configmaps", labelSelector=f"{LABEL_DEPLOYMENT}={uid}"
        )
        return archive.unpack(found["items"][0]) if found["items"] else []

    lines = await until(kept, what="the kept log")
    assert [line for line in lines if "the model's API key" in line], lines
    nodes = [node.model_dump_json() for node in await desk.nodes(uid)]
    assert not [text for text in (*lines, failed.model_dump_json(), *nodes) if key in text]
    await _close(desk, "model")


@pytest.mark.parametrize("how", ["literal", "secret"])
async def test_a_key_that_the_workload_brings_counts_alone(desk: Desk, how: str) -> None:
    await _open(desk)
    path = f"/api/v1/namespaces/{desk.namespace}/secrets"
    labels = {"calayer.dev/owner-hash": "any"}
    await desk.cluster.create(path, {"metadata": {"name": "own", "labels": labels}, "stringData": {"k": "my-own-key"}})
    reference: dict[str, Any] = {"valueFrom": {"secretKeyRef": {"name": "own", "key": "k"}}}
    variable = reference if how == "secret" else {"value": "my-own-key"}
    workload = {**WORKLOAD, "env": [{"name": "VLLM_API_KEY", **variable}]}
    await desk.deploy(workload=workload, gpuPerReplica=0)
    try:
        (endpoint,) = await _endpoints(desk, "model", 1)
        assert [await _answer(endpoint, key) for key in ("my-own-key", None)] == [200, 401]
    finally:
        await _close(desk, "model")


async def test_an_operator_that_comes_after_derives_the_same(bare_desk: Desk, own_plane: ControlPlane) -> None:
    desk, system = bare_desk, f"{bare_desk.namespace}-system"
    await desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": system}})
    first, second = (
        OperatorProcess(own_plane.kubeconfig, desk.state_dir, port, *QUICK, f"--system-namespace={system}")
        for port in free_ports(2)
    )
    first.start()
    try:
        await _open(desk)
        uid = await desk.deploy(workload=WORKLOAD, gpuPerReplica=0)
        await _endpoints(desk, "model", 1)
        first.kill()
        second.start()
        await desk.patch(DEPLOYMENT, "model", {"replicas": 2})
        key = await _key(desk, uid, system)
        assert [await _answer(endpoint, key) for endpoint in await _endpoints(desk, "model", 2)] == [200, 200]
        await _close(desk, "model")
    finally:
        if first.process is not None and first.process.poll() is None:
            first.kill()
        assert second.process is None or second.stop() == 0, second.log.read_text()[-2000:]


# --- the request alone


class Fresh:
    """Insides of operators as they are right after their start, all of one new installation."""

    def __init__(self, desk: Desk, plane: ControlPlane) -> None:
        self.cluster, self.system, self._plane = desk.cluster, f"{desk.namespace}-system", plane

    async def world(self) -> World:
        flags = [f"--kubeconfig={self._plane.kubeconfig}", f"--system-namespace={self.system}"]
        return await build(self.cluster, self.cluster, parse(flags))


@pytest.fixture
async def fresh(bare_desk: Desk, own_plane: ControlPlane) -> AsyncIterator[Fresh]:
    made = Fresh(bare_desk, own_plane)
    await made.cluster.create("/api/v1/namespaces", {"metadata": {"name": made.system}})
    yield made


SERVING = {"engine": "vllm", "image": "acme/x:1", "ports": [{"name": "http", "port": 8000}]}


async def test_a_purchase_in_steps_is_known_again_after_a_restart(fresh: Fresh) -> None:
    """Akash knows a deployment by the hash of its manifest: one made by another process must have the same."""
    offer = {"id": "h100-1", "pricePerHour": "1"}
    bought = node(spec={"workload": SERVING, "offer": offer})
    orders = [order_of(await build_request(await fresh.world(), bought, deployment())) for _ in range(2)]
    assert orders[0].hash == orders[1].hash
    key = derive(read_secret(await fresh.cluster.get(secret_path(fresh.system))), "dep-uid")
    assert f"VLLM_API_KEY={key}" in orders[0].manifest


async def test_operators_that_start_together_agree_on_one_key(fresh: Fresh) -> None:
    worlds = [await fresh.world() for _ in range(8)]
    keys = await asyncio.gather(*(world.model_keys.of("a") for world in worlds))
    assert len(set(keys)) == 1


@pytest.mark.parametrize("engine", [None, "my-engine", "ollama"])
async def test_what_takes_no_key_gets_none_and_makes_no_secret(fresh: Fresh, engine: str | None) -> None:
    bought = node(spec={"workload": {**SERVING, "engine": engine}})
    request = await build_request(await fresh.world(), bought, deployment())
    assert list(request.env) == []
    assert (await fresh.cluster.get(f"/api/v1/namespaces/{fresh.system}/secrets"))["items"] == []


@pytest.mark.parametrize("engine", [name for name, engine in ENGINES.items() if engine.key])
async def test_each_engine_gets_it_as_a_secret_and_beside_its_own_variables(fresh: Fresh, engine: str) -> None:
    own = [{"name": "HF_HOME", "value": "/models"}]
    bought = node(spec={"workload": {**SERVING, "engine": engine, "env": own}})
    request = await build_request(await fresh.world(), bought, deployment())
    assert [(value.name, value.secret) for value in request.env] == [("HF_HOME", False), (ENGINES[engine].key, True)]
    assert request.env[1].value not in repr(request)


async def test_a_secret_that_holds_no_key_is_said_and_nothing_is_bought(fresh: Fresh) -> None:
    broken = new_secret(fresh.system)
    broken["data"]["key"] = base64.b64encode(b"hunter2").decode()
    await fresh.cluster.create(secret_path(fresh.system).rpartition("/")[0], broken)
    with pytest.raises(EnvMissing, match="cal-model-key must hold 32") as missing:
        await build_request(await fresh.world(), node(spec={"workload": SERVING}), deployment())
    assert "hunter2" not in str(missing.value)


async def test_an_operator_without_the_right_to_it_says_so(fresh: Fresh, own_plane: ControlPlane) -> None:
    async with await Cluster.connect(str(own_plane.user_kubeconfig("nobody"))) as nobody:
        world = await fresh.world()
        world.model_keys = ModelKeys(nobody, fresh.system)
        with pytest.raises(EnvMissing, match=f"Secret {fresh.system}/cal-model-key may not be read"):
            await build_request(world, node(spec={"workload": SERVING}), deployment())
