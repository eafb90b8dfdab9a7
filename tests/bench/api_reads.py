"""Cached reads of the api beside a Starlette route that returns constant bytes of the same length, under the same server flags.

The two take turns in short rounds, so that whatever else the machine does hits both; a ratio is the median over the rounds. Goal: 0.6.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
ROOTS = [str(REPO / root) for root in ("api", "cli", "crds", "tests")]
sys.path[:0] = ROOTS

from rig.plane import ready_plane

from cal_cli.controlplane import find
from cal_cli.controlplane.plane import free_ports
from cal_cli.controlplane.tools import FOR_UP
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, POOL

POOLS, ROUNDS, SECONDS, CONNECTIONS, GOAL = 500, 9, 1.0, 8, 0.6
HERE = Path(__file__).parent
_COSTS = {"status": {"cost": {"accumulated": "1.25", "since": "2026-01-01T00:00:00Z", "ratePerHour": "0.123456789"}}}


async def _fill(kubeconfig: Path) -> str:
    """500 pools of one owner, and a deployment; its id. All of them cost money just now, so that no answer is right for longer than a second."""
    async with await Cluster.connect(str(kubeconfig)) as cluster:
        for number in range(POOLS):
            spec: dict[str, Any] = {
                "displayName": f"pool {number}",
                "owner": {"id": "bench"},
                "providerRef": {"name": "demo"},
                "allowedGPUTypes": ["rtx3090", "rtx4090"],
                "maxCostPerHour": "1.00",
            }
            await cluster.create(POOL.path("default"), _object(POOL.name, f"pool-{number}", spec))
            await cluster.merge_patch(POOL.path("default", f"pool-{number}", "status"), _COSTS)
        spec = {"poolRef": {"name": "pool-0"}, "model": {"name": "m"}, "workload": {"engine": "vllm", "image": "a/b:c"}}
        made = await cluster.create(DEPLOYMENT.path("default"), _object(DEPLOYMENT.name, "bench", spec))
        await cluster.merge_patch(DEPLOYMENT.path("default", "bench", "status"), _COSTS)
    return str(made["metadata"]["uid"])


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


@contextmanager
def _process(*argv: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    process = subprocess.Popen([sys.executable, *argv], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def _get(url: str, deadline: float = 60) -> bytes:
    """The body, as soon as the server gives one."""
    until = time.monotonic() + deadline
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return bytes(reply.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _rate(port: int, path: str) -> float:
    """Requests a second."""
    argv = [sys.executable, str(HERE / "load.py"), "127.0.0.1", str(port), path, str(CONNECTIONS), str(SECONDS)]
    result = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert result["bad"] == 0, result
    return float(result["requests"] / result["seconds"])


def _row(name: str, api: int, path: str, scratch: Path) -> dict[str, Any]:
    """One comparison."""
    body = scratch / "body"
    body.write_bytes(_get(f"http://127.0.0.1:{api}{path}"))
    with _process(str(HERE / "yardstick.py"), str(body)) as yardstick:
        assert yardstick.stdout is not None
        port = int(yardstick.stdout.readline())
        assert _get(f"http://127.0.0.1:{port}/constant/x") == body.read_bytes()
        rounds = [(_rate(api, path), _rate(port, "/constant/x")) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(rate) for rate in zip(*rounds, strict=True))
    ratio = round(statistics.median(one / other for one, other in rounds), 2)
    return {
        "name": name,
        "value": round(ours),
        "unit": f"requests/s of {body.stat().st_size} bytes",
        "against": f"a constant Starlette route: {theirs:.0f}",
        "ratio": ratio,
        "goal": f">= {GOAL}",
        "met": ratio >= GOAL,
    }


def main() -> None:
    """Prints the rows as the last line."""
    with ready_plane(find(FOR_UP, print), prefix="cal-bench-") as plane:
        deployment = asyncio.run(_fill(plane.kubeconfig))
        rows = _measure(plane.kubeconfig, deployment, plane.state_dir)
    print(json.dumps(rows))


def _measure(kubeconfig: Path, deployment: str, scratch: Path) -> list[dict[str, Any]]:
    port = free_ports(1)[0]
    with _process("-m", "cal_api", f"--port={port}", f"--kubeconfig={kubeconfig}"):
        _get(f"http://127.0.0.1:{port}/readyz")
        return [
            _row("GET /status", port, f"/status/{deployment}", scratch),
            _row("GET /listPools of 500", port, "/listPools/bench?limit=500", scratch),
        ]


if __name__ == "__main__":
    main()
