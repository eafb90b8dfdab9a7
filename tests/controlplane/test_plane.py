"""The control plane that everything stands on: it starts, keeps its data, guards its doors, and leaves nothing behind."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cal_cli.controlplane import ControlPlane, Options, ProcessFailed, start
from cal_crds.cluster import Cluster

Kubectl = Callable[..., subprocess.CompletedProcess[str]]
RunKubectl = Callable[..., str]


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
    eventually(lambda: kwok_cluster.kubectl("get", "pod", "gpu", jsonpath).stdout == "Running plane-gpu", timeout=150)
    kwok_cluster.kubectl("delete", "pod/gpu", "node/plane-gpu")


def test_nobody_gets_in_without_a_certificate(control_plane: ControlPlane) -> None:
    anyone = httpx.get(f"{control_plane.server}/api", verify=_anonymous(control_plane.authority.pair.cert))
    assert anyone.status_code == 401


def test_a_client_of_the_api_server_cannot_read_etcd(control_plane: ControlPlane) -> None:
    url = f"https://127.0.0.1:{control_plane.ports[0]}/health"
    etcd_ca = control_plane.state_dir / "pki" / "etcd" / "ca.crt"
    admin = control_plane.authority.client("calctl-admin", "system:masters")
    context = _anonymous(etcd_ca)
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, verify=context)
    context.load_cert_chain(admin.cert, admin.key)
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, verify=context)


def test_keys_and_kubeconfigs_are_for_their_owner_alone(control_plane: ControlPlane) -> None:
    secret = [*control_plane.state_dir.rglob("*.key"), *control_plane.state_dir.rglob("*kubeconfig")]
    assert len(secret) > 5
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


def test_a_certificate_is_only_what_rbac_makes_of_it(control_plane: ControlPlane, binaries: dict[str, Path]) -> None:
    nobody = control_plane.user_kubeconfig("nobody")
    argv = [str(binaries["kubectl"]), f"--kubeconfig={nobody}", "get", "secrets"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'User "nobody" cannot list resource "secrets"' in result.stderr


def test_data_and_certificates_survive_a_restart_on_other_ports(
    tmp_path: Path, binaries: dict[str, Path], run_kubectl: RunKubectl
) -> None:
    first = start(tmp_path, binaries, Options(fsync=False))
    run_kubectl(first.kubeconfig, "create", "namespace", "kept")
    authority = first.authority.pair.cert.read_bytes()
    first.stop()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first.ports[2]))
        squatter.listen()
        second = start(tmp_path, binaries, Options(fsync=False, ports=first.ports))
        try:
            assert set(second.ports).isdisjoint(first.ports)
            assert "kept" in run_kubectl(second.kubeconfig, "get", "namespaces")
            assert second.authority.pair.cert.read_bytes() == authority
        finally:
            second.stop()


def test_ports_that_are_free_are_taken_again(tmp_path: Path, binaries: dict[str, Path]) -> None:
    ports = start_and_stop(tmp_path, binaries, None)
    assert start_and_stop(tmp_path, binaries, ports) == ports


def test_a_data_directory_that_is_spoilt_ends_with_etcds_own_words(tmp_path: Path, binaries: dict[str, Path]) -> None:
    (tmp_path / "etcd").write_text("a file where a directory should be")
    with pytest.raises(ProcessFailed, match=r"(?s)etcd ended with code.*not a directory"):
        start(tmp_path, binaries, Options(fsync=False))


def start_and_stop(
    directory: Path, binaries: dict[str, Path], ports: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    plane = start(directory, binaries, Options(fsync=False, ports=ports))
    plane.stop()
    return plane.ports


def _anonymous(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


@pytest.fixture
def run_kubectl(binaries: dict[str, Path], tmp_path: Path) -> RunKubectl:
    """run_kubectl(kubeconfig, *arguments) -> its output."""

    def run(kubeconfig: Path, *arguments: str) -> str:
        argv = [str(binaries["kubectl"]), f"--kubeconfig={kubeconfig}", f"--cache-dir={tmp_path / 'kube'}", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    return run


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
