"""Placement: which offer is asked for, and why the others are not."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from cal_crds.node import Offer, OfferAttribute
from cal_crds.pool import Strategy
from cal_crds.workload import Resources
from cal_operator.place import Market, Wish, place


def offer(id_: str, **values: Any) -> Offer:
    defaults = {"gpu_type": "nvidia-rtx-4090", "gpu_count": 1, "gpu_memory_gb": 24, "vcpu": 8, "ram_gb": 32}
    return Offer(id=id_, **{**defaults, "region": "eu", "price_per_hour": "0.5", **values})


def wish(**values: Any) -> Wish:
    defaults: dict[str, Any] = {
        "gpu_count": 1,
        "gpu_types": (),
        "regions": (),
        "price_cap": None,
        "provider_pool_id": None,
        "strategy": Strategy.BEST_FIT,
        "resources": Resources(),
    }
    return Wish(**{**defaults, **values})


REFUSED: dict[str, tuple[Wish, Offer, Market, str | None]] = {
    "nothing against it": (wish(), offer("a"), Market(), None),
    "another GPU": (wish(gpu_types=["rtx3090"]), offer("a"), Market(), "GPUTypeNotAllowed"),
    "the same GPU in another spelling": (wish(gpu_types=["NVIDIA GeForce RTX 4090"]), offer("a"), Market(), None),
    "GPU types don't matter without GPUs": (wish(gpu_count=0, gpu_types=["rtx3090"]), offer("a"), Market(), None),
    "too few GPUs": (wish(gpu_count=2), offer("a"), Market(), "TooFewGPUs"),
    "another region": (wish(regions=["us"]), offer("a"), Market(), "RegionNotAllowed"),
    "any region": (wish(regions=["global"]), offer("a"), Market(), None),
    "too dear": (wish(price_cap=Decimal("0.49")), offer("a"), Market(), "AbovePriceCap"),
    "at the cap": (wish(price_cap=Decimal("0.50")), offer("a"), Market(), None),
    "free ones only": (wish(price_cap=Decimal(0)), offer("a"), Market(), "AbovePriceCap"),
    "a free one": (wish(price_cap=Decimal(0)), offer("a", price_per_hour="0"), Market(), None),
    "too few CPUs": (wish(resources=Resources(cpu="16")), offer("a"), Market(), "TooFewCPUs"),
    "too little memory": (wish(resources=Resources(memory="64Gi")), offer("a"), Market(), "TooLittleMemory"),
    "sold out": (wish(), offer("a", available=0), Market(), "SoldOut"),
    "sold out since": (wish(), offer("a", available=2), Market(taken={"a": 2}), "SoldOut"),
    "one left": (wish(), offer("a", available=2), Market(taken={"a": 1}), None),
    "lately refused": (wish(), offer("a"), Market(cooling={"a": "no room"}), "LatelyRefused"),
    "another pool of the provider": (
        wish(provider_pool_id="market-9"),
        offer("a", attributes=[OfferAttribute(name="pool", value="market-1,slug-1")]),
        Market(),
        "NotInPool",
    ),
    "this pool of the provider": (
        wish(provider_pool_id="slug-1"),
        offer("a", attributes=[OfferAttribute(name="pool", value="market-1,slug-1")]),
        Market(),
        None,
    ),
}


@pytest.mark.parametrize(("wanted", "offered", "market", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal(wanted: Wish, offered: Offer, market: Market, reason: str | None) -> None:
    found = place(wanted, [offered], market)
    assert (found.offer is None) == (reason is not None)
    assert [refused.reason for refused in found.refused] == ([reason] if reason else [])
    assert all(refused.message for refused in found.refused)


def test_best_fit_has_the_least_surplus_then_memory_then_price() -> None:
    offers = [
        offer("eight", gpu_count=8, price_per_hour="0.1"),
        offer("large", gpu_memory_gb=80, price_per_hour="0.2"),
        offer("dear", price_per_hour="0.4"),
        offer("fit", price_per_hour="0.3"),
    ]
    chosen = place(wish(), offers, Market()).offer
    assert chosen is not None and chosen.id == "fit"


def test_best_fit_without_gpus_leaves_gpus_alone() -> None:
    cpu = offer("cpu", gpu_type=None, gpu_count=0, gpu_memory_gb=None)
    chosen = place(wish(gpu_count=0), [offer("gpu", price_per_hour="0"), cpu], Market()).offer
    assert chosen is not None and chosen.id == "cpu"


def test_cheapest_looks_at_the_price_alone() -> None:
    offers = [offer("fit"), offer("cheap", gpu_count=8, price_per_hour="0.1")]
    chosen = place(wish(strategy=Strategy.CHEAPEST), offers, Market()).offer
    assert chosen is not None and chosen.id == "cheap"


def test_spread_goes_where_the_fewest_nodes_are() -> None:
    offers = [offer("here", price_per_hour="0.1"), offer("there", region="us")]
    chosen = place(wish(strategy=Strategy.SPREAD), offers, Market(spread=Counter({"eu": 1}))).offer
    assert chosen is not None and chosen.id == "there"


def test_the_nearest_refusal_comes_first() -> None:
    offers = [offer("far", gpu_type="amd-mi300x"), offer("near", price_per_hour="9")]
    found = place(wish(gpu_types=["rtx4090"], price_cap=Decimal(1)), offers, Market())
    assert [refused.offer for refused in found.refused] == ["near", "far"]
