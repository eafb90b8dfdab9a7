"""Keep the last lines of a node before its instance is stopped, and when it has ended: the relay serves them until the deployment goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cal_adapters.errors import AdapterError
from cal_crds import archive
from cal_crds.cluster import AlreadyExists, ClusterError
from cal_crds.node import ComputeNode
from cal_operator.accounts import Account
from cal_operator.nodes.memory import NodeMemory
from cal_operator.world import World

log = logging.getLogger(__name__)


async def keep_logs(world: World, node: ComputeNode, account: Account, memory: NodeMemory) -> None:
    """Once per node and process. A provider that can't be asked for logs doesn't hold up the stop."""
    instance = node.status.instance
    if memory.archived or instance is None or world.store.deployments.get(node.spec.deployment_ref.uid) is None:
        return
    memory.archived = True
    handle = instance.handle
    try:
        lines = await account.gate.call("logs", lambda: account.adapter.logs(handle, archive.MAX_LINES), timeout=10.0)
    except AdapterError as error:
        log.info("the last lines of %s can't be kept: %s", node.metadata.name, error.message)
        return
    if lines:
        await _write(world, node, instance.id, lines)


async def _write(world: World, node: ComputeNode, instance_id: str, lines: Sequence[str]) -> None:
    namespace = node.metadata.namespace or "default"
    reference = node.spec.deployment_ref
    body = archive.build(
        node_name=node.metadata.name,
        node_uid=node.metadata.uid,
        namespace=namespace,
        deployment=(reference.name, reference.uid),
        instance_id=instance_id,
        provider=node.spec.provider_ref.name,
        lines=lines,
    )
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    try:
        await world.cluster.create(path, body)
    except AlreadyExists:
        await world.cluster.replace(f"{path}/{body['metadata']['name']}", body)
    except ClusterError as error:
        log.warning("the last lines of %s could not be written: %s", node.metadata.name, error.message)
