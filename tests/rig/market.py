"""A demo market whose books the test writes, and nodes on it as the operator would record them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cal_adapters.contract import Mark
from cal_adapters.fake import Ledger
from cal_adapters.fake.ledger import Purchase
from cal_crds import archive, names
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, NODE
from cal_crds.names import digest


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
