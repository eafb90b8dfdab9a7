"""Money as decimals: parsing, printing, and cost that grows with time without a write."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from cal_crds.pool import Cost

_NINTH = Decimal("0.000000001")
#: The largest amount that a field holds.
_MOST = Decimal(999_999_999_999)
_HOUR = Decimal(3600)


def parse(text: str | None) -> Decimal:
    """US dollars from a field; absent is 0."""
    return Decimal(text) if text else Decimal(0)


def render(amount: Decimal) -> str:
    """US dollars for a field: plain notation, at most nine decimals, no trailing zeros; within 0 and what a field holds."""
    held = min(max(Decimal(0), amount), _MOST)
    return format(held.quantize(_NINTH, rounding=ROUND_HALF_UP).normalize(), "f")


def total(cost: Cost | None, now: datetime) -> Decimal:
    """US dollars up to `now`."""
    if cost is None:
        return Decimal(0)
    running = parse(cost.rate_per_hour)
    if cost.since is None or not running:
        return parse(cost.accumulated)
    seconds = Decimal(str(max(0.0, (now - cost.since).total_seconds())))
    return parse(cost.accumulated) + running * seconds / _HOUR


def at_rate(cost: Cost | None, rate: Decimal, now: datetime) -> Cost:
    """The same cost going on at another rate from `now`; unchanged when the rate is."""
    if cost is not None and parse(cost.rate_per_hour) == parse(render(rate)):
        return cost
    return Cost(accumulated=render(total(cost, now)), since=now, rate_per_hour=render(rate))
