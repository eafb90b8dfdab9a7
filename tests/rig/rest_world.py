"""A client of a real api, and the operator's hand at the API server behind it."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cal_crds import archive
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, NODE, POOL, Kind

_counter = itertools.count(1)
Body = dict[str, Any]

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
_NOSANA_IDS = "[1-9A-HJ-NP-Za-km-z]{32,44}|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_UNREACHABLE = {
    "type": "Reachable",
    "status": "False",
    "reason": "Unreachable",
    "message": "no route",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
#: Statuses of the providers, as the operator would have written them.
PROVIDERS: dict[str, Body] = {
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
            "providerPoolIDPattern": _NOSANA_IDS,
            "providerPoolIDHint": "a market's base58 address or its slug",
        },
        "offers": [OFFER],
    },
    "akash": {
        "capabilities": {"adapterType": "depin", "supports": ["Ephemeral"], "pricingModel": "auction"},
        "offersError": "Connection timeout",
        "conditions": [_UNREACHABLE],
    },
    "k8s": {"capabilities": {"adapterType": "on_prem", "features": ["native_k8s"], "poolType": "cluster"}},
}


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
