"""The whole of it: a real operator on a real API server buys at the world, serves, and leaves nothing behind."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig.desk import QUICK, OperatorProcess
from rig.plane import operator_plane
from rig.waiting import until

from cal_cli.controlplane import ControlPlane
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE, POOL, PROVIDER
from cal_crds.modelkeys import derive, read_secret, secret_path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
CREATE = r"^POST /api/deployments/create$"


@pytest.fixture(scope="module")
def plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    with operator_plane(binaries) as running:
        yield running


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path, free_port: int) -> Iterator[OperatorProcess]:
    process = OperatorProcess(plane.kubeconfig, tmp_path, free_port, *QUICK).start()
    yield process
    assert process.stop() == 0, process.log.read_text()[-4000:]


class Owner:
    """Somebody with an API key, who writes resources."""

    def __init__(self, cluster: Cluster, rig: Any) -> None:
        self.cluster, self.rig = cluster, rig
        self.name = f"nosana-{os.urandom(3).hex()}"

    async def register(self) -> None:
        await self.cluster.create("/api/v1/namespaces", {"metadata": {"name": self.name}})
        data = {"apiKey": base64.b64encode(self.rig.key.encode()).decode()}
        secret = {"metadata": {"name": self.name}, "data": data}
        await self.cluster.create("/api/v1/namespaces/cal-system/secrets", secret)
        spec = {
            "adapter": "nosana",
            "endpoint": self.rig.url,
            "credentials": [{"name": "main", "secretRef": {"name": self.name}}],
            "nosana": {"nodeURL": f"{self.rig.url}/node/{{node}}"},
        }
        await self.create(PROVIDER, self.name, spec)
        pool = {"owner": {"id": "me"}, "providerRef": {"name": self.name}, "allowedGPUTypes": ["rtx3090"]}
        await self.create(POOL, "pool", {**pool, "providerPoolID": "nvidia-3090", "maxCostPerHour": "0.50"})

    async def deploy(self, name: str) -> None:
        spec = {"poolRef": {"name": "pool"}, "model": {"name": "m", "id": "acme/m"}, "gpuPerReplica": 1}
        await self.create(DEPLOYMENT, name, {**spec, "workload": {"engine": "vllm"}})

    async def create(self, kind: Any, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        await self.cluster.create(kind.path(self.name if kind.namespaced else None), body)

    async def status(self, name: str) -> Any:
        found: dict[str, Any] = await self.cluster.get(DEPLOYMENT.path(self.name, name))
        return found.get("status") or {}

    async def nodes(self) -> list[Any]:
        items: list[Any] = (await self.cluster.get(NODE.path(self.name)))["items"]
        return items

    async def in_state(self, name: str, *states: str) -> Any:
        async def there() -> Any:
            status = await self.status(name)
            assert status.get("state") in states, status
            return status

        return await until(there, timeout=90, what=f"{name} in {states}")

    async def terminate(self, name: str) -> None:
        await self.cluster.merge_patch(DEPLOYMENT.path(self.name, name), {"spec": {"desiredState": "Terminated"}})


@pytest.fixture
async def owner(plane: ControlPlane, rig: Any, anyio_backend: str) -> Any:
    async with await Cluster.connect(str(plane.kubeconfig)) as cluster:
        made = Owner(cluster, rig)
        await made.register()
        yield made


async def test_from_a_key_to_an_endpoint_and_back(operator: OperatorProcess, owner: Owner) -> None:
    await owner.deploy("chat")
    status = await owner.in_state("chat", "RUNNING")
    (billed,) = await owner.rig.ask("billing")
    assert status["endpoint"] == f"{owner.rig.url}/service/{billed['deployment']}"
    (node,) = await owner.nodes()
    assert node["status"]["instance"]["id"] == billed["jobs"][0]
    assert node["status"]["instance"]["pricePerHour"] == "0.2112"
    provider = await owner.cluster.get(PROVIDER.path(name=owner.name))
    assert provider["status"]["credentials"][0]["account"] == billed["owner"]
    assert provider["status"]["balance"] == "1000"
    await _is_guarded(owner)
    await owner.terminate("chat")
    await owner.in_state("chat", "TERMINATED")
    (deployment,) = await owner.rig.ask("deployments")
    assert (deployment["status"], await owner.rig.ask("billing"), await owner.nodes()) == ("ARCHIVED", [], [])


async def _is_guarded(owner: Owner) -> None:
    """The model has the API key of its deployment, in a definition that isn't published."""
    (deployment,) = await owner.rig.ask("deployments")
    key = read_secret(await owner.cluster.get(secret_path("cal-system")))
    uid = (await owner.cluster.get(DEPLOYMENT.path(owner.name, "chat")))["metadata"]["uid"]
    (operation,) = deployment["body"]["job_definition"]["ops"]
    assert operation["args"]["env"] == {"VLLM_API_KEY": derive(key, uid)}
    assert deployment["confidential"] is True


async def test_a_lost_answer_and_a_killed_operator_buy_one_instance(
    operator: OperatorProcess, owner: Owner, tmp_path: Path
) -> None:
    await owner.rig.fault(CREATE, "cut-after")
    await owner.rig.fault(r"/start$", "cut-after")
    await owner.deploy("chat")

    async def made() -> bool:
        return bool(await owner.rig.ask("deployments"))

    await until(made, timeout=60)
    operator.kill()
    operator.start()

    async def running() -> Any:
        # The provider's clock runs ahead: what has to settle at Nosana settles at once.
        await owner.rig.advance(5)
        return (await owner.status("chat")).get("state") == "RUNNING"

    await until(running, timeout=120)
    assert len(await owner.rig.ask("deployments")) == 1
    assert len(await owner.nodes()) == 1
    await owner.terminate("chat")
    await owner.in_state("chat", "TERMINATED")
    assert await owner.rig.ask("billing") == []
