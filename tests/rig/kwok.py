"""A cluster with a scheduler and pretended nodes: make a Node (kwok keeps it Ready), then Pods land on it and run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rig.plane import Binaries, Kubectl, kubectl, ready_plane
from rig.waiting import eventually

from cal_cli.controlplane import ControlPlane, Options, Process
from cal_cli.controlplane.gobuild import stages

_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")


@dataclass(frozen=True)
class KwokCluster:
    """An API server with controller manager, scheduler and kwok: Nodes that you create become Ready, Pods run."""

    kubeconfig: Path
    kubectl: Kubectl


@contextmanager
def cluster(binaries: Binaries) -> Iterator[KwokCluster]:
    """Real scheduling without machines."""
    with ready_plane(binaries, Options(fsync=False, service_accounts=True)) as plane:
        helpers: list[Process] = []
        try:
            for helper in _helpers(binaries, plane):
                helpers.append(helper)
                helper.start()
            run = kubectl(binaries, plane.kubeconfig)
            _wait_for_default_account(run, helpers)
            yield KwokCluster(plane.kubeconfig, run)
        finally:
            for helper in reversed(helpers):
                helper.stop(grace=3)


def _helpers(binaries: Binaries, plane: ControlPlane) -> list[Process]:
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


def _stages(binaries: Binaries) -> list[Path]:
    kept = binaries["kwok"].parent / "kwok-stages"
    root = kept if kept.is_dir() else stages()
    return [path for part in _STAGES for path in sorted((root / part).glob("*-*.yaml"))]


def _wait_for_default_account(run: Kubectl, helpers: list[Process]) -> None:
    """The controller manager makes it; without it no Pod is admitted. A helper that ended would be waited for in vain."""

    def there() -> bool:
        dead = [helper for helper in helpers if not helper.alive()]
        if dead:
            raise RuntimeError(f"{dead[0].name} ended:\n{dead[0].tail()}")
        return run("get", "serviceaccount", "default", "-n", "default", check=False).returncode == 0

    eventually(there, timeout=60, interval=0.2)
