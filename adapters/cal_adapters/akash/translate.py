"""Between the contract's words and Akash's: handles, marks, prices, offers and bids. Pure, both ways.

Akash prices a lease per block of six seconds, in millionths of a coin: uact (1 ACT is 1 US dollar) or uakt (AKT has a market price).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from cal_adapters.akash.manifest import gpu_key
from cal_adapters.akash.outcome import quoted
from cal_adapters.akash.sdl import GPU, INTERFACES, RAM_GB_PER_GPU, VCPU_PER_GPU
from cal_adapters.akash.wire import Bid, Coin, GpuModel
from cal_adapters.contract import Mark
from cal_adapters.errors import Refused
from cal_crds.gpus import normalise
from cal_crds.money import render
from cal_crds.node import Offer, OfferAttribute

_BLOCKS_PER_HOUR: Final = 600
_MICRO: Final = 1_000_000
_SIXTH: Final = Decimal("0.000001")
UACT, UAKT = "uact", "uakt"
#: How many GPUs an offer may have: prices are told for one, and a machine seldom holds more.
_COUNTS: Final = (1, 2, 4, 8)
_HANDLE: Final = re.compile(r"(akash1[a-z0-9]{38,58})/([1-9][0-9]{0,19})")
#: What the Console puts where it has asked its own database and not the chain.
UNKNOWN_VALUE: Final = "unknown_value"


# --- handles -----------------------------------------------------------------------------------------------------------


def handle(owner: str, dseq: str) -> str:
    """What an instance is stopped by: the account that pays, and the deployment's number, which is unique in it."""
    return f"{owner}/{dseq}"


def read_handle(text: str) -> tuple[str, str]:
    """Owner and number. Refused if it is no handle of ours."""
    found = _HANDLE.fullmatch(text)
    if found is None:
        raise Refused(f"{quoted(text)!r} is no handle of an Akash deployment")
    return found[1], found[2]


def created(dseq: str) -> datetime:
    """When a deployment was made, by the Console's clock: its number tells. The epoch for numbers that the Console didn't give."""
    milliseconds = int(dseq)
    return datetime.fromtimestamp(milliseconds / 1000 if milliseconds < 10**14 else 0, UTC)


def mark_of(names: Sequence[str]) -> Mark | None:
    """The mark that a deployment's groups bear: ours have exactly one group, named so."""
    return Mark.read(names[0]) if len(names) == 1 else None


# --- money -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """US dollars for one coin, by denomination in millionths: {"uact": 1, "uakt": 0.42}. What isn't there has no known price."""

    usd: dict[str, Decimal] = field(default_factory=lambda: {UACT: Decimal(1)})

    def per_hour(self, price: Coin) -> Decimal | None:
        """US dollars per hour of a price per block; None in a coin whose price isn't known."""
        rate = self.usd.get(price.denom)
        return None if rate is None else price.amount * _BLOCKS_PER_HOUR * rate / _MICRO

    def per_block(self, dollars_per_hour: Decimal, denom: str) -> Decimal:
        """The highest price per block that is not above so many dollars per hour, at most six decimals. Refused as above."""
        rate = self.usd.get(denom)
        if not rate:
            raise Refused(f"The price of {denom!r} in US dollars isn't known; use uact")
        return (dollars_per_hour * _MICRO / _BLOCKS_PER_HOUR / rate).quantize(_SIXTH, rounding=ROUND_FLOOR)


# --- offers ------------------------------------------------------------------------------------------------------------


def offers(models: Iterable[GpuModel | None]) -> list[Offer]:
    """The market as offers, cheapest first: for each GPU model one per count. Bids decide the final price."""
    best: dict[GPU, tuple[GpuModel, int]] = {}
    for model in models:
        gpu = _gpu(model) if model is not None else None
        if model is None or gpu is None or model.price is None or model.price.currency != "USD" or not model.price.min:
            continue
        known, available = best.get(gpu, (model, 0))
        cheaper = model if known.price is None or model.price.min < known.price.min else known
        best[gpu] = (cheaper, available + model.availability.available)
    made = [
        _offer(gpu, model, count, available)
        for gpu, (model, available) in best.items()
        for count in _COUNTS
        if count == 1 or available >= count
    ]
    return sorted(made, key=lambda offer: (Decimal(offer.price_per_hour), offer.id))[:500]


