"""What all tests share: a real API server with our CRDs, kubectl, namespaces, and waiting with a deadline."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import kwok, waiting
from rig import plane as planes
from rig.kwok import KwokCluster
from rig.plane import Kubectl

from cal_cli.controlplane import ControlPlane, find
from cal_cli.controlplane.plane import free_ports
from cal_cli.controlplane.tools import FOR_TESTS
from cal_cli.kube import NOT_FOUND, Kube, KubeError
from cal_crds.cluster import Cluster
from cal_crds.meta import DEPLOYMENT, NODE, POOL

REPO = Path(__file__).resolve().parent.parent
_counter = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


# --- skips -------------------------------------------------------------------------------------------------------------

_skipped: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped.add(str(report.longrepr[2]).removeprefix("Skipped: "))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A skip whose reason isn't listed in tests/skips.txt fails the run: nothing is left out silently."""
    listing = REPO / "tests" / "skips.txt"
    known = listing.read_text().splitlines() if listing.exists() else []
    unknown = sorted(reason for reason in _skipped if reason not in known)
    if unknown:
        print("\nskipped for reasons that tests/skips.txt does not list:", *unknown, sep="\n  ")
        if exitstatus == 0:
            session.exitstatus = 1


# --- waiting and ports -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """eventually(check, timeout=90): polls until `check()` is truthy and returns its value. See rig/waiting.py."""
    return waiting.eventually


@pytest.fixture(scope="session")
def eventually_async() -> Callable[..., Any]:
    """`await eventually_async(check, timeout=90)`: as `eventually`, for an async `check`."""
    return waiting.until


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]


# --- the API server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Every program of the control plane, by name; built when nobody has them (minutes, once)."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        lines: list[str] = []
        return find(FOR_TESTS, lines.append if _all_there() else lambda line: print(line, flush=True))


def _all_there() -> bool:
    """Whether the search is quick and its words are of no interest."""
    return "KUBEBUILDER_ASSETS" in os.environ


@pytest.fixture(scope="session")
def control_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """A real etcd and kube-apiserver with our CRDs, for the whole run. No controller manager: nothing collects garbage."""
    with planes.ready_plane(binaries) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The kubeconfig of an admin."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def kubectl(binaries: dict[str, Path], kubeconfig: Path) -> Kubectl:
    """Runs the real kubectl as admin: kubectl("get", "cpool", "-n", ns). Fails the test on an error unless check=False."""
    return planes.kubectl(binaries, kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl, kubeconfig: Path) -> Iterator[str]:
    """A fresh namespace. What a test leaves of our kinds goes with it: the next operator would work on it."""
    name = f"test-{os.getpid()}-{next(_counter)}"
    kubectl("create", "namespace", name)
    yield name
    kube = Kube(kubeconfig)
    for kind in (DEPLOYMENT, NODE, POOL):
        for item in kube.items(kind.path(name)):
            _remove(kube, kind.path(name, item["metadata"]["name"]))


def _remove(kube: Kube, path: str) -> None:
    """At once, whatever finalizers it bears. An operator that still runs may have been quicker."""
    for change in (lambda: kube.merge_patch(path, {"metadata": {"finalizers": None}}), lambda: kube.delete(path)):
        try:
            change()
        except KubeError as error:
            if error.status != NOT_FOUND:
                raise


@pytest.fixture
async def cluster(kubeconfig: Path, anyio_backend: str) -> AsyncIterator[Cluster]:
    """The API server, through the access that all our processes use."""
    async with await Cluster.connect(str(kubeconfig)) as connected:
        yield connected


@pytest.fixture(scope="session")
def kwok_cluster(binaries: dict[str, Path]) -> Iterator[KwokCluster]:
    """A second API server, with controller manager, scheduler and kwok. See rig/kwok.py."""
    with kwok.cluster(binaries) as running:
        yield running
