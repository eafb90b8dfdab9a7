"""Placement: which offer to ask for, and why each of the others was refused. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from cal_crds import gpus, money, quantities
from cal_crds.deployment import ModelDeployment, RefusedOffer
from cal_crds.node import Offer
from cal_crds.pool import ComputePool, Strategy
from cal_crds.workload import Resources

_GB = Decimal(10**9)


@dataclass(frozen=True)
class Wish:
    """What one replica needs, and what its pool allows."""

    gpu_count: int
    gpu_types: Sequence[str]
    regions: Sequence[str]
    #: US dollars per hour; None: no cap.
    price_cap: Decimal | None
    provider_pool_id: str | None
    strategy: Strategy
    resources: Resources

    @classmethod
    def of(cls, deployment: ModelDeployment, pool: ComputePool) -> Wish:
        own = deployment.spec.gpu_per_replica
        cap = pool.spec.max_cost_per_hour
        return cls(
            gpu_count=pool.spec.gpu_count if own is None else own,
            gpu_types=pool.spec.allowed_gpu_types,
            regions=pool.spec.regions,
            price_cap=None if cap is None else money.parse(cap),
            provider_pool_id=pool.spec.provider_pool_id,
            strategy=pool.spec.placement.strategy,
            resources=deployment.spec.workload.resources or Resources(),
        )


@dataclass(frozen=True)
class Market:
    """What is known of the offers beyond themselves."""

    #: Offer id -> why it is left alone for a while.
    cooling: Mapping[str, str] = field(default_factory=dict)
    #: Offer id -> nodes asked of it since the offers were read.
    taken: Mapping[str, int] = field(default_factory=dict)
    #: Where this deployment's nodes are: region or machine -> count.
    spread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Placement:
    """The offer to ask for (None: none is acceptable), and the refused ones, nearest to acceptable first."""

    offer: Offer | None
    refused: Sequence[RefusedOffer] = ()


def place(wish: Wish, offers: Iterable[Offer], market: Market) -> Placement:
    """Choose by the pool's strategy among the acceptable offers."""
    accepted: list[Offer] = []
    refused: list[tuple[int, RefusedOffer]] = []
    for offer in offers:
        verdict = _refusal(wish, offer, market)
        if verdict is None:
            accepted.append(offer)
        else:
            rank, reason, message = verdict
            refused.append((rank, RefusedOffer(offer=offer.id, reason=reason, message=message)))
    refused.sort(key=lambda item: (-item[0], item[1].offer))
    order = _ORDERS[wish.strategy]
    chosen = min(accepted, key=lambda offer: (*order(wish, offer, market), offer.id), default=None)
    return Placement(chosen, [item for _, item in refused])


def _refusal(wish: Wish, offer: Offer, market: Market) -> tuple[int, str, str] | None:
    """(how near it came, reason, message) of the first check that fails."""
    for rank, check in enumerate(_CHECKS):
        if verdict := check(wish, offer, market):
            return (rank, *verdict)
    return None


Verdict = tuple[str, str] | None


def _pool(wish: Wish, offer: Offer, _: Market) -> Verdict:
    pools = {name for item in offer.attributes if item.name == "pool" for name in item.value.split(",")}
    if wish.provider_pool_id and pools and wish.provider_pool_id not in pools:
        return "NotInPool", f"not to be had through {wish.provider_pool_id}"
    return None


def _gpu_type(wish: Wish, offer: Offer, _: Market) -> Verdict:
    if not wish.gpu_count or not wish.gpu_types:
        return None
    if offer.gpu_type and any(gpus.matches(wanted, offer.gpu_type, offer.gpu_memory_gb) for wanted in wish.gpu_types):
        return None
    return "GPUTypeNotAllowed", f"has {offer.gpu_type or 'no GPU'}; allowed: {', '.join(wish.gpu_types)}"


def _gpu_count(wish: Wish, offer: Offer, _: Market) -> Verdict:
    if offer.gpu_count >= wish.gpu_count:
        return None
    return "TooFewGPUs", f"has {offer.gpu_count} GPUs, {wish.gpu_count} are wanted"


def _region(wish: Wish, offer: Offer, _: Market) -> Verdict:
    if not wish.regions or (offer.region or "") in wish.regions or "global" in wish.regions:
        return None
    return "RegionNotAllowed", f"is in {offer.region or 'an unknown region'}; allowed: {', '.join(wish.regions)}"


def _cpu(wish: Wish, offer: Offer, _: Market) -> Verdict:
    wanted = wish.resources.cpu
    if wanted is None or offer.vcpu is None or offer.vcpu >= quantities.parse(wanted):
        return None
    return "TooFewCPUs", f"has {offer.vcpu} CPUs, {wanted} are wanted"


def _memory(wish: Wish, offer: Offer, _: Market) -> Verdict:
    wanted = wish.resources.memory
    # Offers round their memory down to whole GB.
    if wanted is None or offer.ram_gb is None or (offer.ram_gb + 1) * _GB > quantities.parse(wanted):
        return None
    return "TooLittleMemory", f"has {offer.ram_gb} GB, {wanted} is wanted"


def _price(wish: Wish, offer: Offer, _: Market) -> Verdict:
    if wish.price_cap is None or money.parse(offer.price_per_hour) <= wish.price_cap:
        return None
    return "AbovePriceCap", f"costs {offer.price_per_hour} USD/h, the cap is {money.render(wish.price_cap)}"


def _sold_out(_: Wish, offer: Offer, market: Market) -> Verdict:
    if offer.available is None or offer.available - market.taken.get(offer.id, 0) > 0:
        return None
    return "SoldOut", "none is left"


def _cooling(_: Wish, offer: Offer, market: Market) -> Verdict:
    why = market.cooling.get(offer.id)
    return ("LatelyRefused", why) if why is not None else None


#: In this order: the later an offer fails, the nearer it came.
_CHECKS = (_pool, _gpu_type, _gpu_count, _region, _cpu, _memory, _price, _sold_out, _cooling)

Order = Callable[[Wish, Offer, Market], tuple[Decimal | int, ...]]


def _price_of(offer: Offer) -> Decimal:
    return money.parse(offer.price_per_hour)


def _best_fit(wish: Wish, offer: Offer, _: Market) -> tuple[Decimal | int, ...]:
    """Least surplus of GPUs, then memory (of GPUs where GPUs are wanted), then price."""
    memory = (offer.gpu_memory_gb or 0) * offer.gpu_count if wish.gpu_count else offer.ram_gb or 0
    return offer.gpu_count - wish.gpu_count, memory, _price_of(offer)


def _cheapest(_: Wish, offer: Offer, __: Market) -> tuple[Decimal | int, ...]:
    return (_price_of(offer),)


def _spread(_: Wish, offer: Offer, market: Market) -> tuple[Decimal | int, ...]:
    return market.spread[offer.machine or offer.region or ""], _price_of(offer)


_ORDERS: Mapping[Strategy, Order] = {
    Strategy.BEST_FIT: _best_fit,
    Strategy.CHEAPEST: _cheapest,
    Strategy.SPREAD: _spread,
}
