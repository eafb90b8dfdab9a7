"""Instances that outlive the local control plane: whoever stops it must know what goes on costing money."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from cal_cli.bootstrap import embedded_providers
from cal_cli.kube import NOT_FOUND, Kube, KubeError
from cal_crds.meta import NODE
from cal_crds.node import ComputeNode


@dataclass(frozen=True)
class Instance:
    """An instance at a provider that isn't proven gone."""

    node: str
    provider: str
    id: str
    price_per_hour: Decimal


def running_on(kube: Kube) -> list[Instance]:
    """Every instance that may bill while we are away. One that was asked for and has no handle yet counts too."""
    try:
        embedded = embedded_providers(kube)
    except KubeError as error:
        if error.status == NOT_FOUND:
            return []  # our kinds were never defined there
        raise
    nodes = [ComputeNode.parse(body) for body in kube.items(NODE.path())]
    return [
        _instance(node) for node in nodes if node.spec.provider_ref.name not in embedded and not node.status.gone_time
    ]


def words(instances: list[Instance]) -> Iterator[str]:
    """What to tell about them."""
    if not instances:
        return
    total = sum((instance.price_per_hour for instance in instances), Decimal(0))
    yield f"{len(instances)} paid instance(s) run on, {total} USD per hour in all:"
    for item in instances:
        yield f"  {item.provider} {item.id or '(being bought)'}  {item.price_per_hour} USD per hour  (node {item.node})"


def _instance(node: ComputeNode) -> Instance:
    bought = node.status.instance
    price = bought.price_per_hour if bought else node.spec.offer.price_per_hour
    name = f"{node.metadata.namespace}/{node.metadata.name}"
    return Instance(name, node.spec.provider_ref.name, bought.id if bought else "", Decimal(price))
