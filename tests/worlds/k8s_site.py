"""What the world of `k8s` stands on: a Node, a namespace and a service account in the kwok cluster, made and removed by its admin."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Final

import yaml
from worlds.k8s_kubelet import Kubelet

from cal_adapters.k8s.rights import RULES
from cal_crds import cluster as wire
from cal_crds.cluster import Body, Cluster

NAMESPACE: Final = "contract-world"
#: A finalizer that keeps a Pod from going while a test looks at it.
HOLD: Final = "test.invalid/hold"
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_RBAC_VERSION: Final = "rbac.authorization.k8s.io/v1"
_numbers = count(1)


class Site:
    """One Node with 16 GPUs in a region of its own, and a service account with the rights of the docs. All have the region's name."""

    def __init__(self, admin: Cluster, kubelet: Kubelet) -> None:
        self.admin, self._kubelet = admin, kubelet
        self.region = f"contract-{next(_numbers)}"

    async def set_up(self) -> None:
        await self._ensure(f"/api/v1/namespaces/{NAMESPACE}", {"kind": "Namespace"})
        await self._ensure(f"{_RBAC}/clusterroles/{NAMESPACE}", {"kind": "ClusterRole", "rules": list(RULES)})
        await self.make("serviceaccounts", {"kind": "ServiceAccount", "metadata": {"name": self.region}})
        await self._bind()
        await self._make_node()
        await until(self._default_account)

    async def tear_down(self) -> None:
        for pod in await self.pods():
            if pod["metadata"].get("finalizers"):
                await self.patch(pod["metadata"]["name"], {"metadata": {"finalizers": None}})
            await self._delete(pod_path(pod["metadata"]["name"]))
        for plural in ("services", "secrets"):
            for item in (await self.admin.list(f"/api/v1/namespaces/{NAMESPACE}/{plural}"))["items"]:
                await self._delete(f"/api/v1/namespaces/{NAMESPACE}/{plural}/{item['metadata']['name']}")
        await self._delete(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{self.region}")
        await self._delete(f"{_RBAC}/clusterrolebindings/{self.region}")

        async def empty() -> bool:
            return not await self.pods()

        await until(empty)
        await self._delete(f"/api/v1/nodes/{self.region}")

    async def token(self) -> str:
        """A token of the service account."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{self.region}/token"
        made = await self.admin.create(path, {"spec": {"expirationSeconds": 3600}})
        return str(made["status"]["token"])

    async def unbind(self) -> None:
        """Takes the rights away, and waits until the API server's authorizer knows."""
        await self.admin.delete(f"{_RBAC}/clusterrolebindings/{self.region}")
        for resource, verb in (("pods", "list"), ("pods", "get"), ("pods", "delete"), ("nodes", "list")):
            await until(lambda resource=resource, verb=verb: self._denied(resource, verb))  # type: ignore[misc]

    async def pods(self) -> list[Body]:
        return list((await self.admin.list(f"/api/v1/namespaces/{NAMESPACE}/pods"))["items"])

    async def patch(self, pod: str, patch: Body) -> None:
        await self.admin.merge_patch(pod_path(pod), patch)

    async def patch_status(self, pod: str, status: Body) -> None:
        """As the kubelet writes it."""
        await self.admin.merge_patch(f"{pod_path(pod)}/status", {"status": status})

    async def make(self, plural: str, body: Body) -> None:
        await self.admin.create(f"/api/v1/namespaces/{NAMESPACE}/{plural}", {"apiVersion": "v1", **body})

    async def taint(self) -> None:
        """The admin's taint for a dead machine: the real taint controller evicts its Pods."""
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await self.admin.merge_patch(f"/api/v1/nodes/{self.region}", {"spec": {"taints": [taint]}})

    async def _bind(self) -> None:
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE}
        subject = {"kind": "ServiceAccount", "namespace": NAMESPACE, "name": self.region}
        head = {"apiVersion": _RBAC_VERSION, "kind": "ClusterRoleBinding", "metadata": {"name": self.region}}
        await self.admin.create(f"{_RBAC}/clusterrolebindings", {**head, "roleRef": role, "subjects": [subject]})

    async def _make_node(self) -> None:
        amounts = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "16"}
        labels = {
            "kubernetes.io/hostname": self.region,
            "topology.kubernetes.io/region": self.region,
            "nvidia.com/gpu.product": "NVIDIA-L40S",
            "nvidia.com/gpu.memory": "46068",
        }
        status = {"capacity": amounts, "allocatable": amounts, **self._kubelet.status()}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.region, "labels": labels},
            "status": status,
        }
        await self.admin.create("/api/v1/nodes", body)

    async def _default_account(self) -> bool:
        accounts = await self.admin.list(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts")
        return any(item["metadata"]["name"] == "default" for item in accounts["items"])

    async def _ensure(self, path: str, body: Body) -> None:
        collection, _, name = path.rpartition("/")
        version = "v1" if path.startswith("/api/") else _RBAC_VERSION
        try:
            await self.admin.create(collection, {"apiVersion": version, "metadata": {"name": name}, **body})
        except wire.AlreadyExists:
            return

    async def _delete(self, path: str) -> None:
        try:
            await self.admin.delete(path, gracePeriodSeconds="0")
        except wire.NotFound:
            return

    async def _denied(self, resource: str, verb: str) -> bool:
        user = f"system:serviceaccount:{NAMESPACE}:{self.region}"
        spec = {"user": user, "resourceAttributes": {"resource": resource, "verb": verb}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return not (await self.admin.create(path, body))["status"]["allowed"]


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(600):
        if await check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not within 30 s")


def pod_path(name: str) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"


def kubeconfig(server: str, token: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "world",
            "contexts": [{"name": "world", "context": {"cluster": "world", "user": "world"}}],
            "clusters": [{"name": "world", "cluster": {"server": server}}],
            "users": [{"name": "world", "user": {"token": token}}],
        }
    )


def upstream(path: Path) -> tuple[str, ssl.SSLContext]:
    """The API server's address, and TLS to it without the admin's certificate."""
    entry = yaml.safe_load(path.read_text())["clusters"][0]["cluster"]
    if data := entry.get("certificate-authority-data"):
        return entry["server"], ssl.create_default_context(cadata=base64.b64decode(data).decode())
    return entry["server"], ssl.create_default_context(cafile=str(path.parent / entry["certificate-authority"]))
