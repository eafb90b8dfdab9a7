"""Both paid providers behind a real operator and a real relay: somebody with a key, who writes resources, and the stand-in that bills them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from rig.desk import QUICK, OperatorProcess
from rig.waiting import until
from worlds import akash, nosana
from worlds.akash_state import address

from cal_adapters.contract import Mark
from cal_cli.controlplane import ControlPlane, Options, start
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster
from cal_crds.conditions import Condition, condition
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE, POOL, PROVIDER, Kind
from cal_crds.node import ComputeNode
from cal_crds.provider import ComputeProvider

REPO = Path(__file__).resolve().parents[3]
_numbers = itertools.count(1)


class Site(Protocol):
    """A stand-in as a server, and what it knows."""

    adapter: str
    key: str
    other_key: str
    url: str

    def spec(self) -> dict[str, Any]:
        """What a ComputeProvider needs to be led here."""

    def pool(self) -> dict[str, Any]: ...

    def requests(self) -> int:
        """How many requests have come in."""

    def billing(self) -> list[tuple[str, str]]:
        """Owner and name of all that bills or may."""

    def open(self, name: str) -> None:
        """Somebody buys an instance of that name with the first key, behind our back."""

    def advance(self, seconds: float) -> None: ...

    def revoke(self, key: str) -> None: ...

    def admit(self, key: str) -> None:
        """Give the first account that key (again)."""

    def fund(self, dollars: int) -> None: ...

    def say(self, line: str) -> None:
        """What the only running instance writes."""


class NosanaSite:
    adapter, key, other_key = "nosana", nosana.KEY, "nos_other_key"

    def __init__(self) -> None:
        self.world = nosana.Nosana()
        self.provider = self.world.provider
        self.url = ""
        self.provider.add_account(self.other_key)
        self.owners = [account.owner for account in self.provider.accounts]

    def spec(self) -> dict[str, Any]:
        return {"adapter": "nosana", "endpoint": self.url, "nosana": {"nodeURL": f"{self.url}/node/{{node}}"}}

    def pool(self) -> dict[str, Any]:
        return {"allowedGPUTypes": ["rtx3090"], "providerPoolID": "nvidia-3090", "maxCostPerHour": "0.50"}

    def requests(self) -> int:
        return self.world.requests

    def billing(self) -> list[tuple[str, str]]:
        return sorted((bill["owner"], bill["name"]) for bill in self.provider.billing())

    def open(self, name: str) -> None:
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            http.post("/_world/crowd", json={"key": self.key, "names": [name]}).raise_for_status()

    def advance(self, seconds: float) -> None:
        self.provider.advance(seconds)

    def revoke(self, key: str) -> None:
        for account in self.provider.accounts:
            account.keys.discard(key)

    def admit(self, key: str) -> None:
        self.provider.add_account(key, self.owners[0])

    def fund(self, dollars: int) -> None:
        account = self.provider.accounts[0]
        account.assigned = account.settled + dollars

    def say(self, line: str) -> None:
        (job,) = [job for job in self.provider.jobs.values() if job.state == "RUNNING"]
        self.provider.say(job, line)


class AkashSite:
    adapter, key, other_key = "akash", akash.KEY, akash.OTHER_KEY

    def __init__(self) -> None:
        self.world = akash.Akash()
        self.state = self.world.state
        self.url = ""
        self.owners = [account.owner for account in self.state.accounts]

    def spec(self) -> dict[str, Any]:
        settings = {"bidWaitSeconds": 20, "providerProxy": f"{self.url}/provider-proxy"}
        return {"adapter": "akash", "endpoint": self.url, "akash": settings}

    def pool(self) -> dict[str, Any]:
        return {"allowedGPUTypes": ["rtx4090"], "maxCostPerHour": "1.00"}

    def requests(self) -> int:
        return sum(self.world.requests.values())

    def billing(self) -> list[tuple[str, str]]:
        return sorted((item.owner, item.groups[0]) for item in self._open())

    def _open(self) -> list[Any]:
        return [item for item in list(self.state.deployments.values()) if item.closed is None]

    def open(self, name: str) -> None:
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            http.post("/_world/open", json={"owner": address("owner"), "name": name}).raise_for_status()

    def advance(self, seconds: float) -> None:
        self.state.advance(seconds)

    def revoke(self, key: str) -> None:
        for account in self.state.accounts:
            account.keys.discard(key)

    def admit(self, key: str) -> None:
        self.state.accounts[0].keys.add(key)

    def fund(self, dollars: int) -> None:
        self.state.accounts[0].credits = dollars * type(self.state.accounts[0].credits)(1_000_000)

    def leases(self) -> list[Decimal]:
        """US dollars per hour of each lease that bills."""
        return [item.lease.bid.usd for item in self._open() if item.lease is not None]

    def say(self, line: str) -> None:
        (item,) = [item for item in self._open() if item.lease is not None]
        item.log.append((self.state.now(), line))


@dataclass
class Customer:
    """Somebody with keys at one provider, who writes resources in a namespace of their own."""

    cluster: Cluster
    site: Any
    name: str
    operator: OperatorProcess
    relay: str
    keys: dict[str, str] = field(default_factory=dict)

    async def register(self, **keys: str) -> None:
        """The provider, with a Secret for each credential."""
        await self.cluster.create("/api/v1/namespaces", {"metadata": {"name": self.name}})
        for credential, key in keys.items():
            body = {"metadata": {"name": self._secret(credential)}, "data": _data(key)}
            await self.cluster.create("/api/v1/namespaces/cal-system/secrets", body)
        refs = [{"name": name, "secretRef": {"name": self._secret(name)}} for name in keys]
        await self.create(PROVIDER, self.name, {**self.site.spec(), "credentials": refs})

    async def set_key(self, key: str, credential: str = "main") -> None:
        path = f"/api/v1/namespaces/cal-system/secrets/{self._secret(credential)}"
        await self.cluster.merge_patch(path, {"data": _data(key)})
        # A Secret is looked at when its provider is: with the next refresh of the offers, or when its object changes.
        note = {"metadata": {"annotations": {"test/key": f"changed {next(_numbers)}"}}}
        await self.cluster.merge_patch(PROVIDER.path(name=self.name), note)

    def _secret(self, credential: str) -> str:
        return f"{self.name}-{credential}"

    async def pool(self, name: str = "pool", credential: str | None = None, **changes: Any) -> None:
        reference = {"name": self.name} | ({"credential": credential} if credential else {})
        spec = {"owner": {"id": "me"}, "providerRef": reference, "displayName": name}
        await self.create(POOL, name, {**spec, **self.site.pool(), **changes})

    async def deploy(self, name: str = "chat", pool: str = "pool", **changes: Any) -> None:
        spec = {"poolRef": {"name": pool}, "model": {"name": "m", "id": "acme/m"}, "gpuPerReplica": 1}
        workload = {"image": "acme/model:1", "ports": [{"name": "http", "port": 8000}]}
        await self.create(DEPLOYMENT, name, {**spec, "workload": workload, **changes})

    async def create(self, kind: Kind, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        await self.cluster.create(kind.path(self.name if kind.namespaced else None), body)

    async def terminate(self, name: str = "chat") -> None:
        await self.cluster.merge_patch(DEPLOYMENT.path(self.name, name), {"spec": {"desiredState": "Terminated"}})

    # --- looking -----------------------------------------------------------------------------------------------------

    async def deployment(self, name: str = "chat") -> ModelDeployment:
        return ModelDeployment.parse(await self.cluster.get(DEPLOYMENT.path(self.name, name)))

    async def provider(self) -> ComputeProvider:
        return ComputeProvider.parse(await self.cluster.get(PROVIDER.path(name=self.name)))

    async def provider_condition(self, kind: Any) -> Condition | None:
        return condition((await self.provider()).status.conditions, kind)

    async def nodes(self) -> list[ComputeNode]:
        return [ComputeNode.parse(item) for item in (await self.cluster.list(NODE.path(self.name)))["items"]]

    async def reaches(self, state: str, name: str = "chat", timeout: float = 90) -> ModelDeployment:
        async def there() -> ModelDeployment:
            found = await self.deployment(name)
            assert found.status.state == state, f"{found.status.state}: {found.status.waiting} {await self._said()}"
            return found

        return await until(there, timeout, f"{name} {state}")

    async def _said(self) -> list[str | None]:
        return [node.status.message for node in await self.nodes()]

    async def no_nodes(self, timeout: float = 90) -> None:
        async def none() -> bool:
            assert await self._said() == []
            return True

        await until(none, timeout, "the end of all nodes")

    def bills(self) -> list[Mark | None]:
        return [Mark.read(name) for _, name in self.site.billing()]

    async def metric(self, line: str) -> bool:
        """Whether the operator's metrics have that line."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return line in (await http.get(f"http://127.0.0.1:{self.operator.port}/metrics")).text.splitlines()


