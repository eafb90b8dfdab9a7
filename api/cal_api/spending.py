"""Cost that grows while nobody writes: put anew into what was rendered before, for the second in which it is read."""

from __future__ import annotations

from datetime import datetime

from cal_api import replies
from cal_crds import money
from cal_crds.base import rfc3339
from cal_crds.pool import Cost

#: The last field of whatever costs money. Quotes within strings are escaped, so no text of a user's looks like it.
_FIELD = b'"cost_so_far":"'


def shown(cost: Cost | None) -> replies.Cost:
    """As REST shows it; what nothing is known of has cost nothing."""
    known = cost or Cost()
    since = rfc3339(known.since) if known.since else None
    return replies.Cost(accumulated=known.accumulated, since=since, rate_per_hour=known.rate_per_hour)


def growing(cost: Cost | None) -> Cost | None:
    """The cost, if it grows with time."""
    return cost if cost is not None and cost.since is not None and money.parse(cost.rate_per_hour) else None


def as_of(second: datetime, rendered: bytes, cost: Cost) -> bytes:
    """A rendered object with the cost that it has come to by then."""
    head = rendered[: rendered.rindex(_FIELD) + len(_FIELD)]
    return b'%s%s"}' % (head, money.render(money.total(cost, second)).encode())
