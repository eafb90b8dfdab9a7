"""A real relay process, demo providers whose books the tests write, and nodes as the operator would record them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect

from cal_adapters.contract import Mark
from cal_adapters.fake import Ledger, ledger_path
from cal_adapters.fake.ledger import Purchase
from cal_cli.controlplane.plane import free_ports as find_free_ports
from cal_crds import archive, names
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE, PROVIDER
from cal_crds.names import digest

_ROOTS = ("relay", "adapters", "crds")
_REPO = Path(__file__).resolve().parents[2]
_counter = itertools.count(1)


@dataclass
class RelayProcess:
    """A `python -m cal_relay` that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> tuple[int, Any]:
        """Status and body (JSON where it is) of a request."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                status, body, kind = reply.status, reply.read(), reply.headers.get_content_type()
        except urllib.error.HTTPError as error:
            with error:
                status, body, kind = error.code, error.read(), error.headers.get_content_type()
        return status, json.loads(body) if kind == "application/json" else body.decode()

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line.split()[1] for line in lines if line.split()[0] == name))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def relay_command() -> Callable[..., tuple[list[str], dict[str, str]]]:
    """(argv, environment) of a relay with these flags."""

    def command(*flags: str) -> tuple[list[str], dict[str, str]]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("CAL_", "KUBE"))}
        env["PYTHONPATH"] = os.pathsep.join(str(_REPO / root) for root in _ROOTS)
        return [sys.executable, "-W", "error", "-m", "cal_relay", *flags], env

    return command


@pytest.fixture(scope="session")
def adapter_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the adapters keep their state."""
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def start_relay(
    kubeconfig: Path,
    adapter_state: Path,
    relay_command: Callable[..., tuple[list[str], dict[str, str]]],
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., Any],
) -> Iterator[Callable[..., RelayProcess]]:
    """start_relay(port, *flags): a relay that is ready; stopped at the end of the run if it still runs."""
    started: list[RelayProcess] = []

    def start(port: int, *flags: str) -> RelayProcess:
        log = tmp_path_factory.mktemp("relay") / "log"
        argv, env = relay_command(
            f"--kubeconfig={kubeconfig}",
            f"--port={port}",
            "--enable-adapters=demo,local",
            f"--adapter-state-dir={adapter_state}",
            *flags,
        )
        with log.open("wb") as stderr:
            process = subprocess.Popen(argv, env=env, stderr=stderr, stdin=subprocess.DEVNULL)
        relay = RelayProcess(process, port, log)
        started.append(relay)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return relay.get("/readyz")[0] == 200
            except OSError:
                return False

        eventually(ready, timeout=30)
        return relay

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


@dataclass
class Bought:
    """A node with an instance in the demo market."""

    market: Market
    body: dict[str, Any]
    mark: Mark
    id: str

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def path(self) -> str:
        return NODE.path(self.market.namespace, self.name)

    def say(self, *lines: str) -> None:
        """The workload prints."""
        for line in lines:
            self.market.ledger.say(self.mark, line)

    def end(self) -> None:
        """The workload ends by itself."""
        self.market.ledger.end(self.mark, "Succeeded", 0)

    async def status(self, **status: Any) -> None:
        """What the operator writes."""
        await self.market.cluster.merge_patch(f"{self.path}/status", {"status": status})

    async def keep(self, lines: Sequence[str], uid: str | None = None) -> None:
        """The operator archives its log; `uid`: that of another node of this name."""
        body = archive.build(
            node_name=self.name,
            node_uid=uid or self.uid,
            namespace=self.market.namespace,
            deployment=(self.market.deployment, self.market.deployment_uid),
            instance_id=self.id,
            provider=self.market.provider,
            lines=lines,
        )
        await self.market.cluster.create(f"/api/v1/namespaces/{self.market.namespace}/configmaps", body)

    async def delete(self) -> None:
        await self.market.cluster.delete(self.path)


@dataclass
class Market:
    """A ComputeProvider on the demo adapter, a deployment, and the market's books."""

    cluster: Cluster
    namespace: str
    provider: str
    ledger: Ledger
    deployment: str = "m"
    deployment_uid: str = ""
    _slots: Iterator[int] = field(default_factory=itertools.count)

    async def node(self, *, bought: bool = True, **spec: Any) -> Bought:
        """A node as the operator makes it, with an instance bought and recorded unless told otherwise."""
        slot = next(self._slots)
        mark = Mark("0a1b2c3d4e", names.new_token())
        body = await self.cluster.create(NODE.path(self.namespace), self._body(slot, mark, spec))
        node = Bought(self, body, mark, "")
        if bought:
            await self.buy(node)
        return node

    async def buy(self, node: Bought) -> None:
        """Buy the instance and record it."""
        now = self.ledger.now()
        purchase = Purchase(node.mark, "demo", Decimal(1), None, now, now, now, None)
        node.id = f"demo-{self.ledger.buy(purchase).id}"
        await node.status(instance={"handle": node.id, "id": node.id, "pricePerHour": "1"})

    def _body(self, slot: int, mark: Mark, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "ComputeNode",
            "metadata": {"name": f"{self.deployment}-{digest(self.provider, str(slot))}"},
            "spec": {
                "deploymentRef": {"name": self.deployment, "uid": self.deployment_uid},
                "poolRef": {"name": "p", "uid": "1"},
                "providerRef": {"name": self.provider},
                "slot": slot,
                "token": mark.token,
                "templateHash": "x",
                "offer": {"id": "demo"},
                "model": {"name": "m"},
                "workload": {},
                **spec,
            },
        }


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


@dataclass
class Follower:
    """A client as they are in the wild: sends a subscription, reads frames."""

    socket: ClientConnection
    #: All frames so far.
    frames: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The lines of the log, without the relay's own words."""
        return [frame["data"] for frame in self.frames if frame["type"] == "log" and "notice" not in frame]

    @property
    def notices(self) -> list[str]:
        return [frame["data"] for frame in self.frames if "notice" in frame]

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        self.frames.append(json.loads(await self.socket.recv()))
        return self.frames[-1]

    async def until(self, done: Callable[[Follower], object]) -> None:
        """Read on until it is so. The test's own time limit is the deadline."""
        while not done(self):
            await self.frame()

    async def until_line(self, line: str) -> None:
        await self.until(lambda follower: line in follower.lines)

    async def rest(self) -> tuple[int, str]:
        """Read to the end; close code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.frame()
        return self.socket.close_code or 0, self.socket.close_reason or ""


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
