"""Control planes: a real etcd and kube-apiserver with our CRDs, in a folder that goes with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rig.waiting import eventually

from cal_cli.controlplane import ControlPlane, Options, start
from cal_crds.meta import KINDS

CRDS = Path(__file__).resolve().parents[2] / "crds"
#: Where the operator keeps its Lease and the providers' Secrets are.
SYSTEM = "cal-system"
#: An etcd that doesn't wait for the disk: nothing here outlives its run.
FAST = Options(fsync=False)

#: Runs the real kubectl: kubectl("get", "pods", stdin=..., check=True) -> CompletedProcess[str].
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
Binaries = Mapping[str, Path]


@contextmanager
def folder(prefix: str = "cal-test-") -> Iterator[Path]:
    """A directory outside pytest's own, which keeps old runs: an etcd preallocates 64 MB."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def bare_plane(binaries: Binaries, options: Options = FAST, prefix: str = "cal-test-") -> Iterator[ControlPlane]:
    """An API server that holds nothing of ours."""
    with folder(prefix) as path:
        made = start(path, dict(binaries), options)
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def ready_plane(binaries: Binaries, options: Options = FAST, prefix: str = "cal-test-") -> Iterator[ControlPlane]:
    """One that serves our kinds."""
    with bare_plane(binaries, options, prefix) as plane:
        install_crds(binaries, plane)
        yield plane


@contextmanager
def operator_plane(binaries: Binaries, prefix: str = "cal-test-") -> Iterator[ControlPlane]:
    """One with the operator's namespace too, and the folder `adapters` for the demo markets' books."""
    with ready_plane(binaries, prefix=prefix) as plane:
        kubectl(binaries, plane.kubeconfig)("create", "namespace", SYSTEM)
        (plane.state_dir / "adapters").mkdir()
        yield plane


def install_crds(binaries: Binaries, plane: ControlPlane) -> None:
    """Returns once every kind of ours can be listed: a CRD's storage comes up a moment after it is established."""
    run, files = kubectl(binaries, plane.kubeconfig), [f"--filename={path}" for path in sorted(CRDS.glob("*.yaml"))]
    run("apply", "--server-side", *files)
    run("wait", "--for=condition=Established", "--timeout=30s", *files)
    kinds = ",".join(kind.plural for kind in KINDS)
    eventually(lambda: run("get", kinds, "--all-namespaces", check=False).returncode == 0)


def kubectl(binaries: Binaries, kubeconfig: Path) -> Kubectl:
    """Runs the real kubectl by that file, with a cache of its own; an error is an AssertionError unless check=False."""
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache")}

    def run(*arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [str(binaries["kubectl"]), *arguments]
        result = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result

    return run
