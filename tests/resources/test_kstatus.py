"""kstatus, the real Go package, over the life of each kind: what Flux, Helm and cli-utils wait for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cal_crds.cluster import Cluster
from cal_crds.meta import KINDS

Object = dict[str, Any]


def _kstatus(binaries: dict[str, Path], body: Object) -> str:
    run = subprocess.run(
        [binaries["kstatus"]], input=json.dumps(body), capture_output=True, text=True, check=True, timeout=30
    )
    return run.stdout.split("\t")[0]


def test_kstatus_over_a_life(stage: Any, binaries: dict[str, Path]) -> None:
    assert _kstatus(binaries, stage.body) == stage.kstatus


@pytest.mark.anyio
async def test_an_object_fresh_from_the_api_server_is_in_progress(
    kind: str, cluster: Cluster, namespace: str, binaries: dict[str, Path], full: Callable[..., Object]
) -> None:
    which = next(known for known in KINDS if known.name == kind)
    scope = namespace if which.namespaced else None
    answer = await cluster.create(which.path(scope), {**full(kind, namespace), "status": None})
    read = await cluster.get(which.path(scope, namespace))
    assert (_kstatus(binaries, answer), _kstatus(binaries, read)) == ("InProgress", "InProgress")
