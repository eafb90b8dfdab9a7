"""From `POST` to RUNNING, many at once: how fast, with how many writes, in how much memory; beside a bare kopf operator in the same run.

Prints JSON rows {name, value, unit, against, ratio, goal, met} as its last line. CAL_BENCH_MANY sets the large number (5000).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from rig.plane import operator_plane

from cal_cli.controlplane import ControlPlane, find
from cal_cli.controlplane.plane import free_ports
from cal_cli.controlplane.tools import FOR_UP
from cal_crds.cluster import Cluster
from cal_crds.meta import API_VERSION, DEPLOYMENT, GROUP, POOL, PROVIDER

COUNT = int(os.environ.get("CAL_BENCH_COUNT", "1000"))
MANY = int(os.environ.get("CAL_BENCH_MANY", "5000"))
_AT_ONCE = 32
_WRITES = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Round:
    """What one round over so many deployments took."""

    seconds: float
    latencies: list[float]
    writes: float
    rss_mb: float

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.latencies, n=100)[percent - 1]


@contextmanager
def plane() -> Iterator[ControlPlane]:
    """A fresh API server with our CRDs, and the operator's namespace."""
    binaries = find(FOR_UP, lambda line: print(line, file=sys.stderr))
    with operator_plane(binaries, prefix="cal-bench-") as made:
        yield made


@contextmanager
def process(argv: list[str], kubeconfig: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-P", *argv],
            stdout=output,
            stderr=output,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=60)


async def count_writes(cluster: Cluster) -> float:
    """Writes to our kinds so far, by the API server's own metrics (Events and Leases are of other groups)."""
    text = (await cluster.request_raw("GET", "/metrics")).decode()
    total = 0.0
    for labels, value in _WRITES.findall(text):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if found["group"] == GROUP and found["verb"] in {"POST", "PUT", "PATCH", "DELETE", "APPLY"}:
            total += float(value)
    return total


async def create(cluster: Cluster, kind: Any, name: str, spec: dict[str, Any]) -> None:
    body = {"apiVersion": API_VERSION, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
    await cluster.create(kind.path("default" if kind.namespaced else None), body)


async def one_round(cluster: Cluster, prefix: str, count: int, pid: int) -> Round:
    """Create `count` deployments and wait until all are RUNNING."""
    before = await count_writes(cluster)
    version = (await cluster.list_metadata(DEPLOYMENT.path("default")))["metadata"]["resourceVersion"]
    running = asyncio.create_task(_running(cluster, prefix, count, version))
    began, created = time.monotonic(), {}
    slots = asyncio.Semaphore(_AT_ONCE)
    workload = {"image": "example/model:1", "ports": [{"name": "http", "port": 8000}]}
    spec = {"poolRef": {"name": "bench"}, "model": {"name": "tiny"}, "workload": workload}

    async def one(number: int) -> None:
        async with slots:
            created[f"{prefix}{number}"] = time.monotonic()
            await create(cluster, DEPLOYMENT, f"{prefix}{number}", spec)

    await asyncio.gather(*(one(number) for number in range(count)))
    ended = await asyncio.wait_for(running, timeout=1500)
    seconds = time.monotonic() - began
    latencies = [ended[name] - created[name] for name in created]
    return Round(seconds, latencies, (await count_writes(cluster) - before) / count, _rss_mb(pid))


async def _running(cluster: Cluster, prefix: str, count: int, version: str) -> dict[str, float]:
    """When each of them was seen RUNNING."""
    ended: dict[str, float] = {}
    while len(ended) < count:  # the server ends a watch when it likes
        async for event in cluster.watch(DEPLOYMENT.path("default"), version):
            version = event["object"]["metadata"]["resourceVersion"]
            name = event["object"]["metadata"].get("name", "")
            state = (event["object"].get("status") or {}).get("state")
            if name.startswith(prefix) and state == "RUNNING" and name not in ended:
                ended[name] = time.monotonic()
                if len(ended) == count:
                    break
    return ended


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


async def ours(count: int, **demo: Any) -> Round:
    """One round through the real operator and the demo market."""
    with plane() as made:
        state = made.state_dir / "adapters"
        port = free_ports(1)[0]
        argv = ["-m", "cal_operator", f"--metrics-port={port}", "--identity=bench", "--enable-adapters=demo"]
        with process(
            [*argv, f"--adapter-state-dir={state}"], made.kubeconfig, made.state_dir / "operator.log"
        ) as child:
            async with await Cluster.connect(str(made.kubeconfig)) as cluster:
                await create(cluster, PROVIDER, "demo", {"adapter": "demo", "demo": demo})
                await create(cluster, POOL, "bench", {"owner": {"id": "me"}, "providerRef": {"name": "demo"}})
                await one_round(cluster, "warm-", 5, child.pid)
                return await one_round(cluster, "run-", count, child.pid)


async def bare(count: int) -> Round:
    """One round through the peer."""
    with plane() as made:
        script = str(Path(__file__).with_name("bare_kopf.py"))
        with process([script], made.kubeconfig, made.state_dir / "bare.log") as child:
            async with await Cluster.connect(str(made.kubeconfig)) as cluster:
                await one_round(cluster, "warm-", 5, child.pid)
                return await one_round(cluster, "run-", count, child.pid)


def row(
    name: str, value: float, unit: str, goal: float, *, against: float | None = None, lower: bool = True
) -> dict[str, Any]:
    """`goal` bounds the ratio to `against` where there is one, else the value."""
    ratio = None if against is None else value / against
    measured = value if ratio is None else ratio
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "against": None if against is None else round(against, 2),
        "ratio": None if ratio is None else round(ratio, 3),
        "goal": f"{'<=' if lower else '>='} {goal}",
        "met": measured <= goal if lower else measured >= goal,
    }


async def main() -> None:
    mine, peer = await ours(COUNT), await bare(COUNT)
    print(f"ours: {mine.seconds:.1f} s, the peer: {peer.seconds:.1f} s", file=sys.stderr, flush=True)
    slow = await ours(50, launchDelayMilliseconds=1500, readyDelayMilliseconds=1500)
    rate, peer_rate = COUNT / mine.seconds, COUNT / peer.seconds
    rows = [
        row(f"{COUNT} deployments to RUNNING", rate, "1/s", 1.0, against=peer_rate, lower=False),
        row("POST to RUNNING, p50", mine.percentile(50), "s", 1.0, against=peer.percentile(50)),
        row("POST to RUNNING, p99", mine.percentile(99), "s", 1.0, against=peer.percentile(99)),
        row("writes per deployment, states pass at once", mine.writes, "writes", 5.1),
        row("writes per deployment, states last", slow.writes, "writes", 7.2),
        row(f"RSS at {COUNT} deployments", mine.rss_mb, "MB", 1.0, against=peer.rss_mb),
    ]
    if MANY:
        many = await ours(MANY)
        rows.append(row(f"RSS at {MANY} deployments", many.rss_mb, "MB", 150.0))
    print(json.dumps(rows))


if __name__ == "__main__":
    asyncio.run(main())
