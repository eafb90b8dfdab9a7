"""The scene: stand-ins, providers with their Secrets, two operators, the api and the relay, and how long it takes until all of it is there."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import httpx
from chaos.churn import Churn
from chaos.fleet import API, OPERATORS, RELAY, Fleet
from chaos.stage import AKASH, DEMO, KEYS, NOSANA, Stage
from chaos.users import NAMESPACE
from rig.plane import SYSTEM

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, PROVIDER

#: Short times of the operator's own; those that the adapters state (how long look-ups must settle) stay as they are.
_QUICK: Final = (
    "--sweep-seconds=3",
    "--orphan-grace-seconds=3",
    "--offer-cooldown-seconds=2",
    "--backoff-base-seconds=0.5",
)
_READY_SECONDS: Final = 120.0


class Scene:
    """Everything that runs, and the users."""

    def __init__(self, plane: ControlPlane, cluster: Cluster, folder: Path, seed: int) -> None:
        self._plane, self.cluster = plane, cluster
        self.fleet, self.stage = Fleet(plane, folder), Stage(folder, seed)
        self._ports = free_ports(4)
        self.api = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._ports[2]}", timeout=8, trust_env=False)
        self.churn = Churn(cluster, self.api, seed)

    async def start(self) -> None:
        """Returns when users can begin. RuntimeError if it doesn't come up."""
        await self.stage.start()
        await self._register()
        await self.fleet.start(self._members())
        end = time.monotonic() + _READY_SECONDS
        while not await self._ready():
            if time.monotonic() > end:
                raise RuntimeError("the scene does not come up")
            await asyncio.sleep(0.2)
        await self.churn.open()

    async def stop(self) -> None:
        await self.fleet.stop()
        await self.api.aclose()
        await self.stage.stop()

    def _members(self) -> list[tuple[str, str, list[str]]]:
        ports = self._ports
        common = [f"--kubeconfig={self._plane.kubeconfig}", f"--system-namespace={SYSTEM}"]
        adapters = ["--enable-adapters=demo", f"--adapter-state-dir={self.stage.state_dir}"]
        operators = [
            (name, "cal_operator", [*common, *adapters, f"--metrics-port={port}", f"--identity={name}", *_QUICK])
            for name, port in zip(OPERATORS, ports[:2], strict=True)
        ]
        api = [*common, f"--namespace={NAMESPACE}", f"--port={ports[2]}", f"--relay-url=http://127.0.0.1:{ports[3]}"]
        return [*operators, (API, "cal_api", api), (RELAY, "cal_relay", [*common, *adapters, f"--port={ports[3]}"])]

    async def _register(self) -> None:
        for name, key in KEYS.items():
            secret = {"metadata": {"name": name}, "data": {"apiKey": b64encode(key.encode()).decode()}}
            await self.cluster.create(f"/api/v1/namespaces/{SYSTEM}/secrets", secret)
        urls = self.stage.urls
        specs: dict[str, dict[str, Any]] = {
            DEMO: {"demo": {"launchDelayMilliseconds": 300, "stopDelayMilliseconds": 300}},
            NOSANA: {"nosana": {"nodeURL": f"{urls[NOSANA]}/node/{{node}}"}},
            AKASH: {"akash": {"bidWaitSeconds": 5, "providerProxy": f"{urls[AKASH]}/provider-proxy"}},
        }
        for name, spec in specs.items():
            body: dict[str, Any] = {"adapter": name, **spec}
            if name in KEYS:
                body |= {"endpoint": urls[name], "credentials": [{"name": "main", "secretRef": {"name": name}}]}
            made = {"apiVersion": API_VERSION, "kind": PROVIDER.name, "metadata": {"name": name}, "spec": body}
            await self.cluster.create(PROVIDER.path(), made)

    async def _ready(self) -> bool:
        providers = (await self.cluster.list(PROVIDER.path()))["items"]
        if not all((item.get("status") or {}).get("offers") for item in providers):
            return False
        try:
            return (await self.api.get("/readyz")).is_success
        except httpx.HTTPError:
            return False  # not listening yet
