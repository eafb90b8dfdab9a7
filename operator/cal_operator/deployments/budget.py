"""What the limits of a pool leave for one more node (rule 6)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cal_crds import money
from cal_crds.meta import LABEL_POOL, NODE
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool
from cal_operator.world import World

#: Where only a pool's limit bounds the price: up to so many times the offer's, or 1 USD/h.
_ABOVE_OFFER = 4


@dataclass
class Budget:
    """What is left, counted over every node that isn't proven gone, by a quorum read."""

    nodes: int | None = None
    per_hour: Decimal | None = None
    #: `limits.maxNodes` itself.
    most: int | None = None
    #: USD/h that nodes hold above their offers' prices until theirs are final.
    held: Decimal = Decimal(0)

    @classmethod
    async def read(
        cls, world: World, pool: ComputePool, *, in_steps: bool, before: ComputeNode | None = None
    ) -> Budget:
        """`in_steps`: the pool's adapter buys so, and a price is final only once the instance runs. `before`: what is left for that node,
        beside all that is bought already and all that was asked for earlier."""
        limits = pool.spec.limits
        if limits is None or (limits.max_nodes is None and limits.max_cost_per_hour is None):
            return cls()
        path = NODE.path(pool.metadata.namespace)
        found = await world.cluster.list(path, labelSelector=f"{LABEL_POOL}={pool.metadata.uid}")
        alive = [node for node in map(ComputeNode.parse, found["items"]) if node.status.gone_time is None]
        alive = [node for node in alive if before is None or _comes_first(node, before)]
        budget = cls(
            None if limits.max_nodes is None else limits.max_nodes - len(alive),
            None if limits.max_cost_per_hour is None else money.parse(limits.max_cost_per_hour),
            limits.max_nodes,
        )
        for node in alive:
            budget._count(node, in_steps)
        return budget

    def _count(self, node: ComputeNode, in_steps: bool) -> None:
        """A node holds its price once that is final, and until then all that it may come to cost: prices of several may rise at once."""
        if self.per_hour is None:
            return
        instance, offered = node.status.instance, money.parse(node.spec.offer.price_per_hour)
        if instance is not None and not (in_steps and node.status.answered_time is None):
            self.per_hour -= money.parse(instance.price_per_hour)
            return
        self._hold(offered, node.spec.max_price_per_hour)

    def _hold(self, offered: Decimal, cap: str | None) -> None:
        assert self.per_hour is not None
        most = offered if cap is None else max(offered, money.parse(cap))
        self.per_hour -= most
        self.held += most - offered

    def refuse(self, price: Decimal) -> str | None:
        """Why one more node at this price is too much."""
        if self.nodes is not None and self.nodes < 1:
            return f"the pool's limits.maxNodes ({self.most}) is reached"
        if self.per_hour is not None and self.per_hour < price:
            left = f"the pool's limits.maxCostPerHour leaves {money.render(max(self.per_hour, Decimal(0)))} USD/h, {money.render(price)} are needed"
            held = (
                f" ({money.render(self.held)} are held for nodes whose final price isn't known yet)"
                if self.held
                else ""
            )
            return left + held
        return None

    def cap(self, pool: ComputePool, price: Decimal) -> str | None:
        """What one node may cost an hour: the final price may be above the offer's, and must not break the pool's limit either. A wide limit is
        no leave to pay many times what was offered."""
        own = pool.spec.max_cost_per_hour
        if self.per_hour is None:
            return own
        if own is None:
            return money.render(min(self.per_hour, max(price * _ABOVE_OFFER, Decimal(1))))
        return own if money.parse(own) <= self.per_hour else money.render(self.per_hour)

    def take(self, price: Decimal, cap: str | None) -> None:
        """One more node is asked for."""
        self.nodes = None if self.nodes is None else self.nodes - 1
        if self.per_hour is not None:
            self._hold(price, cap)


def _comes_first(node: ComputeNode, other: ComputeNode) -> bool:
    """Whether a node takes its share of the limits before another one that isn't bought yet."""
    if node.metadata.uid == other.metadata.uid:
        return False
    may_bill = node.status.instance is not None or node.status.ended is not None
    return may_bill or node.metadata.deletion_timestamp is not None or _age(node) < _age(other)


def _age(node: ComputeNode) -> tuple[str, str]:
    return str(node.metadata.creation_timestamp), node.metadata.name
