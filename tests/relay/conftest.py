"""A real relay process, demo providers whose books the tests write, and nodes as the operator would record them."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from rig import service
from rig.follower import Follower
from rig.market import Market
from rig.service import Service
from websockets.asyncio.client import ClientConnection, connect

from cal_adapters.fake import Ledger, ledger_path
from cal_cli.controlplane.plane import free_ports as find_free_ports
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, PROVIDER

_ROOTS = ("relay", "adapters", "crds")
_counter = itertools.count(1)


class RelayProcess(Service):
    """A `python -m cal_relay` that runs."""

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> tuple[int, Any]:
        """Status and body (JSON where it is) of a request."""
        reply = httpx.request(method, self.url + path, headers=dict(headers or {}), timeout=30, trust_env=False)
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        return reply.status_code, reply.json() if is_json else reply.text

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line.split()[1] for line in lines if line.split()[0] == name))


@pytest.fixture(scope="session")
def relay_command() -> Callable[..., tuple[list[str], dict[str, str]]]:
    """(argv, environment) of a relay with these flags."""
    return lambda *flags: (service.command("cal_relay", *flags), service.environment(*_ROOTS))


@pytest.fixture(scope="session")
def adapter_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the adapters keep their state."""
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def start_relay(
    kubeconfig: Path, adapter_state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RelayProcess]]:
    """start_relay(port, *flags): a relay that is ready; stopped at the end of the run if it still runs."""
    started: list[RelayProcess] = []
    common = (f"--kubeconfig={kubeconfig}", "--enable-adapters=demo,local", f"--adapter-state-dir={adapter_state}")

    def start(port: int, *flags: str) -> RelayProcess:
        log, env = tmp_path_factory.mktemp("relay") / "log", service.environment(*_ROOTS)
        launched = service.launch("cal_relay", *common, *flags, env=env, log=log, port=port)
        started.append(RelayProcess(launched.process, launched.port, launched.log))
        return started[-1]

    yield start
    for relay in started:
        assert relay.stop() in (0, -signal.SIGKILL), relay.log.read_text()


@pytest.fixture(scope="session")
def relay(start_relay: Callable[..., RelayProcess], free_ports: Callable[[int], list[int]]) -> RelayProcess:
    """The relay that most tests share."""
    return start_relay(free_ports(1)[0])


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    return find_free_ports


@pytest.fixture
async def make_market(cluster: Cluster, namespace: str, adapter_state: Path) -> Any:
    """`await make_market()`: a new provider with books of its own."""

    async def make(**spec: Any) -> Market:
        provider = f"demo-{os.getpid()}-{next(_counter)}"
        body = {"apiVersion": API_VERSION, "kind": "ComputeProvider", "metadata": {"name": provider}}
        await cluster.create(PROVIDER.path(), {**body, "spec": {"adapter": "demo", **spec}})
        deployment = {
            "apiVersion": API_VERSION,
            "kind": "ModelDeployment",
            "metadata": {"generateName": "m-"},
            "spec": {"poolRef": {"name": "p"}, "model": {"name": "m"}},
        }
        made = await cluster.create(DEPLOYMENT.path(namespace), deployment)
        ledger = Ledger(ledger_path(adapter_state, provider))
        return Market(cluster, namespace, provider, ledger, made["metadata"]["name"], made["metadata"]["uid"])

    return make


@pytest.fixture
async def market(make_market: Any) -> Market:
    """One demo provider."""
    made: Market = await make_market()
    return made


@pytest.fixture
async def follow(relay: RelayProcess) -> AsyncIterator[Any]:
    """`await follow(job_id, path="/", provider=..., ...)`: a connection that has sent its subscription; closed after the test."""
    sockets: list[ClientConnection] = []

    async def start(job_id: str, path: str = "/", to: RelayProcess = relay, **more: Any) -> Follower:
        socket = await connect(to.ws + path, max_size=2**22, proxy=None)
        sockets.append(socket)
        await socket.send(json.dumps({"type": "subscribe_logs", "jobId": job_id, **more}))
        return Follower(socket)

    yield start
    for socket in sockets:
        await socket.close()
