"""A control plane and an operator of this folder's own: an operator acts on every object of its API server."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from rig.desk import QUICK, Desk, OperatorProcess

from cal_cli.controlplane import ControlPlane, Options, start
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster

REPO = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def own_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """A real etcd and kube-apiserver with our CRDs and the operator's namespace."""
    directory = Path(tempfile.mkdtemp(prefix="cal-test-"))
    plane = start(directory, binaries, Options(fsync=False))
    try:
        kubectl = [str(binaries["kubectl"]), f"--kubeconfig={plane.kubeconfig}"]
        subprocess.run([*kubectl, "apply", "--server-side", "-f", str(REPO / "crds")], check=True, capture_output=True)
        subprocess.run([*kubectl, "create", "namespace", "cal-system"], check=True, capture_output=True)
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="package")
def adapter_state(own_plane: ControlPlane) -> Path:
    """Where the demo markets keep their books."""
    folder = own_plane.state_dir / "adapters"
    folder.mkdir()
    return folder


@pytest.fixture(scope="package")
def operator(own_plane: ControlPlane, adapter_state: Path) -> Iterator[OperatorProcess]:
    """The running operator. Tests that need to kill one start their own."""
    process = OperatorProcess(own_plane.kubeconfig, adapter_state, free_ports(1)[0], *QUICK).start()
    try:
        yield process
    finally:
        code = process.stop()
        assert code == 0, process.log.read_text()[-4000:]


@pytest.fixture
async def own_cluster(own_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Cluster]:
    async with await Cluster.connect(str(own_plane.kubeconfig)) as connected:
        yield connected


@pytest.fixture
async def bare_desk(own_cluster: Cluster, adapter_state: Path) -> AsyncIterator[Desk]:
    """A namespace and a provider's name of this test's own; no operator runs unless the test starts one."""
    name = f"desk-{os.getpid()}-{next(_numbers)}"
    await own_cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    desk = Desk(own_cluster, name, name, adapter_state)
    yield desk
    desk.ledger.close()


@pytest.fixture
async def desk(bare_desk: Desk, operator: OperatorProcess) -> Desk:
    """A desk with the running operator."""
    assert operator.process is not None and operator.process.poll() is None, operator.log.read_text()[-4000:]
    return bare_desk