def _gpu(model: GpuModel) -> GPU | None:
    """A line of the price list as an SDL asks for it; None for what no SDL can ask for."""
    interface = re.sub(r"^(sxm|pcie).*", r"\1", model.interface.lower())
    try:
        return GPU(
            model.vendor.lower(), model.model.lower(), model.ram or None, interface if interface in INTERFACES else None
        )
    except ValueError:
        return None


def _offer(gpu: GPU, model: GpuModel, count: int, available: int) -> Offer:
    price = model.price
    assert price is not None
    words = [gpu.model, gpu.ram and gpu.ram.lower(), gpu.interface, f"x{count}" if count > 1 else None]
    kind = {"vendor": gpu.vendor, "model": gpu.model, "ram": gpu.ram, "interface": gpu.interface}
    told = {"medianPricePerGPUHour": render(price.med), "maxPricePerGPUHour": render(price.max)}
    memory = int(gpu.ram.removesuffix("Gi")) if gpu.ram else None
    return Offer(
        id="-".join(["akash", *(word for word in words if word)]),
        gpu_type=normalise(" ".join(word for word in (gpu.vendor, gpu.model, gpu.interface, gpu.ram) if word)).slug,
        gpu_count=count,
        gpu_memory_gb=memory,
        vcpu=VCPU_PER_GPU * count,
        ram_gb=RAM_GB_PER_GPU * count,
        region="global",
        pricing_model="auction",
        price_per_hour=render(price.min * count),
        available=available // count,
        attributes=[OfferAttribute(name=name, value=value) for name, value in {**kind, **told}.items() if value],
    )


# --- bids --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What a bid has to meet. `cap`: US dollars per hour, None for any."""

    cap: Decimal | None
    gpu_count: int
    gpu: GPU | None


def cheapest(bids: Sequence[Bid], wish: Wish, rates: Rates) -> tuple[Bid | None, str]:
    """The cheapest bid that meets the wish, or None and why, for people. At one price: one that keeps its machine for good first."""
    refused: list[str] = []
    fit: list[tuple[Decimal, bool, str, Bid]] = []
    for bid in bids:
        price = rates.per_hour(bid.price)
        if why := _refusal(bid, price, wish):
            refused.append(f"{bid.id.provider}: {why}")
        elif price is not None:
            fit.append((price, bid.reclamation_window is not None, bid.id.provider, bid))
    if fit:
        return min(fit, key=lambda item: item[:3])[3], ""
    more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
    return None, "; ".join(refused[:5]) + more if refused else "no bids"


def _refusal(bid: Bid, price: Decimal | None, wish: Wish) -> str | None:
    if bid.state != "open":
        return f"the bid is {quoted(bid.state)}"
    if price is None:
        return f"its price is in {quoted(bid.price.denom)}, whose worth isn't known"
    if wish.cap is not None and price > wish.cap:
        return f"{render(price)} USD per hour is above the cap of {render(wish.cap)}"
    if wish.gpu is not None and wish.gpu_count and not _has_gpus(bid, wish.gpu, wish.gpu_count):
        return "it doesn't offer the GPUs that were asked for"
    return None


def _has_gpus(bid: Bid, wanted: GPU, count: int) -> bool:
    """Every part that was asked for must match; what the provider leaves out of its answer, the chain has checked."""
    for offer in bid.resources_offer:
        gpu = offer.resources.gpu
        if (
            gpu is not None
            and gpu.units.val >= count
            and any(_same(item.key, wanted) for item in gpu.attributes if item.value == "true")
        ):
            return True
    return False


def _same(key: str, wanted: GPU) -> bool:
    words = key.split("/")
    told = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or not told.keys() <= {"vendor", "model", "ram", "interface"}:
        return False
    asked = gpu_key(wanted.vendor, wanted.model, wanted.ram, wanted.interface).split("/")
    return (
        told.get("vendor") == wanted.vendor
        and told.get("model") == wanted.model
        and all(told.get(name, value) == value for name, value in zip(asked[4::2], asked[5::2], strict=True))
    )
