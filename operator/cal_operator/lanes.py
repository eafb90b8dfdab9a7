"""Which lane of the work queue an object stands in: nodes apart by provider, so that a slow one holds up only its own; what buys and stops
apart from thousands of nodes that are only looked at; and deployments that never were looked at apart from all others."""

from __future__ import annotations

from typing import Final

from cal_crds.meta import DEPLOYMENT, NODE
from cal_operator.store import Key, Store

#: Beginnings of names, before the name of a provider: nodes to be bought or ended, nodes to be looked at, and deployments that have neither
#: a state nor a node.
_WORK: Final = f"work {NODE.name} "
_LOOK: Final = f"look {NODE.name} "
_NEW: Final = f"new {DEPLOYMENT.name} "


def lane_of(store: Store, key: Key) -> str:
    """The lane of an object as it is known just now."""
    if key.kind == NODE.name and (facts := store.facts_of(key.uid)) is not None:
        return f"{_LOOK if facts.bought else _WORK}{facts.provider}"
    if key.kind == DEPLOYMENT.name and (provider := store.provider_of_new(key.uid)):
        return f"{_NEW}{provider}"
    return key.kind


def fed_lane(lane: str) -> str | None:
    """The lane that a lane makes work for: what a new deployment makes is nodes to be bought."""
    return f"{_WORK}{lane.removeprefix(_NEW)}" if lane.startswith(_NEW) else None
