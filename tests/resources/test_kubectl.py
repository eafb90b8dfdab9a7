"""What a person at kubectl sees of our kinds: explanations, columns, names, selectors, scale, and the status of the unseen."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cal_crds import crd
from cal_crds.__main__ import main
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, KINDS, POOL, Kind

Object = dict[str, Any]
Full = Callable[..., Object]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stored(kubectl: Kubectl, namespace: str, full: Full) -> Callable[[Kind], str]:
    """stored(kind): makes the full object of a kind, with its status; its name is the namespace's."""

    def store(kind: Kind) -> str:
        body = full(kind.name, namespace)
        where = ["-n", namespace] if kind.namespaced else []
        kubectl("create", *where, "-f", "-", stdin=json.dumps(body))
        patch = json.dumps({"status": body["status"]})
        kubectl("patch", kind.plural, namespace, *where, "--subresource=status", "--type=merge", "-p", patch)
        return namespace

    return store


@pytest.fixture(scope="module")
def explained(kubectl: Kubectl, eventually: Callable[..., Any]) -> Kubectl:
    """kubectl, once the API server has published the schemas: it does so a moment after the CRDs are established."""
    for kind in KINDS:
        eventually(lambda kind=kind: kubectl("explain", kind.plural, check=False).returncode == 0)
    return kubectl


def _objects(schema: Object, path: str) -> Iterator[tuple[str, set[str]]]:
    """Each part with fields of its own, and their names."""
    part = schema.get("items", schema)
    if "properties" in part:
        yield path, set(part["properties"])
    for name, child in part.get("properties", {}).items():
        yield from _objects(child, f"{path}.{name}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_explain_describes_every_field(kind: Kind, explained: Kubectl) -> None:
    places = dict(_objects(crd.schema(kind), kind.plural))
    with ThreadPoolExecutor(4) as pool:
        texts = pool.map(lambda place: explained("explain", place).stdout, places)
    for (place, fields), text in zip(places.items(), texts, strict=True):
        named = set(re.findall(r"^  (\w+)\t<", text, re.MULTILINE))
        assert fields <= named, place
        assert "<no description>" not in text.lower(), place


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("cprov.spec.credentials.secretRef", "operator's namespace; its key is apiKey, or kubeconfig"),
        ("cprov.spec.demo.faults.verb", "check, find, launch, list, logs, observe, offers or stop"),
        ("cpool.spec.maxCostPerHour", "US dollars per hour and node"),
        ("mdep.spec.workload.readinessProbe.httpGet.path", "leading slash"),
        ("mdep.status.waiting.refused.reason", "AbovePriceCap"),
        ("cnode.status.instance.handle", "What it is stopped by"),
    ],
)
def test_explain_answers_by_short_name(field: str, words: str, explained: Kubectl) -> None:
    description = " ".join(explained("explain", field).stdout.split())
    assert words in description


def _table(text: str) -> tuple[list[str], list[list[str]]]:
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    return lines[0], lines[1:]


