"""The k8s adapter on a cluster with a real kubelet: kind, where a container engine runs (pytest-kind, extra `kind`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from rig.waiting import until

from cal_adapters.contract import Adapter, Context, LaunchRequest, Mark, State, Stop
from cal_adapters.registry import load
from cal_crds.names import new_token
from cal_crds.pool import Tenancy
from cal_crds.provider import KubernetesSettings, ProviderSpec
from cal_crds.workload import ServedModel, Workload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

_INSTALLATION = "c1a55c1a55"


def _engine_runs() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def kind_kubeconfig(request: pytest.FixtureRequest) -> Path:
    """The kubeconfig of a kind cluster."""
    if not _engine_runs():
        pytest.skip("kind needs a container engine, and none runs here")
    return Path(request.getfixturevalue("kind_cluster").kubeconfig_path)


@pytest.fixture
async def adapter(kind_kubeconfig: Path) -> AsyncIterator[Adapter]:
    settings = ProviderSpec(adapter="k8s", kubernetes=KubernetesSettings(namespace="default"))
    made = load("k8s")(Context("k8s", settings, _INSTALLATION, kubeconfig=str(kind_kubeconfig)))
    yield made
    await made.close()


async def test_a_pod_runs_says_something_and_goes(adapter: Adapter) -> None:
    offer = next(iter(await adapter.offers()))
    request = LaunchRequest(
        mark=Mark(_INSTALLATION, new_token()),
        node="kind-node",
        namespace="default",
        deployment_uid="11111111-1111-4111-8111-111111111111",
        pool_uid="22222222-2222-4222-8222-222222222222",
        offer=offer,
        provider_pool_id=None,
        tenancy=Tenancy.SHARED,
        gpu_count=0,
        max_price_per_hour=Decimal(0),
        model=ServedModel(name="tiny"),
        workload=Workload(image="busybox:1.37", command=["sh", "-c", "echo hello from a real kubelet; sleep 3600"]),
    )
    bought = await adapter.launch(request)
    try:

        async def running() -> bool:
            return (await adapter.observe(bought.handle)).state is State.RUNNING

        await until(running, timeout=300)

        async def said() -> bool:
            return "hello from a real kubelet" in await adapter.logs(bought.handle, 10)

        await until(said)
    finally:

        async def gone() -> bool:
            return await adapter.stop(bought.handle) is Stop.GONE

        await until(gone, timeout=120)
    assert await adapter.find(request.mark) == []
