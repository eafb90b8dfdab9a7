"""The control plane that everything stands on: it starts, keeps its data, guards its doors, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cal_crds.cluster import Cluster

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


def test_kubectl_reaches_the_api_server_at_our_version(kubectl: Kubectl) -> None:
    assert "v1.37.2" in kubectl("version", "-o", "json").stdout


@pytest.mark.anyio
async def test_the_shared_access_reaches_it(cluster: Cluster, namespace: str) -> None:
    body = await cluster.get(f"/api/v1/namespaces/{namespace}")
    assert body["metadata"]["name"] == namespace


def test_a_pod_lands_on_a_pretended_gpu_node(kwok_cluster: Any, eventually: Callable[..., Any]) -> None:
    kwok_cluster.kubectl("apply", "-f", "-", stdin=NODE)
    kwok_cluster.kubectl("apply", "-f", "-", stdin=POD)
    jsonpath = "-o=jsonpath={.status.phase} {.spec.nodeName}"
    eventually(lambda: kwok_cluster.kubectl("get", "pod", "gpu", jsonpath).stdout == "Running plane-gpu", timeout=60)
    kwok_cluster.kubectl("delete", "pod/gpu", "node/plane-gpu")


NODE = """
apiVersion: v1
kind: Node
metadata: {name: plane-gpu}
status:
  capacity: {cpu: "8", memory: 32Gi, pods: "10", nvidia.com/gpu: "8"}
  allocatable: {cpu: "8", memory: 32Gi, pods: "10", nvidia.com/gpu: "8"}
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: gpu}
spec:
  containers:
  - {name: main, image: none, resources: {limits: {nvidia.com/gpu: "4"}}}
"""
