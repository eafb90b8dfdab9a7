"""What things have cost so far: the api tells up to when it is added up and how fast it grows, the reader adds the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from cal_cli.rest import Body
from cal_crds import money
from cal_crds.pool import Cost

_SHOWN = Decimal("0.0001")


def so_far(item: Body) -> str | None:
    """US dollars up to now of a pool, deployment or node; None where the api doesn't tell."""
    cost = _cost(item)
    return _dollars(money.total(cost, datetime.now(UTC))) if cost else None


def rate(item: Body) -> str | None:
    """US dollars per hour just now; None where the api doesn't tell."""
    cost = _cost(item)
    return cost.rate_per_hour if cost else None


def summary(pools: Sequence[Body]) -> str:
    """One line over all of them."""
    costs, now = [cost for pool in pools if (cost := _cost(pool))], datetime.now(UTC)
    total = sum((money.total(cost, now) for cost in costs), Decimal(0))
    rates = sum((money.parse(cost.rate_per_hour) for cost in costs), Decimal(0))
    return (
        f"{_dollars(total)} USD in {len(costs)} pool{'s' if len(costs) != 1 else ''}; now {money.render(rates)} USD/h"
    )


def _cost(item: Body) -> Cost | None:
    told = item.get("cost")
    return Cost.model_validate(told) if told else None


def _dollars(amount: Decimal) -> str:
    return money.render(amount.quantize(_SHOWN))
