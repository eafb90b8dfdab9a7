"""The Lease: one active operator. Says since when this one leads, and for how long it surely still does.

`kubernetes.aio.leaderelection` has no release and doesn't tell how long the lease is still valid, which every spending call needs
(rule 2 of the money safety); so this is our own, on the same `coordination.k8s.io/v1` object as everybody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import datetime
from typing import Any

from cal_crds.base import micro_rfc3339
from cal_crds.cluster import Cluster, ClusterError, Conflict, NotFound
from cal_operator.clock import Clock

log = logging.getLogger(__name__)

NAME = "cal-operator"


class LeadershipLost(Exception):
    """The lease ran out or was taken: this process must stop acting."""


class Leader:
    """A candidate for the Lease. Times in seconds."""

    def __init__(
        self, cluster: Cluster, clock: Clock, *, namespace: str, identity: str, duration: float = 15.0
    ) -> None:
        self._cluster, self._clock = cluster, clock
        self._identity, self._duration = identity, duration
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{NAME}"
        self._namespace = namespace
        self._valid_until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        #: The `renewTime` of our latest writes, also of those whose answer was lost: by it we know our own hand.
        self._sent: deque[str] = deque(maxlen=16)
        #: Since when this process leads; and the same by the monotonic clock.
        self.term_start: datetime | None = None
        self.term_began = 0.0

    def remaining(self) -> float:
        """For how many seconds nobody else can lead. 0 or less: don't act."""
        return self._valid_until - self._clock.monotonic()

    async def acquire(self) -> None:
        """Wait until this process leads. An expired lease, or one held by the same identity, is taken at once."""
        while True:
            try:
                if await self._try():
                    break
            except ClusterError as error:
                log.warning("the lease can't be asked for yet: %s", error.message)
            await asyncio.sleep(min(2.0, self._duration / 5))
        self.term_began, self.term_start = self._clock.monotonic(), self._clock.now()
        log.info("leading as %s", self._identity)

    async def keep(self) -> None:
        """Renew until the lease is lost."""
        while True:
            await asyncio.sleep(self._duration / 5)
            try:
                held = await self._try()
            except ClusterError as error:
                log.warning("the lease could not be renewed: %s", error.message)
                held = True
            if not held:
                self._valid_until = 0.0
                raise LeadershipLost(f"the lease {NAME} was taken by another")
            if self.remaining() <= 0:
                raise LeadershipLost(f"the lease {NAME} could not be renewed in time")

    async def release(self) -> None:
        """Let a successor in at once. Only after every launch is recorded."""
        if self.remaining() <= 0:
            return
        self._valid_until = 0.0
        lease = await self._cluster.get(self._path)
        if self._holds(lease["spec"]):
            lease["spec"]["holderIdentity"] = ""
            await self._cluster.replace(self._path, lease)

    async def _try(self) -> bool:
        asked = self._clock.monotonic()
        try:
            lease = await self._cluster.get(self._path)
        except NotFound:
            body = {"metadata": {"name": NAME, "namespace": self._namespace}, "spec": self._spec(0)}
            return await self._written(asked, self._cluster.create(self._collection, body))
        if not self._may_take(lease["spec"]):
            return False
        lease["spec"] = self._spec(int(lease["spec"].get("leaseTransitions") or 0), lease["spec"])
        return await self._written(asked, self._cluster.replace(self._path, lease))

    def _may_take(self, spec: dict[str, Any]) -> bool:
        """Ours, free, or not renewed for a whole duration of *our* clock (another machine's may be wrong)."""
        holder, renewed = spec.get("holderIdentity"), str(spec.get("renewTime"))
        if not holder or self._holds(spec):
            return True
        if holder == self._identity:
            # Our former life's; or, while we lead, that of a twin who is called the same.
            return self.term_start is None
        if self._seen[0] != f"{holder} {renewed}":
            self._seen = (f"{holder} {renewed}", self._clock.monotonic())
        return self._clock.monotonic() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._duration)

    def _holds(self, spec: dict[str, Any]) -> bool:
        """Whether it was this very process that took or renewed the lease last."""
        return spec.get("holderIdentity") == self._identity and spec.get("renewTime") in self._sent

    def _spec(self, transitions: int, old: dict[str, Any] | None = None) -> dict[str, Any]:
        now = micro_rfc3339(self._clock.now())
        self._sent.append(now)
        ours = old is not None and old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": old["acquireTime"] if ours and old and old.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": transitions if ours or old is None else transitions + 1,
        }

    async def _written(self, asked: float, write: Any) -> bool:
        try:
            await write
        except Conflict:
            return False
        self._valid_until = asked + self._duration
        return True
