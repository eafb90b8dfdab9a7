"""Makes a fresh API server ours: namespaces, CRDs, access rights, the models' key, and the providers that come with `calctl up`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cal_cli.errors import Failure
from cal_cli.kube import Kube, path_of
from cal_crds import modelkeys
from cal_crds.meta import PROVIDER

_MANIFESTS = Path(__file__).parent / "manifests"
_ROOT = Path(__file__).parents[2]
SYSTEM_NAMESPACE = "cal-system"
_ESTABLISHED = 20.0


def bootstrap(kube: Kube, *, namespace: str, providers: Sequence[str], rbac: bool) -> None:
    """Idempotent. CRDs and rights are brought to our version; providers that are there stay as they are.

    `providers` names folders of `manifests`: local, demo, remote, cluster.
    """
    for name in (SYSTEM_NAMESPACE, namespace):
        kube.create_if_absent({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    definitions = list(crds())
    for definition in definitions:
        kube.apply(definition)
    if rbac:
        for body in documents(_MANIFESTS / "rbac"):
            kube.apply(body)
    for definition in definitions:
        _wait_established(kube, definition)
    for folder in providers:
        for body in documents(_MANIFESTS / folder):
            kube.create_if_absent(body)


def model_key(kube: Kube) -> bytes:
    """The key from which those of all models are derived; made if there is none. `Failure` if the Secret holds something else."""
    path = modelkeys.secret_path(SYSTEM_NAMESPACE)
    if kube.find(path) is None:
        kube.create_if_absent(modelkeys.new_secret(SYSTEM_NAMESPACE))
    try:
        return modelkeys.read_secret(kube.get(path))
    except modelkeys.BadKey as bad:
        raise Failure(f"the models' key can't be used: {bad}") from bad


def embedded(demo: bool) -> list[str]:
    """The adapters that load only on request and that `calctl up` asks for: their instances live in the state directory."""
    return ["local", "demo"] if demo else ["local"]


def embedded_providers(kube: Kube) -> set[str]:
    """Names of the providers whose instances end with the state directory."""
    items = kube.items(PROVIDER.path())
    return {item["metadata"]["name"] for item in items if item["spec"]["adapter"] in embedded(demo=True)}


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every YAML document of a folder, in the order of the file names."""
    for path in sorted(folder.glob("*.yaml")):
        yield from (body for body in yaml.safe_load_all(path.read_text()) if body)


def crds() -> Iterator[dict[str, Any]]:
    """The CRDs: beside this package in a wheel, else in the repository."""
    bundled = Path(__file__).parent / "data" / "crds"
    return documents(bundled if bundled.is_dir() else _ROOT / "crds")


def examples() -> Path:
    """The examples: beside this package in a wheel, else in the repository."""
    bundled = Path(__file__).parent / "data" / "examples"
    return bundled if bundled.is_dir() else _ROOT / "examples"


def _wait_established(kube: Kube, definition: dict[str, Any]) -> None:
    deadline = time.monotonic() + _ESTABLISHED
    while not _established(kube.get(path_of(definition))):
        if time.monotonic() > deadline:
            raise Failure(f"CRD {definition['metadata']['name']} was not established in {_ESTABLISHED:.0f} s")
        time.sleep(0.05)


def _established(definition: dict[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
