"""Cost so far: the same three parts everywhere, and one sum that is of the second in which it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_api.store import Store
from cal_api.table import Table
from cal_crds import money
from cal_crds.meta import DEPLOYMENT, NODE, POOL
from cal_crds.pool import Cost

_START = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
_amount = st.from_regex(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?", fullmatch=True)
_costs = st.builds(Cost, accumulated=_amount, rate_per_hour=_amount, since=st.none() | st.just(_START))
_BY_HAND = {"accumulated": "1.5", "since": "2026-05-01T12:00:00Z", "ratePerHour": "0.36"}


def _bodies(cost: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    """An object of each kind that costs, whose texts try to look like the field."""
    trap = 'x","cost_so_far":"7"}'
    metadata = {
        "uid": "u",
        "name": "n",
        "namespace": "ns",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"calayer.dev/rest": json.dumps({"metadata": {"cost_so_far": trap}})},
    }
    node = {
        "deploymentRef": {"name": "d", "uid": "du"},
        "poolRef": {"name": "p", "uid": "pu"},
        "providerRef": {"name": "x"},
        "token": "0123456789",
        "templateHash": "h",
        "offer": {"id": trap, "pricePerHour": "1", "region": trap},
        "model": {"name": trap},
        "workload": {},
    }
    specs: dict[str, dict[str, Any]] = {
        POOL.name: {"owner": {"id": trap}, "providerRef": {"name": "p"}},
        DEPLOYMENT.name: {"poolRef": {"name": "p"}, "model": {"name": trap}},
        NODE.name: node,
    }
    status = {} if cost is None else {"cost": cost}
    return [(kind, {"metadata": metadata, "spec": spec, "status": status}) for kind, spec in specs.items()]


def _table(store: Store, kind: str) -> Table[Any]:
    return next(table for table in store.tables if table.kind.name == kind)


@given(cost=st.none() | _costs, seconds=st.lists(st.integers(-10, 10**8), min_size=1, max_size=4))
def test_the_sum_is_right_in_every_second(cost: Cost | None, seconds: list[int]) -> None:
    parts = {
        "accumulated": cost.accumulated if cost else "0",
        "since": "2026-05-01T12:00:00Z" if cost and cost.since else None,
        "rate_per_hour": cost.rate_per_hour if cost else "0",
    }
    for kind, body in _bodies(cost.dump() if cost else None):
        store = Store(lambda _: None)
        entry = store.put(_table(store, kind), body)
        assert entry is not None
        for second in seconds:
            now = _START + timedelta(seconds=second)
            shown = json.loads(entry.at(now))
            assert shown["cost"] == parts
            assert Decimal(shown["cost_so_far"]) == Decimal(money.render(money.total(cost, now)))
            assert list(shown)[-1] == "cost_so_far"


@pytest.mark.parametrize("rate", ["0.36", "0"])
def test_a_page_is_joined_once_a_second_and_only_where_a_cost_grows(rate: str) -> None:
    store = Store(lambda _: None)
    store.put(store.pools, dict(_bodies({**_BY_HAND, "ratePerHour": rate}))[POOL.name])
    key = store.pools.listing(("all", ""))[0].keys[0]
    pages = [store.pools.page("pools", key, _START + timedelta(seconds=second)) for second in (10, 10, 20, 10)]
    sums = [json.loads(page)["pools"][0]["cost_so_far"] for page in pages]
    assert pages[0] is pages[1]
    if rate == "0":
        assert sums == ["1.5"] * 4 and pages[2] is pages[0]
    else:
        assert sums == ["1.501", "1.501", "1.502", "1.501"]


def test_every_route_shows_it(world: Any, eventually: Callable[..., Any]) -> None:
    owner = world.pool_body()["owner_id"]
    pool = world.pool(owner_id=owner)
    deployment = world.deployment(pool, org_id=f"org of {owner}")
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    cost = Cost(accumulated="10.25", since=since, rate_per_hour="3600")
    node = world.node(deployment, "job-of-costs", cost=cost.dump())
    world.set_status(DEPLOYMENT, deployment, cost=cost.dump())
    world.set_status(POOL, pool, cost=cost.dump(), costPerHour="3600")
    routes: dict[str, Callable[[Any], Any]] = {
        f"/status/{deployment}": lambda body: body,
        f"/listDeployments/{pool}": lambda body: body["deployments"][0],
        f"/list?pool_id={pool}": lambda body: body["deployments"][0],
        f"/deployments?org_id=org of {owner}": lambda body: body["deployments"][0],
        f"/pool/{pool}": lambda body: body,
        f"/listPools/{owner}": lambda body: body["pools"][0],
        "/pools?limit=500": lambda body: next(each for each in body["pools"] if each["pool_id"] == pool),
        f"/list/pool/{pool}/inventory": lambda body: body["nodes"][0],
        "/inventory/nodes/nosana": lambda body: next(each for each in body["nodes"] if each["id"] == node),
    }
    told = {"accumulated": "10.25", "since": since.strftime("%Y-%m-%dT%H:%M:%SZ"), "rate_per_hour": "3600"}
    for route, pick in routes.items():
        eventually(lambda route=route, pick=pick: pick(world.get(route).json())["cost"] == told)
        earliest = datetime.now(UTC).replace(microsecond=0)
        shown = pick(world.get(route).json())["cost_so_far"]
        # At a dollar a second the sum is whole dollars and the 25 cents, of a second within the request.
        assert money.total(cost, earliest) <= Decimal(shown) <= money.total(cost, datetime.now(UTC)), route
        assert shown.endswith(".25")


def test_what_was_never_bought_has_cost_nothing(world: Any) -> None:
    pool = world.pool()
    for shown in (world.get(f"/status/{world.deployment(pool)}").json(), world.get(f"/pool/{pool}").json()):
        assert shown["cost"] == {"accumulated": "0", "since": None, "rate_per_hour": "0"}
        assert shown["cost_so_far"] == "0"


def test_a_write_is_answered_with_the_cost_of_that_second(world: Any, eventually: Callable[..., Any]) -> None:
    deployment = world.deployment()
    cost = Cost(accumulated="1", since=datetime.now(UTC) - timedelta(hours=1), rate_per_hour="2")
    world.set_status(DEPLOYMENT, deployment, cost=cost.dump())
    eventually(lambda: world.get(f"/status/{deployment}").json()["cost"]["accumulated"] == "1")
    changed = world.patch(f"/update/{deployment}", {"replicas": 2}).json()
    assert changed["replicas"] == 2 and Decimal("2.99") < Decimal(changed["cost_so_far"]) < Decimal("3.1")
