"""What guards the record of paid instances: `down --purge` and `down --terminate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cal_cli.controlplane import Options, start

pytestmark = pytest.mark.timeout(300)
Calctl = Any

PROVIDER = {
    "apiVersion": "calayer.dev/v1alpha1",
    "kind": "ComputeProvider",
    "metadata": {"name": "rented"},
    "spec": {"adapter": "k8s"},
}
NODE = {
    "apiVersion": "calayer.dev/v1alpha1",
    "kind": "ComputeNode",
    "metadata": {"name": "paid", "namespace": "default"},
    "spec": {
        "deploymentRef": {"name": "d", "uid": "u"},
        "poolRef": {"name": "p", "uid": "u"},
        "providerRef": {"name": "rented"},
        "slot": 0,
        "token": "abcdefgh12",
        "templateHash": "h",
        "offer": {"id": "o", "pricePerHour": "1.25"},
        "model": {"name": "m"},
        "workload": {"type": "Inference"},
    },
}


def test_purge_refuses_while_a_paid_instance_is_on_record(
    calctl: Calctl, binaries: dict[str, Path], kubectl_with: Callable[..., None]
) -> None:
    calctl.up()
    calctl("down")
    plane = start(calctl.state, binaries, Options())
    kubectl_with(plane.kubeconfig, "apply", PROVIDER, NODE)
    status = {"status": {"instance": {"handle": "h", "id": "job-1", "pricePerHour": "1.25"}}}
    kubectl_with(plane.kubeconfig, "patch", status)
    plane.stop()

    refused = calctl("down", "--purge", check=False)
    assert refused.returncode == 1
    assert "1 paid instance(s) run on, 1.25 USD per hour in all" in refused.stderr
    assert "rented job-1" in refused.stderr
    assert (calctl.state / "etcd").is_dir()
    assert calctl.processes() == []

    impossible = calctl("down", "--terminate", check=False)
    assert impossible.returncode == 1
    assert "calctl up" in impossible.stderr


def test_purge_of_what_never_ran_paid_instances_removes_it(calctl: Calctl) -> None:
    calctl.up("--demo")
    calctl("down", "--purge")
    assert not calctl.state.exists()


def test_nothing_but_a_state_directory_is_ever_removed(calctl: Calctl, tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("the only copy")
    refused = calctl("down", "--purge", "--state-dir", str(tmp_path), check=False)
    assert refused.returncode == 1
    assert f"not purged: {tmp_path} is no state directory" in refused.stderr
    assert "nothing to stop" in calctl("down", "--state-dir", str(tmp_path)).stderr
    mixed = calctl("up", "--state-dir", str(tmp_path), *calctl.ports, check=False)
    assert mixed.returncode == 1
    assert f"{tmp_path} holds other things" in mixed.stderr, "else the next purge would take them"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_terminate_ends_every_deployment_first(calctl: Calctl) -> None:
    calctl.up("--demo")
    calctl("create", "pool", "rtx", "--provider", "demo")
    calctl("deploy", "llama", "--pool", "rtx", "--image", "x", "--gpus", "1", "--wait")
    calctl("down", "--terminate")
    calctl.up("--demo")
    assert "TERMINATED" in calctl("get", "deployments").stdout
    assert calctl("get", "nodes").stdout == "no nodes\n"


@pytest.fixture
def kubectl_with(binaries: dict[str, Path]) -> Callable[..., None]:
    """kubectl_with(kubeconfig, "apply", *bodies), or "patch" with the status of the node."""
    import subprocess

    def run(kubeconfig: Path, verb: str, *bodies: dict[str, Any]) -> None:
        argv = [str(binaries["kubectl"]), f"--kubeconfig={kubeconfig}", verb]
        if verb == "apply":
            argv += ["-f", "-"]
        else:
            argv += ["cnode/paid", "--subresource=status", "--type=merge", f"--patch={yaml.safe_dump(bodies[0])}"]
        text = yaml.safe_dump_all(bodies)
        result = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    return run
