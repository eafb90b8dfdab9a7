"""The peer of the operator's benchmark: the operator that kopf's tutorial leads to, with a create handler that writes twice per object.

`python bare_kopf.py`, with KUBECONFIG in the environment. It launches nothing, records nothing and recovers from nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import kopf

from cal_crds.cluster import Cluster
from cal_crds.meta import DEPLOYMENT, GROUP, VERSION

_cluster: list[Cluster] = []


@kopf.on.startup()
async def connect(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.scanning.disabled = True
    _cluster.append(await Cluster.connect(os.environ["KUBECONFIG"]))


@kopf.on.create(GROUP, VERSION, DEPLOYMENT.plural)
async def create(name: str | None, namespace: str | None, **_: Any) -> None:
    path = DEPLOYMENT.path(namespace, name, "status")
    for state in ("PROVISIONING", "RUNNING"):
        await _cluster[0].merge_patch(path, {"status": {"state": state}})


if __name__ == "__main__":
    asyncio.run(kopf.operator(standalone=True, clusterwide=True))
