"""A desk to work at: a real operator process on a real API server, the demo market behind it, and short words for both.

Everything that a test makes at its desk bears the desk's own provider and namespace, so that tests don't meet.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig.waiting import until

from cal_adapters.contract import Mark
from cal_adapters.fake import Ledger, ledger_path
from cal_crds.cluster import Cluster, NotFound
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import API_VERSION, DEPLOYMENT, LABEL_DEPLOYMENT, NODE, POOL, PROVIDER, Kind
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool
from cal_crds.provider import ComputeProvider

#: Short times, so that no test waits long for what takes a minute in earnest.
QUICK = (
    "--beat-timeout-seconds=4",
    "--sweep-seconds=0.5",
    "--orphan-grace-seconds=1",
    "--offer-cooldown-seconds=1",
    "--backoff-base-seconds=0.2",
)


class OperatorProcess:
    """`python -m cal_operator`, as it is started in earnest."""

    def __init__(self, kubeconfig: Path, state_dir: Path, port: int, *flags: str, identity: str = "desk") -> None:
        self.log = state_dir / f"operator-{port}.log"
        self.state_dir, self.port = state_dir, port
        self._argv = [
            *(sys.executable, "-P", "-m", "cal_operator", f"--kubeconfig={kubeconfig}", f"--metrics-port={port}"),
            *(f"--identity={identity}", "--enable-adapters=demo,local", f"--adapter-state-dir={state_dir}"),
            *flags,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> OperatorProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, stdout=log, stderr=log)
        return self

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass
class Desk:
    """One test's provider, namespace and ledger."""

    cluster: Cluster
    namespace: str
    provider: str
    state_dir: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(ledger_path(self.state_dir, self.provider))

    # --- making things ---------------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name, **metadata}, "spec": spec}
        return await self.cluster.create(kind.path(self.namespace if kind.namespaced else None), body)

    async def provider_object(self, **demo: Any) -> dict[str, Any]:
        """The desk's ComputeProvider, made; nobody is waited for."""
        return await self.create(PROVIDER, self.provider, {"adapter": "demo", "demo": demo})

    async def register(self, **demo: Any) -> None:
        """Register the desk's provider; `demo` are its market's settings. Returns when it is ready."""
        await self.provider_object(**demo)
        await until(self.provider_ready, what="a ready provider")

    async def provider_ready(self) -> bool:
        provider = ComputeProvider.parse(await self.cluster.get(PROVIDER.path(name=self.provider)))
        return bool(provider.status.offers)

    async def pool(self, name: str = "pool", **spec: Any) -> ComputePool:
        wanted = {"owner": {"id": "me"}, "providerRef": {"name": self.provider}, **spec}
        return ComputePool.parse(await self.create(POOL, name, wanted))

    async def deploy(
        self, name: str = "model", *, pool: str = "pool", workload: dict[str, Any] | None = None, **spec: Any
    ) -> str:
        """Create a deployment; its uid."""
        work = workload or {"image": "example/model:1", "ports": [{"name": "http", "port": 8000}]}
        wanted = {"poolRef": {"name": pool}, "model": {"name": "tiny"}, "workload": work, **spec}
        made = await self.create(DEPLOYMENT, name, wanted)
        return str(made["metadata"]["uid"])

    async def open(self, name: str = "pool", **pool: Any) -> None:
        """A market that is ready, and a pool on it."""
        await self.register()
        await self.pool(name, **pool)

    async def serve(self) -> ComputeNode:
        """A deployment that runs; its only node."""
        await self.deploy()
        await self.reaches("RUNNING")
        (node,) = await self.nodes()
        return node

    async def patch(self, kind: Kind, name: str, spec: dict[str, Any]) -> None:
        await self.cluster.merge_patch(kind.path(self.namespace if kind.namespaced else None, name), {"spec": spec})

    async def delete(self, kind: Kind, name: str) -> None:
        await self.cluster.delete(kind.path(self.namespace if kind.namespaced else None, name))

    # --- looking ---------------------------------------------------------------------------------------------------------

    async def deployment(self, name: str = "model") -> ModelDeployment:
        return ModelDeployment.parse(await self.cluster.get(DEPLOYMENT.path(self.namespace, name)))

    async def get_pool(self, name: str = "pool") -> ComputePool:
        return ComputePool.parse(await self.cluster.get(POOL.path(self.namespace, name)))

    async def nodes(self, deployment_uid: str | None = None) -> list[ComputeNode]:
        query = {"labelSelector": f"{LABEL_DEPLOYMENT}={deployment_uid}"} if deployment_uid else {}
        found = await self.cluster.list(NODE.path(self.namespace), **query)
        return sorted(map(ComputeNode.parse, found["items"]), key=lambda node: str(node.metadata.creation_timestamp))

    async def reaches(self, state: str, name: str = "model", timeout: float = 90) -> ModelDeployment:
        """Wait until the deployment is in that state, and its newest spec was seen."""

        async def check() -> ModelDeployment | None:
            found = await self.deployment(name)
            assert found.status.state == state, (
                f"{found.status.state}: {found.status.error_message} {found.status.waiting}"
            )
            return found if found.status.observed_generation == found.metadata.generation else None

        found = await until(check, timeout, f"{name} {state}")
        assert found is not None
        return found

    async def is_gone(self, kind: Kind, name: str) -> bool:
        try:
            await self.cluster.get(kind.path(self.namespace if kind.namespaced else None, name))
        except NotFound:
            return True
        return False

    async def no_nodes(self) -> None:
        async def check() -> bool:
            return not await self.nodes()

        await until(check, what="the end of all nodes")

    async def events(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """The Kubernetes Events there; of the desk's own namespace where none is named."""
        found = await self.cluster.list(f"/api/v1/namespaces/{namespace or self.namespace}/events")
        return list(found["items"])

    async def said_of_provider(self, reason: str) -> list[str]:
        """What the Events of that reason say of the desk's provider."""
        ours = [event for event in await self.events("default") if event["involvedObject"]["name"] == self.provider]
        return [event["message"] for event in ours if event["reason"] == reason]

    def billing(self) -> list[str]:
        """The tokens of what bills at the market, strangers' included."""
        return sorted(mark.token if mark else "" for mark in self.ledger.billing())

    async def mark(self, node: ComputeNode) -> Mark:
        """The mark that the node's instance bears."""
        return next(mark for mark in self.ledger.billing() if mark is not None and mark.token == node.spec.token)

    async def bills_exactly(self, tokens: list[str]) -> None:
        async def check() -> bool:
            assert self.billing() == sorted(tokens)
            return True

        await until(check)
