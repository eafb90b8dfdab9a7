"""Logs of ended nodes: the ConfigMap that the operator writes and the relay reads.

Name: `<node name>-logs`. Namespace: the node's. Owner: the deployment. Labels: LABEL_CONTENT=logs, LABEL_DEPLOYMENT, LABEL_NODE
(the node's uid). Annotation INSTANCE: the instance id; PROVIDER: the provider's name. `binaryData["log.gz"]`: gzip of the last lines,
UTF-8, each with its line end, at most MAX_LINES and MAX_BYTES when packed.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from typing import Any, Final

from cal_crds.meta import GROUP, LABEL_CONTENT, LABEL_DEPLOYMENT, LABEL_NODE
from cal_crds.modelkeys import redact

MAX_LINES: Final = 1000
MAX_BYTES: Final = 256 * 1024
CONTENT: Final = "logs"
INSTANCE: Final = f"{GROUP}/instance-id"
PROVIDER: Final = f"{GROUP}/provider"
_KEY: Final = "log.gz"


def name(node_name: str) -> str:
    """The name of the ConfigMap with a node's last lines."""
    return f"{node_name}-logs"


def pack(lines: Sequence[str]) -> bytes:
    """The last lines, gzipped, without the API key that a model may have printed; fewer of them if they don't fit."""
    kept = [redact(line) for line in lines[-MAX_LINES:]]
    while True:
        packed = gzip.compress("".join(f"{line}\n" for line in kept).encode(errors="replace"), mtime=0)
        if len(packed) <= MAX_BYTES or not kept:
            return packed
        kept = kept[max(1, len(kept) // 4) :]


def unpack(config_map: dict[str, Any]) -> list[str]:
    """The lines of such a ConfigMap, oldest first."""
    packed = (config_map.get("binaryData") or {}).get(_KEY)
    return gzip.decompress(base64.b64decode(packed)).decode().split("\n")[:-1] if packed else []


def build(
    *,
    node_name: str,
    node_uid: str,
    namespace: str,
    deployment: tuple[str, str],
    instance_id: str,
    provider: str,
    lines: Sequence[str],
) -> dict[str, Any]:
    """The ConfigMap. `deployment` is its (name, uid)."""
    owner = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "ModelDeployment", "name": deployment[0], "uid": deployment[1]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(node_name),
            "namespace": namespace,
            "labels": {LABEL_CONTENT: CONTENT, LABEL_DEPLOYMENT: deployment[1], LABEL_NODE: node_uid},
            "annotations": {INSTANCE: instance_id, PROVIDER: provider},
            "ownerReferences": [owner],
        },
        "binaryData": {_KEY: base64.b64encode(pack(lines)).decode()},
    }
