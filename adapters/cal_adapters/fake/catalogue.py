"""What the demo market sells: a handful of GPU types, shapes, regions and prices, all made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cal_crds.node import Offer, OfferAttribute


@dataclass(frozen=True)
class Shape:
    """One line of the catalogue. `stock`: how many exist; None: always enough."""

    offer: Offer
    stock: int | None = None


def _gpu(model: str, count: int, memory: int, price: str, region: str, vendor: str = "nvidia") -> Offer:
    return Offer(
        id=f"{model}-x{count}-{region}",
        gpu_type=f"{vendor}-{model}",
        gpu_count=count,
        gpu_memory_gb=memory,
        vcpu=8 * count,
        ram_gb=32 * count,
        region=region,
        price_per_hour=price,
        attributes=[OfferAttribute(name="madeUp", value="true")],
    )


def _cpu(name: str, vcpu: int, ram: int, price: str) -> Offer:
    made_up = [OfferAttribute(name="madeUp", value="true")]
    return Offer(id=name, vcpu=vcpu, ram_gb=ram, region="eu-north", price_per_hour=price, attributes=made_up)


_SHAPES = (
    Shape(_cpu("cpu-small", 4, 16, "0.02")),
    Shape(_gpu("rtx-3060", 1, 12, "0.08", "global")),
    Shape(_gpu("rtx-3090", 1, 24, "0.19", "global")),
    Shape(_gpu("rtx-4090", 1, 24, "0.34", "eu-north")),
    Shape(_gpu("rtx-4090", 1, 24, "0.36", "us-east")),
    Shape(_gpu("l40s", 1, 48, "0.79", "us-east")),
    Shape(_gpu("rtx-4090", 4, 24, "1.36", "eu-north")),
    Shape(_gpu("a100-sxm-80gb", 1, 80, "1.19", "us-east")),
    Shape(_gpu("h100-sxm-80gb", 1, 80, "2.25", "us-east")),
    Shape(_gpu("a100-sxm-80gb", 8, 80, "9.20", "us-east")),
    Shape(_gpu("mi300x", 8, 192, "15.60", "eu-north", vendor="amd")),
    Shape(_gpu("h100-sxm-80gb", 8, 80, "17.60", "us-east")),
    # Scarce on purpose: a place to see "no capacity".
    Shape(_gpu("b200", 8, 180, "39.20", "us-east"), stock=2),
)

CATALOGUE: Final[Mapping[str, Shape]] = MappingProxyType({shape.offer.id: shape for shape in _SHAPES})
