"""Kubernetes Events for what a person would want to know: few, and each said once an hour."""

from __future__ import annotations

import logging
from collections import OrderedDict

from cal_crds.base import Resource, rfc3339
from cal_crds.cluster import AlreadyExists, Cluster, ClusterError
from cal_crds.meta import API_VERSION, MANAGER_OPERATOR
from cal_crds.names import digest
from cal_operator.clock import Clock

log = logging.getLogger(__name__)

_AGAIN_AFTER = 3600.0
_REMEMBERED = 10_000


class Events:
    """Writes Events. Failing to is logged and otherwise without consequence: no Event is a trigger."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._said: OrderedDict[str, float] = OrderedDict()

    async def say(self, about: Resource, kind: str, reason: str, message: str, *, warning: bool = False) -> None:
        """One Event about an object, unless the same was said within the hour."""
        what = digest(about.metadata.uid, reason, message, length=16)
        now = self._clock.monotonic()
        if now - self._said.get(what, -_AGAIN_AFTER) < _AGAIN_AFTER:
            return
        self._said[what] = now
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        namespace = about.metadata.namespace or "default"
        stamp = rfc3339(self._clock.now())
        # Named by the hour of the day's clock: a process that starts anew, or leads next, doesn't say it again within that hour.
        hour = int(self._clock.now().timestamp() // _AGAIN_AFTER)
        reference = {
            "apiVersion": API_VERSION, "kind": kind, "name": about.metadata.name, "uid": about.metadata.uid,
            **({"namespace": namespace} if about.metadata.namespace else {}),
        }  # fmt: skip
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about.metadata.name[:200]}.{what}{hour % 100000:05d}", "namespace": namespace},
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "source": {"component": MANAGER_OPERATOR},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            await self._cluster.create(f"/api/v1/namespaces/{namespace}/events", body)
        except AlreadyExists:
            return  # said by the one before
        except ClusterError as error:
            log.warning("an Event could not be written: %s", error.message)
