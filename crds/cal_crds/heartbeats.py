"""Digests of heartbeats: small ConfigMaps that the api's replicas write and the operator reads.

A beat that changes a reported value goes to the node's `status.heartbeat` at once. One that changes nothing only moves the node's last
beat in the digest of the replica that took it, written each 30 seconds. Namespace: the operator's. Label: LABEL_CONTENT=heartbeats.
`data["beats"]`: JSON object, node uid -> last beat (RFC 3339). `data["written"]`: when it was written, also where no beat is new: the
operator must tell nodes that are silent from an api that is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cal_crds.base import rfc3339
from cal_crds.meta import LABEL_CONTENT

CONTENT: Final = "heartbeats"
_KEY: Final = "beats"
_WRITTEN: Final = "written"


def build(name: str, namespace: str, beats: Mapping[str, datetime], written: datetime | None = None) -> dict[str, Any]:
    """The ConfigMap of one replica and shard."""
    packed = json.dumps({uid: rfc3339(time) for uid, time in sorted(beats.items())}, separators=(",", ":"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_CONTENT: CONTENT}},
        "data": {_KEY: packed, **({_WRITTEN: rfc3339(written)} if written else {})},
    }


def parse(config_map: dict[str, Any]) -> dict[str, datetime]:
    """Node uid -> last beat."""
    beats: dict[str, str] = json.loads((config_map.get("data") or {}).get(_KEY, "{}"))
    return {uid: datetime.fromisoformat(time) for uid, time in beats.items()}
