"""What all tests share: a real API server with our CRDs, kubectl, namespaces, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cal_cli.controlplane import ControlPlane, Options, Process, find, start
from cal_cli.controlplane.gobuild import stages
from cal_cli.controlplane.plane import free_ports
from cal_cli.controlplane.tools import FOR_TESTS
from cal_cli.kube import NOT_FOUND, Kube, KubeError
from cal_crds.cluster import Cluster
from cal_crds.meta import DEPLOYMENT, NODE, POOL

REPO = Path(__file__).resolve().parent.parent
_KWOK_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_counter = itertools.count(1)

T = TypeVar("T")
#: Runs the real kubectl: kubectl("get", "pods", stdin=..., check=True) -> CompletedProcess[str].
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


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


# --- waiting -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """eventually(check, timeout=30): polls until `check()` is truthy and returns its value.

    An AssertionError in `check` counts as not yet; the last one is raised when the time is over.
    """

    def poll(check: Callable[[], T], timeout: float = 30, interval: float = 0.05) -> T:
        deadline = time.monotonic() + timeout
        while True:
            last: AssertionError | None = None
            try:
                value = check()
                if value:
                    return value
            except AssertionError as error:
                last = error
            if time.monotonic() > deadline:
                raise last or AssertionError(f"not within {timeout} s; last value: {value!r}")
            time.sleep(interval)

    return poll


@pytest.fixture(scope="session")
def eventually_async() -> Callable[..., Any]:
    """`await eventually_async(check, timeout=30)`: as `eventually`, for an async `check`."""

    async def poll(check: Callable[[], Awaitable[T]], timeout: float = 30, interval: float = 0.05) -> T:
        deadline = time.monotonic() + timeout
        while True:
            last: AssertionError | None = None
            try:
                value = await check()
                if value:
                    return value
            except AssertionError as error:
                last = error
            if time.monotonic() > deadline:
                raise last or AssertionError(f"not within {timeout} s; last value: {value!r}")
            await asyncio.sleep(interval)

    return poll


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
    with _temporary() as directory:
        plane = start(directory, binaries, Options(fsync=False))
        try:
            _apply_crds(binaries["kubectl"], plane.kubeconfig)
            yield plane
        finally:
            plane.stop()


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The kubeconfig of an admin."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def kubectl(binaries: dict[str, Path], kubeconfig: Path) -> Kubectl:
    """Runs the real kubectl as admin: kubectl("get", "cpool", "-n", ns). Fails the test on an error unless check=False."""
    return _kubectl(binaries["kubectl"], kubeconfig)


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


# --- a cluster with a scheduler and pretended nodes --------------------------------------------------------------------


@dataclass(frozen=True)
class KwokCluster:
    """A second API server, with controller manager, scheduler and kwok: Nodes that you create become Ready, Pods run."""

    kubeconfig: Path
    kubectl: Kubectl


@pytest.fixture(scope="session")
def kwok_cluster(binaries: dict[str, Path]) -> Iterator[KwokCluster]:
    """Real scheduling without machines: make a Node (kwok keeps it Ready), then Pods land on it and run."""
    with _temporary() as directory:
        plane = start(directory, binaries, Options(fsync=False, service_accounts=True))
        helpers: list[Process] = []
        try:
            _apply_crds(binaries["kubectl"], plane.kubeconfig)
            for helper in _kwok_processes(binaries, plane):
                helpers.append(helper)
                helper.start()
            run = _kubectl(binaries["kubectl"], plane.kubeconfig)
            _wait_for_default_account(run, helpers)
            yield KwokCluster(plane.kubeconfig, run)
        finally:
            for helper in reversed(helpers):
                helper.stop(grace=3)
            plane.stop()


def _kwok_processes(binaries: Mapping[str, Path], plane: ControlPlane) -> list[Process]:
    logs, config = plane.state_dir / "logs", f"--kubeconfig={plane.kubeconfig}"
    pki = plane.state_dir / "pki"
    manager = [
        str(binaries["kube-controller-manager"]),
        config,
        "--leader-elect=false",
        "--secure-port=0",
        f"--root-ca-file={plane.authority.pair.cert}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
    ]
    scheduler = [str(binaries["kube-scheduler"]), config, "--leader-elect=false", "--secure-port=0"]
    kwok = [str(binaries["kwok"]), config, "--manage-all-nodes", *(f"--config={path}" for path in _stages(binaries))]
    return [
        Process(name, argv, logs / f"{name}.log")
        for name, argv in (("kube-controller-manager", manager), ("kube-scheduler", scheduler), ("kwok", kwok))
    ]


def _stages(binaries: Mapping[str, Path]) -> list[Path]:
    kept = binaries["kwok"].parent / "kwok-stages"
    root = kept if kept.is_dir() else stages()
    return [path for part in _KWOK_STAGES for path in sorted((root / part).glob("*-*.yaml"))]


def _wait_for_default_account(run: Kubectl, helpers: list[Process]) -> None:
    deadline = time.monotonic() + 60
    while run("get", "serviceaccount", "default", "-n", "default", check=False).returncode != 0:
        dead = [helper for helper in helpers if not helper.alive()]
        assert not dead, f"{dead[0].name} ended:\n{dead[0].tail()}"
        assert time.monotonic() < deadline, "the controller manager made no default service account in 60 s"
        time.sleep(0.2)


# --- helpers -----------------------------------------------------------------------------------------------------------


class _temporary:
    """A directory outside pytest's own, which keeps old runs: an etcd preallocates 64 MB."""

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="cal-test-"))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _kubectl(program: Path, kubeconfig: Path) -> Kubectl:
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache")}

    def run(*arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [str(program), *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result

    return run


def _apply_crds(program: Path, kubeconfig: Path) -> None:
    files = sorted((REPO / "crds").glob("*.yaml"))
    if files:
        run = _kubectl(program, kubeconfig)
        run("apply", "--server-side", *(f"--filename={path}" for path in files))
        run("wait", "--for=condition=Established", "--timeout=30s", *(f"--filename={path}" for path in files))
