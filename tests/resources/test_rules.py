"""Every CEL rule of the resources on the real API server: a table with a row for each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cal_crds import crd
from cal_crds.cluster import Cluster, Invalid
from cal_crds.meta import DEPLOYMENT, KINDS, NODE, POOL, PROVIDER, Kind

pytestmark = pytest.mark.anyio

Object = dict[str, Any]
Full = Callable[..., Object]
#: Takes a field away, as in a merge patch.
GONE: Any = None


@dataclass(frozen=True)
class Row:
    """A rule by its kind, place and message; spec patches that it lets through and that it refuses.

    With `before`, a rule about changes: an object with that patch is stored first, and the others are updates of it.
    """

    kind: Kind
    place: str
    message: str
    accepted: Object
    refused: Object
    before: Object | None = field(default=None)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind.name, self.place, self.message


def _on_change(kind: Kind, place: str, message: str, accepted: Object, refused: Object) -> Row:
    return Row(kind, place, message, accepted, refused, before={})


def _workload_rows(kind: Kind) -> list[Row]:
    two = {"httpGet": {"path": "/", "port": "http"}, "tcpSocket": {"port": "http"}}
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    return [
        Row(
            kind,
            ".workload",
            "readinessProbe.httpGet.port must be the name of one of ports",
            {"workload": {"ports": GONE}},
            {"workload": {"readinessProbe": {"httpGet": {"port": "web"}}}},
        ),
        Row(
            kind,
            ".workload",
            "readinessProbe.tcpSocket.port must be the name of one of ports",
            {"workload": {"readinessProbe": {"httpGet": GONE, "tcpSocket": {"port": "metrics"}}}},
            {
                "workload": {
                    "readinessProbe": {"httpGet": GONE, "tcpSocket": {"port": "http"}},
                    "ports": [],
                    "engine": GONE,
                }
            },
        ),
        Row(
            kind,
            ".workload",
            "ports must have different numbers",
            {"workload": {"ports": ports, "readinessProbe": GONE}},
            {"workload": {"ports": [*ports, {"name": "c", "port": 1}], "readinessProbe": GONE}},
        ),
        Row(
            kind,
            ".workload.readinessProbe",
            "give exactly one of httpGet and tcpSocket",
            {"workload": {"readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}},
            {"workload": {"readinessProbe": two}},
        ),
        Row(
            kind,
            ".workload.env[]",
            "give value or valueFrom, not both",
            {"workload": {"env": [{"name": "A", "valueFrom": secret}, {"name": "B"}]}},
            {"workload": {"env": [{"name": "A", "value": "x", "valueFrom": secret}]}},
        ),
    ]


def _settings_row(block: str, adapter: str, settings: Object) -> Row:
    message = f"{block} has settings of the adapter {adapter} only"
    good = {"adapter": adapter, "local": GONE, block: settings}
    return Row(PROVIDER, "", message, good, {**good, "adapter": "other"})


ROWS = [
    _on_change(
        PROVIDER,
        "",
        "adapter can't be changed; register another provider",
        {"endpoint": "http://127.0.0.1:8"},
        {"adapter": "demo", "local": GONE},
    ),
    Row(
        PROVIDER,
        "",
        "defaultCredential must be the name of one of credentials",
        {"defaultCredential": GONE},
        {"defaultCredential": "other"},
    ),
    _settings_row("local", "local", {"maxCpu": 1}),
    _settings_row("demo", "demo", {"launchDelayMilliseconds": 1}),
    _settings_row("kubernetes", "k8s", {"namespace": "gpu"}),
    _settings_row("nosana", "nosana", {"jobTimeoutMinutes": 60}),
    _settings_row("akash", "akash", {"bidWaitSeconds": 30}),
    _on_change(
        POOL,
        "",
        "owner can't be changed; make another pool",
        {"desiredState": "Stopped"},
        {"owner": {"id": "somebody"}},
    ),
    _on_change(
        POOL, "", "displayName can't be changed; make another pool", {"tenancy": "Dedicated"}, {"displayName": GONE}
    ),
    _on_change(
        POOL,
        "",
        "providerPoolID can't be changed; make another pool",
        {"limits": GONE},
        {"providerPoolID": "market-124"},
    ),
    _on_change(
        POOL,
        ".providerRef",
        "providerRef.name can't be changed; make another pool",
        {"providerRef": {"credential": "other"}},
        {"providerRef": {"name": "akash"}},
    ),
    Row(
        DEPLOYMENT,
        "",
        "give exactly one of poolRef and external",
        {"poolRef": GONE, "external": {"endpoint": "https://model.example"}},
        {"external": {"endpoint": "https://model.example"}},
    ),
    _on_change(
        DEPLOYMENT,
        "",
        "poolRef can't be changed; make another deployment",
        {"replicas": 3},
        {"poolRef": GONE, "external": {"endpoint": "https://model.example"}},
    ),
    _on_change(
        DEPLOYMENT,
        "",
        "poolRef.uid can't be changed once it is set; make another deployment",
        {"model": {"version": "v2"}},
        {"poolRef": {"uid": "another"}},
    ),
    Row(
        DEPLOYMENT,
        ".rollout",
        "one of maxSurge and maxUnavailable must be above 0, or nothing can be replaced",
        {"rollout": {"maxSurge": 0, "maxUnavailable": 1}},
        {"rollout": {"maxSurge": 0}},
    ),
    *_workload_rows(DEPLOYMENT),
    _on_change(
        NODE, "", "a ComputeNode's spec can't be changed; delete it and it is replaced", {}, {"maxPricePerHour": "2.00"}
    ),
    *_workload_rows(NODE),
]


def _patched(value: Any, patch: Any) -> Any:
    if not (isinstance(value, dict) and isinstance(patch, dict)):
        return copy.deepcopy(patch)
    merged = {**value, **{key: _patched(value.get(key), part) for key, part in patch.items()}}
    return {key: part for key, part in merged.items() if part is not GONE}


def _path(kind: Kind, namespace: str, name: str | None = None) -> str:
    return kind.path(namespace if kind.namespaced else None, name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind.name}{row.place}: {row.message}")
async def test_a_rule_lets_through_and_refuses_with_its_message(
    row: Row, cluster: Cluster, namespace: str, full: Full
) -> None:
    body = full(row.kind.name, namespace)
    send = cluster.create if row.before is None else cluster.replace
    path = _path(row.kind, namespace)
    if row.before is not None:
        body = await cluster.create(path, body)
        path = _path(row.kind, namespace, namespace)
    await send(path, {**body, "spec": _patched(body["spec"], row.accepted)}, dryRun="All")
    with pytest.raises(Invalid) as refused:
        await send(path, {**body, "spec": _patched(body["spec"], row.refused)}, dryRun="All")
    assert row.message in refused.value.message


def _rules(schema: Object, place: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield place, rule["message"]
    for name, part in schema.get("properties", {}).items():
        yield from _rules(part, f"{place}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{place}[]")


def test_every_rule_of_the_models_has_a_row() -> None:
    rules = {
        (kind.name, place.removeprefix(".spec"), message)
        for kind in KINDS
        for place, message in _rules(crd.schema(kind))
    }
    assert {row.key for row in ROWS} == rules
