"""Control planes of this folder's own: one with a running operator, which acts on every object of its API server, and a quiet one."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rig.desk import QUICK, Desk, OperatorProcess
from rig.plane import operator_plane

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.cluster import Cluster
from cal_operator.__main__ import build
from cal_operator.engine import Engine
from cal_operator.settings import parse
from cal_operator.world import World

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def busy_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """Where the running operator is."""
    with operator_plane(binaries) as plane:
        yield plane


@pytest.fixture(scope="package")
def own_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """Where no operator runs unless the test starts one: a second one would act on the same objects."""
    with operator_plane(binaries) as plane:
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
def fresh_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """Where nothing was done before: for what is counted by the API server's own metrics, which tell no tests apart."""
    with operator_plane(binaries) as plane:
        yield plane


@pytest.fixture
async def fresh_desk(fresh_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Desk]:
    """A desk on a plane of its own, where no operator runs."""
    async with _desk_on(fresh_plane) as made:
        yield made


@pytest.fixture
async def bare_desk(own_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Desk]:
    """A namespace and a provider's name of this test's own, where no operator runs."""
    async with _desk_on(own_plane) as made:
        yield made


@pytest.fixture
async def desk(operator: OperatorProcess, busy_plane: ControlPlane, anyio_backend: str) -> AsyncIterator[Desk]:
    """A namespace and a provider's name of this test's own, and the running operator."""
    assert operator.process is not None and operator.process.poll() is None, operator.log.read_text()[-4000:]
    async with _desk_on(busy_plane) as made:
        yield made


@asynccontextmanager
async def _desk_on(plane: ControlPlane) -> AsyncIterator[Desk]:
    name = f"desk-{os.getpid()}-{next(_numbers)}"
    async with await Cluster.connect(str(plane.kubeconfig)) as cluster:
        await cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
        made = Desk(cluster, name, name, plane.state_dir / "adapters")
        yield made
        made.ledger.close()


@pytest.fixture
async def world(bare_desk: Desk, own_plane: ControlPlane) -> AsyncIterator[World]:
    """An operator's inside without its watch: it learns nothing that it isn't told. It leads by a Lease of its own."""
    namespace = f"{bare_desk.namespace}-system"
    await bare_desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    flags = [f"--kubeconfig={own_plane.kubeconfig}", "--enable-adapters=demo", f"--system-namespace={namespace}"]
    settings = parse([*flags, f"--adapter-state-dir={bare_desk.state_dir}", *QUICK])
    made = await build(bare_desk.cluster, bare_desk.cluster, settings)
    engine = Engine(made)
    await made.leader.acquire()
    yield made
    await engine.drain()
