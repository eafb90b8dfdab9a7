"""The programs of the control plane: their versions, where their source is, and who needs which of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.37.2"
ETCD_VERSION = "3.7.3"

#: The Go module that pins every version. It lies beside this file, so the wheel carries it.
MODULE = Path(__file__).parent


@dataclass(frozen=True)
class Tool:
    """A program, and the Go package that it is built from."""

    name: str
    package: str


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        Tool("etcd", "go.etcd.io/etcd/server/v3"),
        Tool("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        Tool("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        Tool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Tool("kstatus", "./cmd/kstatus"),
        Tool("helm", "helm.sh/helm/v4/cmd/helm"),
    )
}

#: What `calctl up` runs, and what it offers as `calctl kubectl`.
SERVERS = ("kube-apiserver", "etcd")
FOR_UP = (*SERVERS, "kubectl")
#: What the tests need: everything.
FOR_TESTS = tuple(TOOLS)


def key() -> str:
    """Names a set of built programs: changes with everything that they are built from."""
    digest = hashlib.sha256()
    for path in [MODULE / "go.mod", MODULE / "go.sum", *sorted((MODULE / "cmd").rglob("*.go"))]:
        digest.update(f"{path.relative_to(MODULE)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
