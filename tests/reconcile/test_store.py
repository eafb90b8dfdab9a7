"""The operator's own picture: the newest version wins, and what is gone stays gone."""

from __future__ import annotations

from typing import Any

from rig.build import NOW, node

from cal_crds.meta import NODE
from cal_crds.pool import Cost
from cal_operator.store import Store


def body(uid: str = "node-1", version: int = 1, **metadata: Any) -> dict[str, Any]:
    made = node(uid).model_dump(mode="json", by_alias=True, exclude_none=True)
    made["metadata"] |= {"resourceVersion": str(version), "managedFields": [{"manager": "x" * 1000}], **metadata}
    return made


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    assert store.put(NODE.name, body(version=10))
    assert not store.put(NODE.name, body(version=9, name="older"))
    assert store.nodes.get("node-1") is not None and store.nodes.uid_of("ns", "older") is None
    assert store.put(NODE.name, body(version=11))


def test_a_late_event_does_not_bring_back_what_is_gone() -> None:
    store = Store()
    store.put(NODE.name, body(version=1))
    assert store.remove(NODE.name, "node-1")
    assert not store.put(NODE.name, body(version=2))
    assert store.nodes.get("node-1") is None and store.nodes_of("dep-uid") == [] and store.facts() == []


def test_a_new_object_of_an_old_name_is_another_one() -> None:
    store = Store()
    store.put(NODE.name, body("old", 1, name="n"))
    store.put(NODE.name, body("new", 2, name="n"))
    store.remove(NODE.name, "old")
    assert store.nodes.uid_of("ns", "n") == "new"


def test_members_are_found_without_parsing_all() -> None:
    store = Store()
    for number in range(3):
        store.put(NODE.name, body(f"node-{number}", number + 1))
    assert {found.metadata.uid for found in store.nodes_of("dep-uid")} == {"node-0", "node-1", "node-2"}
    assert len(store.facts_of_pool("pool-uid")) == 3


def test_what_nobody_reads_is_not_kept() -> None:
    store = Store()
    store.put(NODE.name, body())
    kept = store.nodes.body("node-1")
    assert kept is not None and "managedFields" not in kept["metadata"]


def test_costs_are_read_without_the_rest_one_per_name_and_go_with_their_object() -> None:
    """A series told twice would make Prometheus refuse all of them."""
    trap = {"resources": {"cpu": "1"}, "env": [{"name": "A", "value": '{"cost":{"accumulated":"7"}}'}]}
    store = Store()
    for uid, version, spent in (("old", 1, "1"), ("new", 2, "2.5")):
        made = body(uid, version, name="n", annotations={"cost": "{}"})
        made["spec"]["workload"] = trap
        made["status"]["cost"] = {"accumulated": spent, "ratePerHour": "0.5", "since": "2026-05-01T12:00:00Z"}
        store.put(NODE.name, made)
    free = body("free", 3)
    free["status"].pop("cost", None)
    store.put(NODE.name, free)
    assert list(store.nodes.costs()) == [("ns", "n", Cost(accumulated="2.5", since=NOW, rate_per_hour="0.5"))]
    store.remove(NODE.name, "new")
    assert list(store.nodes.costs()) == []