def _data(key: str) -> dict[str, str]:
    return {"apiKey": base64.b64encode(key.encode()).decode()}


@pytest.fixture(scope="package")
def plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """A control plane with one operator, which nobody else's tests disturb."""
    directory = Path(tempfile.mkdtemp(prefix="cal-test-"))
    running = start(directory, binaries, Options(fsync=False))
    try:
        kubectl = [str(binaries["kubectl"]), f"--kubeconfig={running.kubeconfig}"]
        subprocess.run([*kubectl, "apply", "--server-side", "-f", str(REPO / "crds")], check=True, capture_output=True)
        subprocess.run([*kubectl, "create", "namespace", "cal-system"], check=True, capture_output=True)
        yield running
    finally:
        running.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="package")
def operator(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    process = OperatorProcess(plane.kubeconfig, tmp_path_factory.mktemp("op"), free_ports(1)[0], *QUICK).start()
    yield process
    assert process.stop() == 0, process.log.read_text()[-4000:]


@pytest.fixture(scope="package")
def relay(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a relay."""
    (port,), log = free_ports(1), tmp_path_factory.mktemp("relay") / "log"
    argv = [sys.executable, "-P", "-m", "cal_relay", f"--kubeconfig={plane.kubeconfig}", f"--port={port}"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(argv, stderr=stderr, stdin=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.terminate()
    assert process.wait(30) == 0, log.read_text()[-4000:]


@asynccontextmanager
async def _open(adapter: str) -> AsyncIterator[Any]:
    if adapter == "nosana":
        site = NosanaSite()
        with site.world.serve() as url:
            site.url = url
            yield site
    else:
        market = AkashSite()
        async with akash.served(market.world) as url:
            market.url = url
            yield market


async def _run(site: Any) -> None:
    """The provider's clock runs ten times as fast as ours: bids, blocks and what has to settle take their time."""
    while True:
        site.advance(0.5)
        await asyncio.sleep(0.05)


@pytest.fixture(params=["nosana", "akash"])
async def site(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Any]:
    async with _open(request.param) as site:
        clock = asyncio.create_task(_run(site))
        yield site
        clock.cancel()
        with suppress(asyncio.CancelledError):
            await clock
        assert site.world.violations == []


@pytest.fixture
async def customer(plane: ControlPlane, operator: OperatorProcess, relay: str, site: Any) -> AsyncIterator[Customer]:
    assert operator.process is not None and operator.process.poll() is None, operator.log.read_text()[-4000:]
    async with await Cluster.connect(str(plane.kubeconfig)) as cluster:
        yield Customer(cluster, site, f"{site.adapter}-{os.getpid()}-{next(_numbers)}", operator, relay)


@pytest.fixture
def waiting() -> Callable[..., Any]:
    """await waiting(check, timeout, what): `until` of the rig, for tests."""
    return until
