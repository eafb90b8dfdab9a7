"""What the k8s tests share: a machine of one's own in the kwok cluster, adapters on it, and a kubelet's pen."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from cal_adapters.contract import Adapter, Context, Credentials, EnvValue, LaunchRequest, Mark
from cal_adapters.registry import load
from cal_crds.names import new_token
from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import KubernetesSettings, ProviderSpec
from cal_crds.workload import ServedModel, Workload

INSTALLATION = "a8b8c8d8e8"  # not the contract suite's, which wants a world without its own instances
A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}
WORKLOAD = {
    "image": "registry.test/server:1",
    "command": ["serve"],
    "args": ["--model", "tiny"],
    "ports": [{"name": "http", "port": 8000}],
    "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
}
_counter = count(1)

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Site:
    """One region of the kwok cluster that a test has for itself, with a namespace and the Nodes that it makes."""

    kubectl: Kubectl
    kubeconfig: Path
    region: str
    nodes: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.region

    def node(
        self,
        *,
        gpus: int = 0,
        cpu: str = "16",
        memory: str = "64Gi",
        labels: dict[str, str] | None = None,
        taints: Sequence[dict[str, str]] = (),
        resource: str = "nvidia.com/gpu",
        unschedulable: bool = False,
    ) -> str:
        """Makes a Node, which kwok makes Ready."""
        name = f"{self.region}-{len(self.nodes)}"
        amounts = {"cpu": cpu, "memory": memory, "pods": "20", **({resource: str(gpus)} if gpus else {})}
        spec: dict[str, Any] = {"taints": list(taints), "unschedulable": unschedulable}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/hostname": name,
                    "topology.kubernetes.io/region": self.region,
                    **(labels if labels is not None else A100 if gpus else {}),
                },
            },
            "spec": spec,
            "status": {"capacity": amounts, "allocatable": amounts},
        }
        self.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(body))
        self.nodes.append(name)
        return name

    def pod(self, mark: Mark) -> dict[str, Any] | None:
        """The instance's Pod, as the API server has it."""
        found = self.kubectl("get", "pods", "-n", self.namespace, "-o", "json")
        pods = json.loads(found.stdout)["items"]
        return next((pod for pod in pods if pod["metadata"]["name"] == str(mark)), None)

    def names(self, kind: str) -> list[str]:
        """The names of all objects of that kind (or kinds: "pods,secrets") in the namespace."""
        found = self.kubectl("get", kind, "-n", self.namespace, "-o", "name").stdout.split()
        return sorted(name.partition("/")[2] for name in found)

    def write_status(self, mark: Mark, status: dict[str, Any]) -> None:
        """Writes a Pod's status as its kubelet would."""
        patch = json.dumps({"status": status})
        self.kubectl(
            "patch", "pod", str(mark), "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    def clear(self) -> None:
        self.kubectl("delete", "pods,services,secrets", "--all", "-n", self.namespace, "--wait=false", check=False)
        if self.nodes:
            self.kubectl("delete", "nodes", *self.nodes, "--wait=false", check=False)


@pytest.fixture
def site(kwok_cluster: Any) -> Iterator[Site]:
    """A region and a namespace of the same name, without Nodes."""
    name = f"site-{next(_counter)}"
    made = Site(kwok_cluster.kubectl, kwok_cluster.kubeconfig, name)
    kwok_cluster.kubectl("create", "namespace", name)
    try:
        yield made
    finally:
        made.clear()


Contexts = Callable[..., Context]
Adapters = Callable[..., Any]


@pytest.fixture
def context(kwok_cluster: Any) -> Contexts:
    """context(price_per_gpu_hour="2"): of the kwok cluster's admin; further arguments are settings."""

    def make(*, secret: dict[str, str] | None = None, endpoint: str | None = None, **settings: Any) -> Context:
        return Context(
            provider="k8s",
            settings=ProviderSpec(adapter="k8s", endpoint=endpoint, kubernetes=KubernetesSettings(**settings)),
            installation=INSTALLATION,
            credentials=None if secret is None else Credentials("main", secret),
            kubeconfig=str(kwok_cluster.kubeconfig),
        )

    return make


@pytest.fixture
async def adapters(context: Contexts, anyio_backend: str) -> AsyncIterator[Adapters]:
    """adapters(**as for `context`): a new adapter, closed at the end."""
    async with AsyncExitStack() as stack:

        def make(**changes: Any) -> Adapter:
            adapter = load("k8s")(context(**changes))
            stack.push_async_callback(adapter.close)
            return adapter

        yield make


@pytest.fixture
async def adapter(adapters: Adapters) -> Adapter:
    """The adapter with admin's rights and prices of 2 a GPU and 0.05 a CPU."""
    made: Adapter = adapters(price_per_gpu_hour="2", price_per_cpu_hour="0.05")
    return made


@pytest.fixture
def request_for(site: Site) -> Callable[..., LaunchRequest]:
    """request_for(offer, gpu_count=4, workload={...}): a request that goes to the site's namespace."""

    def make(offer: Offer, *, workload: dict[str, Any] | None = None, **changes: Any) -> LaunchRequest:
        values: dict[str, Any] = {
            "mark": Mark(INSTALLATION, new_token()),
            "node": "node-1",
            "namespace": site.namespace,
            "deployment_uid": "d-uid",
            "pool_uid": "p-uid",
            "offer": offer,
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": offer.gpu_count,
            "max_price_per_hour": Decimal(100),
            "model": ServedModel(name="tiny"),
            "workload": Workload.model_validate(WORKLOAD | (workload or {})),
            "env": [EnvValue("TOKEN", "s3cret-$(HOME)", secret=True), EnvValue("MODE", "fast")],
        }
        return LaunchRequest(**{**values, **changes})

    return make


class Limited:
    """limited(rules): a kubeconfig, as text, of a new service account that may do just that, everywhere."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __call__(self, rules: list[dict[str, Any]]) -> str:
        return kubeconfig_with(self._site.kubeconfig, self.token(rules))

    def token(self, rules: list[dict[str, Any]]) -> str:
        """Its token alone."""
        name, namespace, kubectl = f"{self._site.region}-{next(_counter)}", self._site.namespace, self._site.kubectl
        kubectl("create", "serviceaccount", name, "-n", namespace)
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
        kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(role | {"rules": rules}))
        kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount={namespace}:{name}")
        return str(kubectl("create", "token", name, "-n", namespace).stdout.strip())


@pytest.fixture
def limited(site: Site) -> Limited:
    return Limited(site)


def kubeconfig_with(path: Path, token: str) -> str:
    """The admin's kubeconfig with a token in place of the admin's certificate."""
    document = yaml.safe_load(path.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    return yaml.safe_dump(document)


@pytest.fixture(scope="session")
def with_token() -> Callable[[Path, str], str]:
    return kubeconfig_with


@pytest.fixture(scope="session")
def inline() -> Callable[[Path], str]:
    """inline(path): a kubeconfig with the files that it names put into it, as it goes into a Secret."""
    pairs = [
        ("clusters", "cluster", ["certificate-authority"]),
        ("users", "user", ["client-certificate", "client-key"]),
    ]

    def make(path: Path) -> str:
        document = yaml.safe_load(path.read_text())
        for plural, single, keys in pairs:
            for entry in document[plural]:
                for key in keys:
                    if name := entry[single].pop(key, None):
                        entry[single][f"{key}-data"] = base64.b64encode((path.parent / name).read_bytes()).decode()
        return str(yaml.safe_dump(document))

    return make
