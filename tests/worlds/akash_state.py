"""The stand-in's Akash: accounts, deployments, providers that bid, leases that bill, all by one clock that tests can move.

States follow from moments, so any past view can be told (a node that lags), and nothing has to run for time to have its effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

#: Seconds of a block, and blocks of an hour.
BLOCK: Final = 6
_PER_HOUR: Final = 600
_MICRO: Final = Decimal(1_000_000)
_SIXTH: Final = Decimal("0.000001")
HOURS: Final = Decimal(3600)


def address(word: str) -> str:
    """An address of the right form that people can tell apart."""
    return "akash1" + (word + "q" * 38)[:38]


@dataclass
class Account:
    """A Console user with a managed wallet. Credits in millionths."""

    owner: str
    user: str
    keys: set[str]
    credits: Decimal = Decimal(1_000_000_000)
    denom: str | None = "uact"
    wallets: int = 1


@dataclass(frozen=True)
class GPU:
    """A kind of GPU in the market, US dollars per hour for one."""

    model: str
    ram: str
    interface: str
    price: Decimal
    total: int = 64


@dataclass(frozen=True)
class Bidder:
    """A provider: how long it takes to bid, and how dear it is (its price is the GPU's times this)."""

    name: str
    delay: float
    factor: Decimal
    reclaims: bool = False

    @property
    def address(self) -> str:
        return address(self.name)


GPUS: Final = (
    GPU("rtx4090", "24Gi", "PCIe", Decimal("0.40")),
    GPU("a100", "80Gi", "SXM4", Decimal("1.20")),
    GPU("h100", "80Gi", "SXM5", Decimal("2.00"), 16),
    GPU("t4", "16Gi", "PCIe", Decimal("0.08"), 1),
)
#: The first is not the cheapest; the cheapest that keeps its machines bids last.
BIDDERS: Final = (
    Bidder("fast", 4, Decimal("1.5")),
    Bidder("reclaiming", 8, Decimal(1), reclaims=True),
    Bidder("cheap", 14, Decimal(1)),
    Bidder("dear", 10, Decimal(40)),
)


@dataclass
class Bid:
    """A provider's offer for an order."""

    provider: Bidder
    usd: Decimal
    amount: Decimal
    made: float
    gpu: dict[str, Any]


@dataclass
class Lease:
    """What bills: from the moment it was made until it ends."""

    bid: Bid
    made: float
    handed: float | None = None
    ended: float | None = None
    reason: str | None = None
    #: A word of the test's that stands in for the state.
    word: str | None = None
    reclaimed: float | None = None
    up: bool = True
    seen: bool = True
    #: What the provider says of the lease in place of a proper status.
    said: Any = None


@dataclass
class Deployment:
    """A deployment of one group. `groups` and `hash` are for ever; `manifest` is known here for comparison only."""

    owner: str
    dseq: str
    groups: list[str]
    hash: str
    sdl: dict[str, Any]
    denom: str
    highest: Decimal
    made: float
    closed: float | None = None
    lease: Lease | None = None
    extra: list[Bid] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)
    #: How often its provider dropped the open log streams.
    dropped: int = 0

    @property
    def service(self) -> str:
        return str(next(iter(self.sdl["services"])))

    @property
    def ports(self) -> list[dict[str, Any]]:
        return list(self.sdl["services"][self.service]["expose"])

    @property
    def resources(self) -> dict[str, Any]:
        return dict(next(iter(self.sdl["profiles"]["compute"].values()))["resources"])


class World:
    """All of it. `lag`: how many seconds the look-ups of groups are behind, always."""

    def __init__(self, *, page: int = 1000, start_seconds: float = 3.0, lag: float = 0.0) -> None:
        self.page, self.start_seconds, self.lag = page, start_seconds, lag
        self.offset = 0.0
        self.akt = Decimal("0.5")
        #: Whether the Console is one that refuses a deployment's name, which not all of them know.
        self.nameless = False
        self.factors: dict[str, Decimal] = {}
        self.accounts = [
            Account(address("owner"), "3b241101-e2bb-4255-8caf-4136c566a962", {"ac.sk.test.owner"}),
            Account(address("other"), "9c858901-8a57-4791-81fe-4c455b099bc9", {"ac.sk.test.other"}),
        ]
        self.deployments: dict[tuple[str, str], Deployment] = {}
        #: The claims of the last token that was made.
        self.claims: dict[str, Any] = {}

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds

    def by_key(self, key: str | None) -> Account | None:
        return next((account for account in self.accounts if key in account.keys), None)

    # --- deployments -----------------------------------------------------------------------------------------------

    def open(
        self, owner: str, groups: list[str], digest: str, sdl: dict[str, Any], price: tuple[str, Decimal]
    ) -> Deployment:
        now = self.now()
        number = int(now * 1000)
        while (owner, str(number)) in self.deployments:
            number += 1
        made = Deployment(owner, str(number), groups, digest, sdl, price[0], price[1], now)
        self.deployments[owner, made.dseq] = made
        return made

    def of(self, owner: str, at: float) -> Iterator[Deployment]:
        """The account's deployments that existed at a moment, oldest first."""
        return (item for item in self.deployments.values() if item.owner == owner and item.made <= at)

    def close(self, item: Deployment, reason: str = "lease_closed_reason_owner") -> None:
        now = self.now()
        item.closed = item.closed if item.closed is not None else now
        if item.lease is not None and item.lease.ended is None:
            item.lease.ended, item.lease.reason = now, reason

    # --- bids and leases -------------------------------------------------------------------------------------------

    def bids(self, item: Deployment, at: float) -> list[Bid]:
        """What had been bid at a moment: providers bid only up to the order's highest price, as the chain has it."""
        gpu = item.resources.get("gpu") or {"units": 0}
        wanted = next(iter((gpu.get("attributes") or {}).get("vendor", {}).get("nvidia") or [{}]))
        kind = next((each for each in GPUS if each.model == wanted.get("model")), None)
        if gpu["units"] and (kind is None or gpu["units"] > min(kind.total, 8)):
            return [bid for bid in item.extra if bid.made <= at]
        base = (kind.price if kind else Decimal("0.05")) * self.factors.get(wanted.get("model", ""), Decimal(1))
        made = [
            self._bid(item, bidder, base * max(gpu["units"], 1) * bidder.factor, wanted, gpu["units"])
            for bidder in BIDDERS
        ]
        fit = [bid for bid in made if bid.amount <= item.highest]
        return [bid for bid in [*fit, *item.extra] if bid.made <= at]

    def _bid(self, item: Deployment, bidder: Bidder, usd: Decimal, wanted: dict[str, Any], units: int) -> Bid:
        return Bid(bidder, usd, self.amount(usd, item.denom), item.made + bidder.delay, {"units": units, **wanted})

    def amount(self, usd: Decimal, denom: str) -> Decimal:
        """Millionths of the coin per block, for US dollars per hour."""
        return (usd * _MICRO / _PER_HOUR / (self.akt if denom == "uakt" else 1)).quantize(_SIXTH)

    def take(self, item: Deployment, bid: Bid) -> Lease:
        item.lease = Lease(bid, self.now())
        return item.lease

    # --- accounts --------------------------------------------------------------------------------------------------

    def billed(self, item: Deployment) -> float:
        """Seconds for which a deployment has billed."""
        lease = item.lease
        if lease is None:
            return 0.0
        return max(0.0, (lease.ended if lease.ended is not None else self.now()) - lease.made)
