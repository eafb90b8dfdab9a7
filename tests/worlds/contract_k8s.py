"""The world of `k8s`: a real API server, scheduler and controllers, with kwok's machines, a kubelet for logs, and a proxy for faults.

The adapter comes through the proxy by the token of a service account that has the rights which the docs ask for, and no more.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import yaml
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb
from worlds.k8s_kubelet import Kubelet, open_kubelet
from worlds.k8s_proxy import PAGE, Answer, Proxy, open_proxy, refusal

from cal_adapters.contract import Context, Credentials, EnvValue, LaunchRequest, Mark
from cal_adapters.errors import CredentialsRefused
from cal_adapters.k8s import create
from cal_adapters.k8s.rights import RULES
from cal_adapters.k8s.translate import GATE, mark_of
from cal_crds import cluster as wire
from cal_crds.cluster import Body, Cluster
from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import KubernetesSettings, ProviderSpec
from cal_crds.workload import HTTPGet, Port, Probe, Resources, ServedModel, Workload

#: The request of each verb at which it meets its fault. A lost answer is one of a call that changes something.
_REQUESTS: Final[Mapping[Verb, str]] = {
    Verb.CHECK: r"^GET /api/v1/pods\?",
    Verb.OFFERS: r"^GET /api/v1/nodes\?",
    Verb.FIND: r"^GET /api/v1/pods\?",
    Verb.LAUNCH: r"^POST /api/v1/namespaces/[^/]+/pods",
    Verb.OBSERVE: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.STOP: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.LIST_MARKED: r"^GET /api/v1/pods\?",
    Verb.LOGS: r"^GET /api/v1/namespaces/[^/]+/pods/[^/]+/log",
}
_LOSES: Final = {
    Verb.LAUNCH: r"^PATCH /api/v1/namespaces/[^/]+/pods/[^/]+$",
    Verb.STOP: r"^DELETE /api/v1/namespaces/[^/]+/pods/[^/]+$",
}
_DENIED: Final = 'pods is forbidden: User "someone" cannot do resource "pods" in API group "" at the cluster scope'
_QUOTA: Final = "pods is forbidden: exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9"
_ANSWERS: Final[Mapping[Fault, Answer]] = {
    Fault.NO_CAPACITY: refusal(403, "Forbidden", _QUOTA),
    Fault.REFUSED: refusal(422, "Invalid", "Pod is invalid: spec.containers[0].image: Required value"),
    Fault.CREDENTIALS_REFUSED: refusal(403, "Forbidden", _DENIED),
    Fault.RATE_LIMITED: refusal(
        429, "TooManyRequests", "too many requests, please try again later", retryAfterSeconds=3
    ),
    Fault.SERVER_ERROR: refusal(500, "InternalError", "Internal error occurred: etcdserver: leader changed"),
    Fault.GARBAGE: Answer(200, "<html>It works!</html>"),
    Fault.ANSWER_LOST: Answer(lost=True),
}
_READING: Final = frozenset({Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.GARBAGE})

_NAMESPACE: Final = "contract-world"
_HOLD: Final = "test.invalid/hold"
_numbers = count(1)


class KubernetesWorld:
    """One Node with 16 GPUs in a region of its own, one namespace, one service account."""

    name = "k8s"
    lacks: Mapping[Power, str] = {}
    faults: Mapping[Verb, Collection[Fault]] = {
        **dict.fromkeys(Verb, _READING),
        Verb.LAUNCH: _READING | {Fault.NO_CAPACITY, Fault.REFUSED, Fault.ANSWER_LOST},
        Verb.STOP: _READING | {Fault.ANSWER_LOST},
        # A log is any text; and one kubelet that fails is no failure of the provider.
        Verb.LOGS: frozenset({Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED}),
    }
    crowd = 2 * PAGE + 1

    def __init__(self, admin: Cluster, proxy: Proxy, kubelet: Kubelet, directory: Path) -> None:
        self._admin, self._proxy, self._kubelet, self._directory = admin, proxy, kubelet, directory
        self._region = f"contract-{next(_numbers)}"
        prices = KubernetesSettings(price_per_gpu_hour="1.5", price_per_cpu_hour="0.1")
        self._settings = ProviderSpec(adapter="k8s", kubernetes=prices)
        self._kubeconfig, self._cluster = "", ""
        self._offer: Offer | None = None

    # --- the protocol

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        """With credentials: another cluster by a Secret. Without: the operator's own, which is the same one here."""
        own = self._directory / "kubeconfig"
        own.write_text(self._kubeconfig)
        secret = Credentials("main", {"kubeconfig": self._kubeconfig}) if credentials else None
        return Context("k8s", self._settings, installation, credentials=secret, kubeconfig=str(own))

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        assert self._offer is not None
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": _NAMESPACE,
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": self._offer,
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": 1,
            "max_price_per_hour": Decimal(self._offer.price_per_hour) * 2,
            "model": ServedModel(name="tiny"),
            "workload": Workload(
                image="registry.test/server:1",
                ports=[Port(name="http", port=8000)],
                readiness_probe=Probe(http_get=HTTPGet(path="/health", port="http")),
                resources=Resources(cpu="1", memory="1Gi"),
            ),
            "env": [EnvValue("CAL_TEST_SECRET", SECRET, secret=True)],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return f"{self._cluster}/{_NAMESPACE}/{Mark(INSTALLATION, 'neverexisted')}/{uuid4()}"

    async def billing(self) -> Collection[Mark | None]:
        """Every Pod that the scheduler may have had, and that hasn't ended."""
        return [mark_of(pod["metadata"]) for pod in await self._pods() if not _gated(pod) and not _ended(pod)]

    async def advance(self, seconds: float) -> None:
        for pod in await self._pods():
            metadata = pod["metadata"]
            if metadata.get("deletionTimestamp") and _HOLD in metadata.get("finalizers", ()):
                await self._patch(metadata["name"], {"metadata": {"finalizers": None}})
        await asyncio.sleep(0.05)

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        pattern = _LOSES[verb] if fault is Fault.ANSWER_LOST else _REQUESTS[verb]
        # The client repeats a DELETE by itself, once, when the connection breaks: the fault has to outlast both.
        self._proxy.fail(pattern, _ANSWERS[fault], times=2 if pattern == _LOSES[Verb.STOP] else 1)

    async def add_foreign(self) -> None:
        foreign = create(self.context(installation=FOREIGN))
        await foreign.launch(await self.request(Mark(FOREIGN, "foreigntoken")))
        await foreign.close()
        plain = {"containers": [{"name": "main", "image": "none"}]}
        await self._make("pods", {"kind": "Pod", "metadata": {"name": "somebody-elses"}, "spec": plain})

    async def revoke_credentials(self) -> None:
        await self._admin.delete(f"{_RBAC}/clusterrolebindings/{self._region}")
        user = f"system:serviceaccount:{_NAMESPACE}:{self._region}"
        for resource, verb in (("pods", "list"), ("pods", "get"), ("pods", "delete"), ("nodes", "list")):
            await self._until(lambda resource=resource, verb=verb: self._denied(user, resource, verb))  # type: ignore[misc]

    async def reprice(self, offer_id: str, factor: int) -> None:
        """An admin changes the price in the ComputeProvider."""
        assert self._settings.kubernetes is not None
        self._settings.kubernetes.price_per_gpu_hour = str(Decimal("1.5") * factor)
        self._settings.kubernetes.price_per_cpu_hour = str(Decimal("0.1") * factor)

    async def end(self, mark: Mark, exit_code: int) -> None:
        """As the kubelet writes it."""
        reason = "Error" if exit_code else "Completed"
        terminated = {"exitCode": exit_code, "reason": reason}
        container = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        containers = [{**container, "state": {"terminated": terminated}}]
        phase = "Failed" if exit_code else "Succeeded"
        ready = [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]
        await self._patch_status(mark, {"phase": phase, "containerStatuses": containers, "conditions": ready})
        await self._kubelet.end(str(mark))

    async def lose(self, mark: Mark) -> None:
        """The admin's taint for a dead machine; the real taint controller evicts. Held until time passes, so that it can be seen."""
        await self._patch(str(mark), {"metadata": {"finalizers": [_HOLD]}})
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await self._admin.merge_patch(f"/api/v1/nodes/{self._region}", {"spec": {"taints": [taint]}})

        async def evicted() -> bool:
            pod = await self._admin.get(_pod_path(str(mark)))
            return bool(pod["metadata"].get("deletionTimestamp"))

        await self._until(evicted)

    async def strange_state(self, mark: Mark) -> None:
        await self._patch_status(mark, {"phase": "Dreaming"})

    async def say(self, mark: Mark, line: str) -> None:
        await self._kubelet.say(str(mark), line)

    # --- making and cleaning up

    async def set_up(self, upstream: Path) -> None:
        await self._ensure(f"/api/v1/namespaces/{_NAMESPACE}", {"kind": "Namespace"})
        await self._ensure(f"{_RBAC}/clusterroles/{_NAMESPACE}", {"kind": "ClusterRole", "rules": list(RULES)})
        self._cluster = (await self._admin.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]
        await self._make("serviceaccounts", {"kind": "ServiceAccount", "metadata": {"name": self._region}})
        await self._bind()
        path = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/{self._region}/token"
        token = await self._admin.create(path, {"spec": {"expirationSeconds": 3600}})
        self._kubeconfig = _kubeconfig(self._proxy.url, token["status"]["token"])
        await self._make_node()
        await self._until(self._default_account)
        await self._until(self._offered)

    async def tear_down(self) -> None:
        for pod in await self._pods():
            if pod["metadata"].get("finalizers"):
                await self._patch(pod["metadata"]["name"], {"metadata": {"finalizers": None}})
            await self._delete(_pod_path(pod["metadata"]["name"]))
        for plural in ("services", "secrets"):
            for item in (await self._admin.list(f"/api/v1/namespaces/{_NAMESPACE}/{plural}"))["items"]:
                await self._delete(f"/api/v1/namespaces/{_NAMESPACE}/{plural}/{item['metadata']['name']}")
        await self._delete(f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/{self._region}")
        await self._delete(f"{_RBAC}/clusterrolebindings/{self._region}")

        async def empty() -> bool:
            return not await self._pods()

        await self._until(empty)
        await self._delete(f"/api/v1/nodes/{self._region}")

    async def _bind(self) -> None:
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _NAMESPACE}
        subject = {"kind": "ServiceAccount", "namespace": _NAMESPACE, "name": self._region}
        binding = {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": self._region},
            "roleRef": role,
            "subjects": [subject],
        }
        await self._admin.create(
            f"{_RBAC}/clusterrolebindings", {"apiVersion": "rbac.authorization.k8s.io/v1", **binding}
        )

    async def _make_node(self) -> None:
        amounts = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "16"}
        labels = {
            "kubernetes.io/hostname": self._region,
            "topology.kubernetes.io/region": self._region,
            "nvidia.com/gpu.product": "NVIDIA-L40S",
            "nvidia.com/gpu.memory": "46068",
        }
        status = {"capacity": amounts, "allocatable": amounts, **self._kubelet.status()}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._region, "labels": labels},
            "status": status,
        }
        await self._admin.create("/api/v1/nodes", body)

    async def _offered(self) -> bool:
        """Whether the Node is Ready and the service account's rights have come through: the market is open."""
        adapter = create(self.context())
        try:
            found = [offer for offer in await adapter.offers() if offer.region == self._region and offer.gpu_count == 1]
        except CredentialsRefused:  # the rights take a moment to reach the authorizer
            return False
        finally:
            await adapter.close()
        self._offer = found[0] if found else None
        return bool(found)

    async def _default_account(self) -> bool:
        accounts = await self._admin.list(f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts")
        return any(item["metadata"]["name"] == "default" for item in accounts["items"])

    # --- access

    async def _pods(self) -> list[Body]:
        return list((await self._admin.list(f"/api/v1/namespaces/{_NAMESPACE}/pods"))["items"])

    async def _patch(self, name: str, patch: Body) -> None:
        await self._admin.merge_patch(_pod_path(name), patch)

    async def _patch_status(self, mark: Mark, status: Body) -> None:
        await self._admin.merge_patch(f"{_pod_path(str(mark))}/status", {"status": status})

    async def _make(self, plural: str, body: Body) -> None:
        await self._admin.create(f"/api/v1/namespaces/{_NAMESPACE}/{plural}", {"apiVersion": "v1", **body})

    async def _ensure(self, path: str, body: Body) -> None:
        collection, _, name = path.rpartition("/")
        version = "v1" if path.startswith("/api/") else "rbac.authorization.k8s.io/v1"
        try:
            await self._admin.create(collection, {"apiVersion": version, "metadata": {"name": name}, **body})
        except wire.AlreadyExists:
            return

    async def _delete(self, path: str) -> None:
        try:
            await self._admin.delete(path, gracePeriodSeconds="0")
        except wire.NotFound:
            return

    async def _denied(self, user: str, resource: str, verb: str) -> bool:
        spec = {"user": user, "resourceAttributes": {"resource": resource, "verb": verb}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return not (await self._admin.create(path, body))["status"]["allowed"]

    async def _until(self, check: Callable[[], Any]) -> None:
        for _ in range(600):
            if await check():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within 30 s: {check.__qualname__}")


_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


def _pod_path(name: str) -> str:
    return f"/api/v1/namespaces/{_NAMESPACE}/pods/{name}"


def _gated(pod: Body) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())


def _ended(pod: Body) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _kubeconfig(server: str, token: str) -> str:
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


def _upstream(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """The API server's address, and TLS to it without the admin's certificate."""
    entry = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    if data := entry.get("certificate-authority-data"):
        return entry["server"], ssl.create_default_context(cadata=base64.b64decode(data).decode())
    return entry["server"], ssl.create_default_context(cafile=str(kubeconfig.parent / entry["certificate-authority"]))


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KubernetesWorld]:
    kubeconfig: Path = fixtures.getfixturevalue("kwok_cluster").kubeconfig
    async with (
        await Cluster.connect(str(kubeconfig)) as admin,
        open_proxy(*_upstream(kubeconfig)) as proxy,
        open_kubelet(tmp_path / "kubelet") as kubelet,
    ):
        world = KubernetesWorld(admin, proxy, kubelet, tmp_path)
        await world.set_up(kubeconfig)
        try:
            yield world
        finally:
            await world.tear_down()
