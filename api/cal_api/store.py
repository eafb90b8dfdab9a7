"""The four tables, and what ties them: a pool's view shows its provider's type, a deployment's its pool's owner, a node's the last beat."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cal_api import providerviews, views
from cal_api.table import Entry, Key, Table
from cal_api.values import ZERO_UUID
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import DEPLOYMENT, NODE, POOL, PROVIDER
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool, Cost
from cal_crds.provider import ComputeProvider

ALL: Key = ("all", "")


class Store:
    """What the api knows of the cluster: read by every request, fed by the watches and by the api's own writes."""

    def __init__(self, last_beat: Callable[[str], datetime | None]) -> None:
        self._last_beat = last_beat
        self._offers: dict[str, bytes] = {}
        self.providers = Table(PROVIDER, ComputeProvider, lambda _: (ALL,), self._provider)
        self.pools = Table(POOL, ComputePool, _pool_keys, self._pool, _cost)
        self.deployments = Table(DEPLOYMENT, ModelDeployment, self._deployment_keys, self._deployment, _cost)
        self.nodes = Table(NODE, ComputeNode, _node_keys, self._node, _cost)
        self.tables: tuple[Table[Any], ...] = (self.providers, self.pools, self.deployments, self.nodes)

    @property
    def synced(self) -> bool:
        """Whether every kind was listed once."""
        return all(table.synced for table in self.tables)

    def put(self, table: Table[Any], body: dict[str, Any]) -> Entry[Any] | None:
        """Take an object in, and refresh what shows something of it."""
        entry = table.put(body)
        if entry is not None:
            self._dependents(table, entry)
        return entry

    def remove(self, table: Table[Any], uid: str) -> None:
        """An object is gone; refresh what showed something of it."""
        entry = table.remove(uid)
        if entry is not None:
            self._offers.pop(uid, None)
            self._dependents(table, entry)

    def replace(self, table: Table[Any], bodies: list[dict[str, Any]], version: int) -> None:
        """A whole list, as of `version`."""
        for body in bodies:
            self.put(table, body)
        for entry in table.keep_only((body["metadata"]["uid"] for body in bodies), version):
            self._dependents(table, entry)
        table.synced = True

    def providers_in_order(self) -> list[Entry[ComputeProvider]]:
        """As they were registered, the oldest first."""
        return list(reversed(self.providers.listing(ALL)))

    def provider(self, name: str) -> Entry[ComputeProvider] | None:
        return self.providers.named("", name)

    def pool_of(self, deployment: ModelDeployment) -> Entry[ComputePool] | None:
        """The pool that a deployment is bound to, or will be bound to by name."""
        uid = _bound_pool(deployment)
        if uid:
            return self.pools.get(uid)
        ref = deployment.spec.pool_ref
        return self.pools.named(deployment.metadata.namespace or "", ref.name) if ref else None

    def node_of(self, provider: str, instance: str) -> Entry[ComputeNode] | None:
        """The node of an instance: by its recorded id, else by the id that it last said it runs under."""
        for kind in ("instance", "hint"):
            found = self.nodes.listing((f"{kind}/{provider}", instance))
            if found:
                return found[0]
        return None

    def _dependents(self, table: Table[Any], entry: Entry[Any]) -> None:
        if table is self.providers:
            for pool in self.pools.listing(("provider", entry.name)):
                self.pools.refresh(pool)
        elif table is self.pools:
            for key in (("pool", entry.uid), ("pool-name", f"{entry.namespace}/{entry.name}")):
                for deployment in tuple(self.deployments.listing(key)):
                    self.deployments.refresh(deployment)

    def offers(self, provider: Entry[ComputeProvider]) -> bytes:
        """Its offers as JSON objects, with commas between them."""
        return self._offers.get(provider.uid, b"")

    def _provider(self, entry: Entry[ComputeProvider]) -> bytes:
        # Hundreds of offers may stand in it: rendered here, since every read shows them all.
        offers = providerviews.resources(entry.object)
        self._offers[entry.uid] = b",".join([offer.model_dump_json().encode() for offer in offers])
        return providerviews.provider(entry.object).model_dump_json().encode()

    def _pool(self, entry: Entry[ComputePool]) -> bytes:
        provider = self.provider(entry.object.spec.provider_ref.name)
        pool_type = providerviews.capabilities_of(provider.object).pool_type if provider else "job"
        return views.pool(entry.object, pool_type, entry.updated).model_dump_json().encode()

    def _deployment(self, entry: Entry[ModelDeployment]) -> bytes:
        pool = self.pool_of(entry.object)
        pool_id = pool.uid if pool else _bound_pool(entry.object)
        owner = pool.object.spec.owner.id if pool else None
        return views.deployment(entry.object, pool_id, owner, entry.updated).model_dump_json().encode()

    def _node(self, entry: Entry[ComputeNode]) -> bytes:
        return views.node(entry.object, self._last_beat(entry.uid), entry.updated).model_dump_json().encode()

    def _deployment_keys(self, deployment: ModelDeployment) -> tuple[Key, ...]:
        pool = self.pool_of(deployment)
        uid = ZERO_UUID if deployment.spec.external else pool.uid if pool else _bound_pool(deployment)
        ref, owner = deployment.spec.pool_ref, deployment.spec.owner
        name = f"{deployment.metadata.namespace}/{ref.name}" if ref else ""
        organization = owner.organization if owner else None
        keys: list[Key] = [ALL, ("pool", uid), ("pool-name", name)]
        return (*keys, ("organization", organization)) if organization else tuple(keys)


def _bound_pool(deployment: ModelDeployment) -> str:
    """The uid of the pool it is bound to for life; "" while it is bound to none."""
    ref = deployment.spec.pool_ref
    return (ref.uid if ref else None) or deployment.status.bound_pool_uid or ""


def _cost(resource: ComputePool | ModelDeployment | ComputeNode) -> Cost | None:
    return resource.status.cost


def _pool_keys(pool: ComputePool) -> tuple[Key, ...]:
    return ALL, ("owner", pool.spec.owner.id), ("provider", pool.spec.provider_ref.name)


def _node_keys(node: ComputeNode) -> tuple[Key, ...]:
    provider, status = node.spec.provider_ref.name, node.status
    keys: list[Key] = [
        ("provider", provider),
        ("pool", node.spec.pool_ref.uid),
        ("deployment", node.spec.deployment_ref.uid),
    ]
    if status.instance:
        keys.append((f"instance/{provider}", status.instance.id))
    if status.heartbeat and status.heartbeat.instance_id:
        keys.append((f"hint/{provider}", status.heartbeat.instance_id))
    return tuple(keys)
