"""The example of this adapter as a user applies it, with a real operator: from `kubectl apply` to running Pods to nothing left."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig.desk import QUICK, OperatorProcess

from cal_cli.controlplane.plane import free_ports

REPO = Path(__file__).resolve().parents[3]
EXAMPLE = REPO / "examples" / "k8s"
LOGIN = json.dumps({"auths": {"registry.test": {"username": "me", "password": "pw"}}})
L40S = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068"}


@pytest.fixture
def operator(kwok_cluster: Any) -> Iterator[None]:
    """`python -m cal_operator` on the kwok cluster."""
    for name in ("cal-system", "models"):
        kwok_cluster.kubectl("create", "namespace", name, check=False)
    with tempfile.TemporaryDirectory(prefix="cal-test-") as folder:
        process = OperatorProcess(kwok_cluster.kubeconfig, Path(folder), free_ports(1)[0], *QUICK).start()
        try:
            yield
        finally:
            code = process.stop()
            assert code == 0, process.log.read_text()[-4000:]


def test_the_example_runs_is_scaled_replaces_a_lost_pod_and_goes(
    site: Any, operator: None, eventually: Callable[..., Any]
) -> None:
    kubectl, ns = site.kubectl, site.namespace
    for _ in range(2):
        site.node(gpus=2, cpu="32", memory="128Gi", labels=L40S)
    kubectl("create", "secret", "generic", "hf", "--from-literal=token=hf-123", "-n", ns)
    login = f"--from-literal=.dockerconfigjson={LOGIN}"
    kubectl("create", "secret", "generic", "registry", "--type=kubernetes.io/dockerconfigjson", login, "-n", ns)
    kubectl("label", "secret", "hf", "registry", "-n", ns, "calayer.dev/owner-hash=any")
    for part in ("provider", "pool", "deployment"):
        kubectl("apply", "-f", str(EXAMPLE / f"{part}.yaml"), "-n", ns)

    def deployment() -> dict[str, Any]:
        return dict(
            json.loads(kubectl("get", "mdep", "on-prem-llama", "-n", ns, "-o", "json").stdout).get("status") or {}
        )

    def pods() -> list[dict[str, Any]]:
        found = json.loads(kubectl("get", "pods", "-n", "models", "-o", "json").stdout)["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def state(word: str, replicas: int) -> Callable[[], Any]:
        def check() -> bool:
            seen = deployment()
            assert (seen.get("state"), seen.get("readyReplicas")) == (word, replicas), json.dumps(seen)[:1500]
            return True

        return check

    eventually(state("RUNNING", 2), timeout=60)
    assert len(pods()) == 2
    assert deployment()["endpoint"].startswith("http://10.96.")
    assert {c["resources"]["limits"]["nvidia.com/gpu"] for pod in pods() for c in pod["spec"]["containers"]} == {"1"}

    kubectl("scale", "mdep", "on-prem-llama", "--replicas=3", "-n", ns)
    eventually(state("RUNNING", 3), timeout=60)

    lost = pods()[0]["metadata"]["name"]
    kubectl("delete", "pod", lost, "-n", "models")
    eventually(lambda: len(pods()) == 3 and lost not in {pod["metadata"]["name"] for pod in pods()}, timeout=60)
    eventually(state("RUNNING", 3), timeout=60)

    kubectl("delete", "mdep", "on-prem-llama", "-n", ns, "--timeout=60s")
    kubectl("delete", "cpool", "on-prem", "-n", ns, "--timeout=60s")
    kubectl("delete", "cprov", "k8s", "--timeout=60s")
    for kind in ("pods", "services", "secrets"):
        assert kubectl("get", kind, "-n", "models", "-o", "name").stdout == ""
