"""Whatever the schema of our resources lets through, the views can show: a rendering that fails would end the watch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_api.store import ALL, Store
from cal_crds.deployment import DeploymentState, NodeState
from cal_crds.node import HeartbeatState
from cal_crds.pool import Strategy

_META = {
    "uid": "u",
    "name": "n",
    "namespace": "ns",
    "resourceVersion": "7",
    "creationTimestamp": "2026-01-01T00:00:00Z",
}
_quantity = st.builds(
    lambda n, unit: f"{n}{unit}",
    st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]),
)
_money = st.from_regex(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?", fullmatch=True)
_rest = st.one_of(
    st.text(), st.sampled_from(['{"metadata": 1}', "[1]", '{"configuration": {"a": {}}}', "[" * 5000, "null"])
)


def _shown(table: Any, store: Store, body: dict[str, Any]) -> dict[str, Any]:
    entry = store.put(table, body)
    assert entry is not None
    return dict(json.loads(entry.rendered))


@given(
    money=_money,
    rest=_rest,
    strategy=st.sampled_from(Strategy),
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_any_pool_can_be_shown(money: str, rest: str, strategy: Strategy, labels: dict[str, str]) -> None:
    store = Store(lambda _: None)
    metadata = {**_META, "annotations": {"calayer.dev/rest": rest}, "labels": labels}
    spec = {
        "owner": {"id": "o"},
        "providerRef": {"name": "p"},
        "maxCostPerHour": money,
        "placement": {"strategy": strategy.value},
    }
    shown = _shown(store.pools, store, {"metadata": metadata, "spec": spec, "status": {"costPerHour": money}})
    assert shown["max_cost_per_hour"] == float(money) and shown["pool_type"] == "job"


@given(
    cpu=_quantity,
    memory=_quantity,
    price=_money,
    state=st.none() | st.sampled_from(NodeState),
    beat=st.none() | st.sampled_from(HeartbeatState),
)
def test_any_node_can_be_shown(
    cpu: str, memory: str, price: str, state: NodeState | None, beat: HeartbeatState | None
) -> None:
    store = Store(lambda _: None)
    spec = {
        "deploymentRef": {"name": "d", "uid": "du"},
        "poolRef": {"name": "p", "uid": "pu"},
        "providerRef": {"name": "x"},
        "token": "0123456789",
        "templateHash": "h",
        "offer": {"id": "o", "pricePerHour": price},
        "model": {"name": "m"},
        "workload": {"resources": {"cpu": cpu, "memory": memory}},
    }
    status: dict[str, Any] = {"state": state.value} if state else {}
    if beat:
        status["heartbeat"] = {"state": beat.value, "time": "2026-01-01T00:00:00Z"}
    shown = _shown(store.nodes, store, {"metadata": _META, "spec": spec, "status": status})
    assert shown["state"] in set(NodeState) and shown["vcpu_total"] >= 0 and shown["ram_gb_total"] >= 0


@given(
    state=st.none() | st.sampled_from(DeploymentState),
    wish=st.none() | st.sampled_from(["Running", "Terminated"]),
    generation=st.integers(1, 3),
    deleted=st.booleans(),
    rest=_rest,
)
def test_any_deployment_can_be_shown(
    state: DeploymentState | None, wish: str | None, generation: int, deleted: bool, rest: str
) -> None:
    store = Store(lambda _: None)
    metadata: dict[str, Any] = {**_META, "generation": generation, "annotations": {"calayer.dev/rest": rest}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    spec = {"poolRef": {"name": "p"}, "model": {"name": "m"}, **({"desiredState": wish} if wish else {})}
    status = {"observedGeneration": 2, **({"state": state.value} if state else {})}
    shown = _shown(store.deployments, store, {"metadata": metadata, "spec": spec, "status": status})["state"]
    # A user's stop never shows as an end of its own, and nothing that is wanted shows as ended by an older wish.
    if wish == "Terminated":
        assert shown in ("TERMINATING", "TERMINATED")
    elif generation > 2 and not deleted:
        assert shown not in ("STOPPED", "FAILED", "TERMINATED")
    else:
        assert shown == (state or ("TERMINATING" if deleted else "PENDING")) or (deleted and shown == "TERMINATING")


def test_a_policy_is_shown_as_sent_while_it_still_holds() -> None:
    def shown(sent: str, strategy: str) -> str:
        store = Store(lambda _: None)
        metadata = {**_META, "annotations": {"calayer.dev/rest": json.dumps({"scheduling_policy_json": sent})}}
        spec = {"owner": {"id": "o"}, "providerRef": {"name": "p"}, "placement": {"strategy": strategy}}
        return str(_shown(store.pools, store, {"metadata": metadata, "spec": spec})["scheduling_policy_json"])

    assert shown('{ "strategy": "cheapest", "x": 1 }', "Cheapest") == '{ "strategy": "cheapest", "x": 1 }'
    assert shown("{}", "BestFit") == "{}"
    assert shown("{}", "Spread") == '{"strategy":"spread"}'
    assert shown("{nonsense", "Spread") == '{"strategy":"spread"}'


@pytest.mark.parametrize(
    "conditions",
    [[], [{"type": "Ready", "status": "True", "reason": "r", "lastTransitionTime": "2026-02-01T00:00:00Z"}]],
)
def test_updated_at_follows_the_conditions(conditions: list[dict[str, Any]]) -> None:
    store = Store(lambda _: None)
    spec = {"owner": {"id": "o"}, "providerRef": {"name": "p"}}
    _shown(store.pools, store, {"metadata": _META, "spec": spec, "status": {"conditions": conditions}})
    entry = store.pools.listing(ALL)[0]
    assert entry.updated == ("2026-02-01T00:00:00Z" if conditions else _META["creationTimestamp"])
