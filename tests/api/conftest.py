"""A real api process beside a real relay, on the real API server; the operator's part is written by the tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds import archive
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE, POOL, PROVIDER, Kind

REPO = Path(__file__).resolve().parents[2]
_counter = itertools.count(1)
Body = dict[str, Any]

# A loaded machine is slow, which proves nothing.
settings.register_profile("cal-api", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cal-api")

#: Where the rights of `manifests/rbac/api.yaml` hold.
SYSTEM = "cal-system"
NOSANA_IDS = "[1-9A-HJ-NP-Za-km-z]{32,44}|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
OFFER = {
    "id": "nosana-rtx3090",
    "gpuType": "nvidia-rtx-3090",
    "gpuCount": 1,
    "gpuMemoryGB": 24,
    "vcpu": 8,
    "ramGB": 32,
    "region": "global",
    "pricePerHour": "0.5",
    "attributes": [{"name": "market_address", "value": "abc"}],
}


@dataclass
class ApiProcess:
    """A `python -m cal_api` that runs."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Starter = Callable[..., ApiProcess]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For processes of ours: nothing of the caller's settings, and where the source roots are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAL_", "KUBE"))}
    roots = os.pathsep.join(str(REPO / root) for root in ("api", "relay", "adapters", "crds"))
    return {**kept, "PYTHONPATH": roots}


@pytest.fixture(scope="session")
def api_kubeconfig(control_plane: ControlPlane, kubectl: Callable[..., Any]) -> Path:
    """The api's own rights, as `calctl up` and the chart give them: the tests must not pass by an admin's."""
    kubectl("create", "namespace", SYSTEM)
    kubectl("apply", "-f", str(REPO / "cli" / "cal_cli" / "manifests" / "rbac" / "api.yaml"))
    return control_plane.user_kubeconfig("calayer:api")


@pytest.fixture(scope="session")
def start_api(
    environment: dict[str, str],
    api_kubeconfig: Path,
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., Any],
) -> Iterator[Starter]:
    """start_api(flag, ..., ready=True, kubeconfig=...) -> ApiProcess; all are stopped in the end."""
    running: list[ApiProcess] = []

    def start(*flags: str, ready: bool = True, config: Path = api_kubeconfig, port: int | None = None) -> ApiProcess:
        number = port or free_ports(1)[0]
        log = tmp_path_factory.mktemp("api") / "log"
        argv = [sys.executable, "-m", "cal_api", f"--port={number}", f"--kubeconfig={config}", *flags]
        with log.open("wb") as file:
            process = subprocess.Popen(argv, env=environment, stderr=file, stdout=file)
        api = ApiProcess(process, f"http://127.0.0.1:{number}", log)
        running.append(api)
        eventually(lambda: _answers(api, "/readyz" if ready else "/health"), timeout=60)
        return api

    yield start
    for api in running:
        if api.process.poll() is None:
            api.stop()


