"""Heartbeats: who was heard when, and whether a silence counts (rule 7).

The clocks run only while the api is writing digests, and start anew with this process; a pool never loses more than a tenth of its nodes
to silence within five minutes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime

from cal_crds import heartbeats
from cal_crds.cluster import Cluster
from cal_crds.meta import LABEL_CONTENT
from cal_crds.node import ComputeNode
from cal_operator.clock import Clock, seconds

_WINDOW = 300.0


class Liveness:
    """The last beats of all nodes."""

    def __init__(self, clock: Clock, namespace: str, timeout: float) -> None:
        self._clock, self._timeout = clock, timeout
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._beats: dict[str, datetime] = {}
        self._versions: dict[str, str] = {}
        self._listening_since: datetime | None = None
        self._changed_at = float("-inf")
        self._losses: defaultdict[str, deque[float]] = defaultdict(deque)

    async def refresh(self, cluster: Cluster) -> None:
        """Read the digests. ClusterError: the clocks start anew once it works again."""
        try:
            found = await cluster.list(self._path, labelSelector=f"{LABEL_CONTENT}={heartbeats.CONTENT}")
        except Exception:
            self._listening_since = None
            raise
        versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found["items"]}
        now = self._clock.monotonic()
        if versions != self._versions:
            self._versions, self._changed_at = versions, now
            self._beats = {}
            for item in found["items"]:
                for uid, time in heartbeats.parse(item).items():
                    self._beats[uid] = max(time, self._beats.get(uid, time))
        if now - self._changed_at > self._timeout / 2:
            self._listening_since = None  # nobody writes digests: silence says nothing
        elif self._listening_since is None:
            self._listening_since = self._clock.now()

    def last_beat(self, node: ComputeNode) -> datetime | None:
        """When a node was last heard; None if it never was."""
        beat = node.status.heartbeat
        known = [time for time in (self._beats.get(node.metadata.uid), beat.time if beat else None) if time is not None]
        return max(known, default=None)

    def overdue(self, node: ComputeNode, now: datetime) -> bool:
        """Whether a node that has beaten was silent for too long, by clocks that ran all the while."""
        last = self.last_beat(node)
        if last is None or self._listening_since is None:
            return False
        return now - max(last, self._listening_since) > seconds(self._timeout)

    def may_lose(self, pool_uid: str, size: int) -> bool:
        """Whether the pool may lose one more node to silence just now: at most a tenth, at least one, in five minutes."""
        losses = self._losses[pool_uid]
        while losses and self._clock.monotonic() - losses[0] > _WINDOW:
            losses.popleft()
        return len(losses) < max(1, size // 10)

    def lost(self, pool_uid: str) -> None:
        self._losses[pool_uid].append(self._clock.monotonic())
