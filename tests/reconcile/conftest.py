"""Control planes of this folder's own: one with a running operator, which acts on every object of its API server, and a quiet one."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig.desk import QUICK, Desk, OperatorProcess

from cal_cli.controlplane import ControlPlane, Options, start
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster

REPO = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@contextmanager
def _plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """A real etcd and kube-apiserver with our CRDs, the operator's namespace, and a folder for the demo markets' books."""
    directory = Path(tempfile.mkdtemp(prefix="cal-test-"))
    plane = start(directory, binaries, Options(fsync=False))
    try:
        kubectl = [str(binaries["kubectl"]), f"--kubeconfig={plane.kubeconfig}"]
        subprocess.run([*kubectl, "apply", "--server-side", "-f", str(REPO / "crds")], check=True, capture_output=True)
        subprocess.run([*kubectl, "create", "namespace", "cal-system"], check=True, capture_output=True)
        (plane.state_dir / "adapters").mkdir()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="package")
def busy_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """Where the running operator is."""
    with _plane(binaries) as plane:
        yield plane


@pytest.fixture(scope="package")
def own_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """Where no operator runs unless the test starts one: a second one would act on the same objects."""
    with _plane(binaries) as plane:
        yield plane


@pytest.fixture(scope="package")
def adapter_state(own_plane: ControlPlane) -> Path:
    """Where the demo markets of the quiet plane keep their books."""
    return own_plane.state_dir / "adapters"


@pytest.fixture(scope="package")
def operator(busy_plane: ControlPlane) -> Iterator[OperatorProcess]:
    """The running operator. Tests that need to kill one start their own."""
    state = busy_plane.state_dir / "adapters"
    process = OperatorProcess(busy_plane.kubeconfig, state, free_ports(1)[0], *QUICK).start()
    try:
        yield process
    finally:
        code = process.stop()
        assert code == 0, process.log.read_text()[-4000:]


@pytest.fixture
async def bare_desk(own_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Desk]:
    """A namespace and a provider's name of this test's own, where no operator runs."""
    async with await Cluster.connect(str(own_plane.kubeconfig)) as cluster:
        desk = await _desk(cluster, own_plane)
        yield desk
        desk.ledger.close()


@pytest.fixture
async def desk(operator: OperatorProcess, busy_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Desk]:
    """A namespace and a provider's name of this test's own, and the running operator."""
    assert operator.process is not None and operator.process.poll() is None, operator.log.read_text()[-4000:]
    async with await Cluster.connect(str(busy_plane.kubeconfig)) as cluster:
        made = await _desk(cluster, busy_plane)
        yield made
        made.ledger.close()


async def _desk(cluster: Cluster, plane: ControlPlane) -> Desk:
    name = f"desk-{os.getpid()}-{next(_numbers)}"
    await cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return Desk(cluster, name, name, plane.state_dir / "adapters")