def _answers(api: ApiProcess, path: str) -> bool:
    assert api.process.poll() is None, api.log.read_text()
    try:
        return httpx.get(api.url + path).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def relay_url(
    environment: dict[str, str],
    kubeconfig: Path,
    eventually: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A real relay."""
    port, log = free_ports(1)[0], tmp_path_factory.mktemp("relay") / "log"
    argv = [sys.executable, "-m", "cal_relay", f"--port={port}", f"--kubeconfig={kubeconfig}"]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env=environment, stderr=file, stdout=file)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready, timeout=60)
    yield url
    process.terminate()
    process.wait(20)


@dataclass
class World:
    """A client of the api, and the operator's hand at the API server."""

    http: httpx.Client
    kubeconfig: Path
    namespace: str
    system_namespace: str

    # -- REST

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.patch(path, json=body, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.http.delete(path, **options)

    def pool_body(self, **fields: Any) -> Body:
        """A request for a pool, as the documentation shows it, under a fresh name and owner."""
        number = next(_counter)
        return {
            "pool_name": f"pool {number}",
            "owner_type": "user",
            "owner_id": f"user-{number}",
            "provider": "nosana",
            "allowed_gpu_types": ["rtx3090", "rtx4090"],
            "max_cost_per_hour": 1.00,
            "is_dedicated": False,
            "provider_pool_id": "market-123",
            "scheduling_policy_json": "{}",
            **fields,
        }

    def pool(self, **fields: Any) -> str:
        """A new pool; its id."""
        reply = self.post("/createpool", self.pool_body(**fields))
        assert reply.status_code == 200, reply.text
        return str(reply.json()["pool_id"])

    def deployment(self, pool: str | None = None, **fields: Any) -> str:
        """A new deployment; its id."""
        body = {"pool_id": pool or self.pool(), "model_name": "llama", "configuration": {"engine": "vllm"}, **fields}
        reply = self.post("/deploy", body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["deployment_id"])

    def state(self, deployment: str) -> str:
        return str(self.get(f"/status/{deployment}").json()["state"])

    # -- the operator's hand

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """One call at the API server as admin: call("get", path)."""

        async def once() -> Any:
            async with await Cluster.connect(str(self.kubeconfig)) as cluster:
                return await getattr(cluster, verb)(*arguments, **options)

        return asyncio.run(once())

    def resource(self, kind: Kind, uid: str) -> Body:
        """The object behind a REST id."""
        found = [item for item in self.call("list", kind.path())["items"] if item["metadata"]["uid"] == uid]
        assert found, f"no {kind.name} {uid}"
        return dict(found[0])

    def set_status(self, kind: Kind, uid: str, **status: Any) -> Body:
        """Write a status, as the operator does, for the present generation."""
        meta = self.resource(kind, uid)["metadata"]
        body = {"status": {"observedGeneration": meta["generation"], **status}}
        path = kind.path(meta.get("namespace"), meta["name"], "status")
        return dict(self.call("merge_patch", path, body))

    def reach(self, deployment: str, state: str, eventually: Callable[..., Any], **status: Any) -> None:
        """Bring a deployment into a state, as the operator would say it."""
        self.set_status(DEPLOYMENT, deployment, state=state, **status)
        eventually(lambda: self.state(deployment) == state)

    def node(self, deployment: str, job: str | None, **status: Any) -> str:
        """A node of a deployment, as the operator records it; its id."""
        owner = self.resource(DEPLOYMENT, deployment)
        pool = owner["spec"]["poolRef"]
        name = f"node-{next(_counter)}"
        spec = {
            "deploymentRef": {"name": owner["metadata"]["name"], "uid": deployment},
            "poolRef": pool,
            "providerRef": {"name": "nosana"},
            "token": "0123456789abcdef",
            "templateHash": "x",
            "gpuCount": 1,
            "offer": OFFER,
            "model": {"name": "llama"},
            "workload": {"engine": "vllm"},
        }
        body = {"apiVersion": API_VERSION, "kind": NODE.name, "metadata": {"name": name}, "spec": spec}
        made = self.call("create", NODE.path(owner["metadata"]["namespace"]), body)
        uid = str(made["metadata"]["uid"])
        told = {"instance": {"handle": job, "id": job, "pricePerHour": "0.5"}} if job else {}
        self.set_status(NODE, uid, **{"state": "ready", **told, **status})
        return uid

    def keep_logs(self, deployment: str, lines: list[str]) -> None:
        """The last lines of a node that ended, as the operator keeps them."""
        meta = self.resource(DEPLOYMENT, deployment)["metadata"]
        body = archive.build(
            node_name=f"node-{next(_counter)}",
            node_uid=str(uuid.uuid4()),
            namespace=meta["namespace"],
            deployment=(meta["name"], deployment),
            instance_id="job-1",
            provider="nosana",
            lines=lines,
        )
        self.call("create", f"/api/v1/namespaces/{meta['namespace']}/configmaps", body)


@pytest.fixture(scope="session")
def namespaces(kubectl: Callable[..., Any]) -> tuple[str, str]:
    """(the api's, the operator's)."""
    name = f"api-{os.getpid()}"
    kubectl("create", "namespace", name)
    return name, SYSTEM


@pytest.fixture(scope="session")
def providers(kubectl: Callable[..., Any], kubeconfig: Path) -> None:
    """nosana, akash and k8s, registered and seen by the operator."""
    for name in ("nosana", "akash", "k8s"):
        spec = {"adapter": name, "credentials": [{"name": "main", "secretRef": {"name": "keys"}}]}
        body = {"apiVersion": API_VERSION, "kind": PROVIDER.name, "metadata": {"name": name}, "spec": spec}
        kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    now = "2026-01-01T00:00:00Z"
    unreachable = {"type": "Reachable", "status": "False", "reason": "Unreachable", "lastTransitionTime": now}
    statuses: dict[str, Body] = {
        "nosana": {
            "capabilities": {
                "adapterType": "depin",
                "supports": [
                    "LogStreaming",
                    "ConfidentialCompute",
                    "MultiGPU",
                    "Ephemeral",
                    "ReadinessPoll",
                    "Sidecar",
                ],
                "features": ["job_based", "market_based_pricing"],
                "providerPoolIDPattern": NOSANA_IDS,
                "providerPoolIDHint": "a market's base58 address or its slug",
            },
            "offers": [OFFER],
        },
        "akash": {
            "capabilities": {"adapterType": "depin", "supports": ["Ephemeral"], "pricingModel": "auction"},
            "offersError": "Connection timeout",
            "conditions": [{**unreachable, "message": "no route"}],
        },
        "k8s": {"capabilities": {"adapterType": "on_prem", "features": ["native_k8s"], "poolType": "cluster"}},
    }
    for name, status in statuses.items():
        patch = json.dumps({"status": {"observedGeneration": 1, **status}})
        kubectl("patch", "cprov", name, "--subresource=status", "--type=merge", "-p", patch)


@pytest.fixture(scope="session")
def model_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installation's key as a mounted Secret would have it."""
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(os.urandom(32))
    return path


@pytest.fixture(scope="session")
def api(
    start_api: Starter, namespaces: tuple[str, str], providers: None, relay_url: str, model_key_file: Path
) -> ApiProcess:
    """The api that most tests talk to."""
    namespace, system = namespaces
    where = (f"--namespace={namespace}", f"--system-namespace={system}")
    return start_api(*where, f"--relay-url={relay_url}", f"--model-key-file={model_key_file}")


@pytest.fixture(scope="session")
def world(api: ApiProcess, namespaces: tuple[str, str], kubeconfig: Path) -> Iterator[World]:
    with httpx.Client(base_url=api.url, timeout=30, trust_env=False) as http:
        yield World(http, kubeconfig, *namespaces)


@pytest.fixture(scope="session")
def dead_api(start_api: Starter, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an api whose API server nobody has ever reached."""
    path = tmp_path_factory.mktemp("dead") / "kubeconfig"
    nobody = f"https://127.0.0.1:{free_ports(1)[0]}"
    path.write_text(re.sub(r"https://127\.0\.0\.1:\d+", nobody, kubeconfig.read_text()))
    with httpx.Client(base_url=start_api(ready=False, config=path).url, timeout=30, trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def lone_api(start_api: Starter, namespaces: tuple[str, str], providers: None) -> Iterator[httpx.Client]:
    """A client of an api without a relay."""
    flag = f"--relay-url=http://127.0.0.1:{free_ports(1)[0]}"
    with httpx.Client(
        base_url=start_api(f"--namespace={namespaces[0]}", flag).url, timeout=30, trust_env=False
    ) as http:
        yield http


@dataclass
class CodeWorld(World):
    """With what the rows of the table of codes need besides."""

    eventually: Callable[..., Any] = print

    def own_elsewhere(self, what: str, uid: str) -> None:
        """Another field manager takes what REST would change."""
        kind = POOL if what == "pool" else DEPLOYMENT
        live = self.resource(kind, uid)
        spec: Body = {"desiredState": "Active"} if what == "pool" else {"desiredState": "Running", "replicas": 3}
        metadata: Body = {"name": live["metadata"]["name"], "annotations": {"calayer.dev/rest": "{}"}}
        body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": metadata, "spec": spec}
        path = kind.path(self.namespace, live["metadata"]["name"])
        self.call("apply", path, body, "helm", force="true")


@pytest.fixture(scope="session")
def code_world(world: World, eventually: Callable[..., Any]) -> CodeWorld:
    return CodeWorld(world.http, world.kubeconfig, world.namespace, world.system_namespace, eventually)