@pytest.mark.parametrize(
    ("kind", "columns", "row"),
    [
        (KINDS[0], "NAME ADAPTER WANTED READY REASON BALANCE AGE", "local Active True AsWanted 42.00"),
        (KINDS[1], "NAME PROVIDER OWNER STATE READY NODES $/H AGE", "nosana user-123 ACTIVE True 3 1.50"),
        (KINDS[2], "NAME POOL MODEL STATE WANTED ANSWERING REASON AGE", "rtx llama-2-7b RUNNING 1 1 AsWanted"),
        (KINDS[3], "NAME DEPLOYMENT PROVIDER GPU STATE READY $/H AGE", "llama nosana nvidia-rtx-3090 ready True 0.5"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_columns(kind: Kind, columns: str, row: str, kubectl: Kubectl, stored: Callable[[Kind], str]) -> None:
    name = stored(kind)
    header, rows = _table(kubectl("get", kind.short, name, *(["-n", name] if kind.namespaced else [])).stdout)
    assert header == columns.split()
    assert rows[0][:-1] == [name, *row.split()]
    wide = kubectl("get", kind.short, name, "-o", "wide", *(["-n", name] if kind.namespaced else [])).stdout
    assert "all is well" in wide


def test_the_category_gets_all_kinds_at_once(kubectl: Kubectl, stored: Callable[[Kind], str]) -> None:
    for kind in KINDS:
        name = stored(kind)
    found = kubectl("get", "cal", "-n", name, "-o", "name").stdout
    assert {line.split(".")[0] for line in found.splitlines()} == {kind.singular for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "selector", "other"),
    [
        (KINDS[0], "spec.adapter=local", "spec.adapter=k8s"),
        (KINDS[1], "spec.providerRef.name=nosana,spec.owner.id=user-123,status.state=ACTIVE", "spec.owner.id=x"),
        (
            KINDS[2],
            "spec.poolRef.name=rtx,spec.model.name=llama-2-7b,spec.owner.organization=acme,status.state=RUNNING",
            "status.state!=RUNNING",
        ),
        (
            KINDS[3],
            (
                "spec.deploymentRef.name=llama,spec.poolRef.name=rtx,spec.providerRef.name=nosana,"
                "status.state=ready,status.instance.id=i-1"
            ),
            "status.instance.id=i-2",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_field_selectors(
    kind: Kind, selector: str, other: str, kubectl: Kubectl, stored: Callable[[Kind], str]
) -> None:
    name = stored(kind)
    scope = ["-n", name] if kind.namespaced else []
    assert {part.split("=")[0] for part in selector.split(",")} == {
        path.removeprefix(".") for path in crd.SELECTABLE[kind]
    }
    found = kubectl("get", kind.plural, *scope, "--field-selector", selector, "-o", "name").stdout
    assert name in found
    assert name not in kubectl("get", kind.plural, *scope, "--field-selector", other, "-o", "name").stdout


def test_scale(kubectl: Kubectl, stored: Callable[[Kind], str]) -> None:
    name = stored(DEPLOYMENT)
    kubectl("scale", "mdep", name, "-n", name, "--replicas=5", "--current-replicas=1")
    path = DEPLOYMENT.path(name, name)
    assert json.loads(kubectl("get", "--raw", path).stdout)["spec"]["replicas"] == 5
    scale = json.loads(kubectl("get", "--raw", f"{path}/scale").stdout)
    assert scale["status"] == {"replicas": 1, "selector": "calayer.dev/deployment-uid=d-1"}
    refused = kubectl("scale", "mdep", name, "-n", name, "--replicas=1001", check=False)
    assert refused.returncode != 0
    assert "less than or equal to 1000" in refused.stderr


def test_wait_reads_our_conditions(kubectl: Kubectl, stored: Callable[[Kind], str]) -> None:
    name = stored(POOL)
    kubectl("wait", f"cpool/{name}", "-n", name, "--for=condition=Ready", "--timeout=10s")
    kubectl("wait", f"cpool/{name}", "-n", name, "--for=jsonpath={.status.state}=ACTIVE", "--timeout=10s")


def test_a_field_that_nobody_knows_is_refused_by_name(kubectl: Kubectl, namespace: str, full: Full) -> None:
    body = full(POOL.name)
    body["spec"]["maxCostPerHuor"] = "1"
    refused = kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body), check=False)
    assert refused.returncode != 0
    assert 'unknown field "spec.maxCostPerHuor"' in refused.stderr


def test_what_is_printed_can_be_applied(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print"]) == 0
    applied = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=capsys.readouterr().out).stdout
    assert applied.count("serverside-applied") == len(KINDS)


def test_defaults_are_written_out(kubectl: Kubectl, namespace: str) -> None:
    spec: Object = {"poolRef": {"name": "rtx"}, "model": {"name": "llama"}}
    body = {"apiVersion": API_VERSION, "kind": "ModelDeployment", "metadata": {"name": "least"}, "spec": spec}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    stored = json.loads(kubectl("get", "mdep", "least", "-n", namespace, "-o", "json").stdout)
    assert stored["spec"] == {
        **spec,
        "replicas": 1,
        "workload": {"type": "Inference"},
        "rollout": {"maxSurge": 1, "maxUnavailable": 0},
        "backoffLimit": 3,
        "pendingTimeoutSeconds": 0,
        "readinessTimeoutSeconds": 1800,
        "ttlSecondsAfterTerminated": 86400,
    }
    assert stored["status"]["observedGeneration"] == -1


@pytest.mark.anyio
async def test_what_is_stored_is_read_back_by_the_models_and_written_again_unchanged(
    kind: str, cluster: Cluster, namespace: str, full: Full
) -> None:
    which = next(known for known in KINDS if known.name == kind)
    scope = namespace if which.namespaced else None
    body = full(kind, namespace)
    await cluster.create(which.path(scope), body)
    written = await cluster.merge_patch(which.path(scope, namespace, "status"), {"status": body["status"]})
    dumped = crd.MODELS[which].parse(written).dump()
    assert (dumped["spec"], dumped["status"]) == (body["spec"], body["status"])
    again = await cluster.merge_patch(which.path(scope, namespace), {"spec": dumped["spec"]})
    again = await cluster.merge_patch(which.path(scope, namespace, "status"), {"status": dumped["status"]})
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]
