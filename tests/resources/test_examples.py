"""Every example on the real API server, and Argo CD's Lua over the same lives as kstatus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from cal_adapters import errors
from cal_crds import crd
from cal_crds.engines import expand
from cal_crds.gpus import normalise
from cal_crds.meta import API_VERSION, KINDS
from cal_crds.provider import ComputeProvider

Object = dict[str, Any]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
FILES = sorted(path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.yaml"))
PROVIDERS = ("local", "demo", "k8s", "nosana", "akash")


def _documents(file: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all((EXAMPLES / file).read_text()) if document]


OURS = [(file, document) for file in FILES for document in _documents(file) if document["apiVersion"] == API_VERSION]
_KINDS = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_an_example_is_accepted_as_it_stands(file: Path, kubectl: Kubectl, namespace: str) -> None:
    namespaces = {document["metadata"].get("namespace", namespace) for document in _documents(file)}
    assert namespaces <= {namespace, "default", "cal-system"}
    where = [] if "default" in namespaces else ["-n", namespace]
    applied = kubectl("apply", "--server-side", "--dry-run=server", *where, "-f", str(EXAMPLES / file))
    assert applied.stdout.count("serverside-applied") == len(_documents(file))
    assert "Warning" not in applied.stderr


def test_each_provider_and_each_kind_has_an_example() -> None:
    kinds = {(str(file.parent), document["kind"]) for file, document in OURS}
    wanted = {(folder, kind) for folder in PROVIDERS for kind in ("ComputePool", "ModelDeployment")}
    wanted |= {(folder, "ComputeProvider") for folder in PROVIDERS if folder != "local"} | {(".", "ComputeNode")}
    assert wanted - kinds == set()


@pytest.mark.parametrize(
    ("file", "body"), OURS, ids=lambda value: str(value) if isinstance(value, Path) else value["kind"]
)
def test_an_example_says_what_it_means(file: Path, body: Object) -> None:
    """References lead somewhere, GPU types are ones that we know, and what is to be served can be."""
    resource: Any = crd.MODELS[_KINDS[body["kind"]]].parse(body)
    beside = {document["metadata"]["name"] for other, document in OURS if other.parent == file.parent}
    if body["kind"] == "ComputePool":
        assert resource.spec.provider_ref.name in {*beside, "local"}
        assert all(normalise(raw).known for raw in resource.spec.allowed_gpu_types)
    if body["kind"] == "ModelDeployment" and resource.spec.pool_ref:
        assert resource.spec.pool_ref.name in beside
        workload = expand(resource.spec.workload, resource.spec.model)
        assert workload.image or workload.command or workload.args


def test_the_faults_of_the_demo_market_are_ones_that_it_can_show() -> None:
    provider = ComputeProvider.parse(_documents(Path("demo/provider.yaml"))[0])
    assert provider.spec.demo is not None
    assert provider.spec.demo.faults
    assert all(issubclass(getattr(errors, fault.error), errors.AdapterError) for fault in provider.spec.demo.faults)


def test_no_example_holds_a_secret() -> None:
    text = "\n".join((EXAMPLES / file).read_text() for file in FILES)
    assert not [document for file in FILES for document in _documents(file) if document["kind"] == "Secret"]
    assert "hf_" not in text.replace("hf_...", "")


# --- Argo CD -------------------------------------------------------------------------------------------------------------


def _health(script: str, body: Object) -> Object:
    """What the script says, in the Lua version that Argo CD runs, with `obj` as it gives it."""
    lua: Any = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(body, recursive=True)
    health: Object = dict(lua.execute(script))
    return health


def test_argo_cd_over_a_life(stage: Any) -> None:
    health = _health((EXAMPLES / "gitops" / "health.lua").read_text(), stage.body)
    assert health["status"] == stage.argo
    assert health["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"generation": 1}},
        {"metadata": {"generation": 1}, "status": {}},
        {"metadata": {"generation": 1}, "status": {"observedGeneration": 1}},
        {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": []}},
    ],
    ids=["no status", "empty status", "no conditions", "empty conditions"],
)
def test_argo_cd_takes_nothing_half_known_for_healthy(body: Object) -> None:
    assert _health((EXAMPLES / "gitops" / "health.lua").read_text(), body)["status"] == "Progressing"


def test_argo_cds_config_map_has_the_script_for_every_kind() -> None:
    data = _documents(Path("gitops/argocd-cm.yaml"))[0]["data"]
    script = (EXAMPLES / "gitops" / "health.lua").read_text()
    assert data == {f"resource.customizations.health.calayer.dev_{kind.name}": script for kind in KINDS}
