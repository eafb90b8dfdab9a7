"""The operator as a process: how it ends, who leads, what it serves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from rig.desk import QUICK, Desk, OperatorProcess
from rig.plane import bare_plane
from rig.waiting import until

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds import money
from cal_crds.deployment import ModelDeployment
from cal_crds.meta import DEPLOYMENT
from cal_crds.node import ComputeNode
from cal_crds.pool import ComputePool

pytestmark = pytest.mark.anyio


async def _serves(process: OperatorProcess, path: str) -> str | None:
    async with httpx.AsyncClient() as client:
        try:
            reply = await client.get(f"http://127.0.0.1:{process.port}{path}")
        except httpx.TransportError:
            return None
    return reply.text if reply.status_code == 200 else None


async def test_probes_and_metrics(desk: Desk, operator: OperatorProcess) -> None:
    await desk.open()
    await desk.serve()
    assert await _serves(operator, "/healthz") == "ok" and await _serves(operator, "/readyz") == "ok"
    metrics = await _serves(operator, "/metrics") or ""
    assert f'cal_nodes{{provider="{desk.provider}",state="ready"}} 1.0' in metrics
    assert f'cal_cost_per_hour_usd{{provider="{desk.provider}"}} 0.08' in metrics
    for name in ("cal_queue_depth", "cal_reconcile_seconds_count", "cal_adapter_calls_total"):
        assert name in metrics


async def _spent(desk: Desk, operator: OperatorProcess, word: str, name: str) -> Decimal | None:
    """The cost so far as the metrics tell it."""
    text = await _serves(operator, "/metrics") or ""
    series = f'cal_{word}_cost_usd{{namespace="{desk.namespace}",name="{name}"}} '
    told = [line.removeprefix(series) for line in text.splitlines() if line.startswith(series)]
    assert len(told) <= 1 and f"# TYPE cal_{word}_cost_usd gauge" in text
    return Decimal(told[0]) if told else None


async def test_cost_so_far_is_of_the_moment_of_the_scrape(desk: Desk, operator: OperatorProcess) -> None:
    await desk.open()
    await desk.serve()

    async def paid() -> bool:
        cost = (await desk.get_pool()).status.cost
        return cost is not None and cost.rate_per_hour == "0.08"

    await until(paid)
    (node,) = await desk.nodes()
    seen: dict[str, ComputeNode | ModelDeployment | ComputePool] = {"node": node}
    seen |= {"deployment": await desk.deployment(), "pool": await desk.get_pool()}
    for word, found in seen.items():
        earliest = datetime.now(UTC)
        told = await _spent(desk, operator, word, found.metadata.name)
        marks = [Decimal(money.render(money.total(found.status.cost, now))) for now in (earliest, datetime.now(UTC))]
        assert told is not None and Decimal(0) < marks[0] <= told <= marks[1], "it grows without a write"


async def test_a_node_s_cost_leaves_the_metrics_with_the_node(desk: Desk, operator: OperatorProcess) -> None:
    await desk.open()
    node = await desk.serve()

    async def two_seconds_cost() -> bool:  # the records count whole seconds
        spent = await _spent(desk, operator, "node", node.metadata.name)
        return spent is not None and spent > 2 * Decimal("0.08") / 3600

    await until(two_seconds_cost)
    await desk.patch(DEPLOYMENT, "model", {"desiredState": "Terminated"})
    await desk.reaches("TERMINATED")
    await desk.no_nodes()

    async def gone() -> bool:
        return await _spent(desk, operator, "node", node.metadata.name) is None

    await until(gone)
    final = (await desk.deployment()).status.cost
    assert final is not None and final.rate_per_hour == "0"
    assert await _spent(desk, operator, "deployment", "model") == Decimal(final.accumulated) > 0


async def test_one_leads_and_the_other_takes_over_when_it_is_killed(bare_desk: Desk, own_plane: ControlPlane) -> None:
    system = f"{bare_desk.namespace}-system"
    await bare_desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": system}})
    flags = (*QUICK, f"--system-namespace={system}", "--lease-seconds=8")
    first, second = (
        OperatorProcess(own_plane.kubeconfig, bare_desk.state_dir, port, *flags, identity=f"candidate-{port}")
        for port in free_ports(2)
    )
    first.start()
    try:
        await until(lambda: _serves(first, "/readyz"))
        second.start()
        await until(lambda: _serves(second, "/healthz"))
        assert await _serves(second, "/readyz") is None, "two lead at once"
        first.kill()
        await until(lambda: _serves(second, "/readyz"))
        await bare_desk.open()
        await bare_desk.serve()
    finally:
        if first.process is not None and first.process.poll() is None:
            first.kill()
        assert second.process is None or second.stop() == 0, second.log.read_text()[-2000:]


@pytest.fixture
def doomed_plane(binaries: dict[str, Path]) -> Iterator[ControlPlane]:
    """A control plane that a test may take away."""
    with bare_plane(binaries) as plane:
        yield plane


async def test_it_ends_in_order_when_the_api_server_is_gone(doomed_plane: ControlPlane, tmp_path: Path) -> None:
    process = OperatorProcess(doomed_plane.kubeconfig, tmp_path, free_ports(1)[0], *QUICK).start()
    try:
        await until(lambda: _serves(process, "/healthz"))
        doomed_plane.apiserver.stop(grace=1)
        began = time.monotonic()
        assert process.stop() in (0, 1)
        assert time.monotonic() - began < 45, "the deadline of whoever stops it"
    finally:
        assert process.process is not None
        if process.process.poll() is None:
            process.kill()


def test_bad_flags_end_it_with_2(tmp_path: Path) -> None:
    process = OperatorProcess(tmp_path / "none", tmp_path, 0, "--no-such-flag").start()
    assert process.process is not None
    assert process.process.wait(timeout=30) == 2
