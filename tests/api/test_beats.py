"""Digests of heartbeats, as the operator relies on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cal_api.beats import Beats
from cal_crds import heartbeats
from cal_crds.cluster import Cluster
from cal_crds.meta import LABEL_CONTENT

pytestmark = pytest.mark.anyio


async def test_a_digest_is_written_each_round_also_when_no_beat_is_new(cluster: Cluster, namespace: str) -> None:
    """A digest that stood still would mean that the api is away, and nobody's silence would count any more."""
    now = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
    moments = iter(now + timedelta(seconds=30 * round_) for round_ in range(10))
    beats = Beats("one", namespace, lambda: next(moments))
    beats.record("node-1", now)
    versions = set()
    for _ in range(3):
        await beats.write(cluster)
        listing = await cluster.list(
            f"/api/v1/namespaces/{namespace}/configmaps", labelSelector=f"{LABEL_CONTENT}={heartbeats.CONTENT}"
        )
        (digest,) = listing["items"]
        assert heartbeats.parse(digest) == {"node-1": now}
        versions.add(digest["metadata"]["resourceVersion"])
    assert len(versions) == 3
