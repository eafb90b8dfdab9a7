"""The write budget from creation to RUNNING, counted by the API server's own metrics. Events and Leases are not counted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest
from rig.desk import QUICK, Desk, OperatorProcess

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.meta import GROUP

pytestmark = pytest.mark.anyio

_COUNT = 10
_LINE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)


async def _writes(desk: Desk) -> Counter[str]:
    """Accepted writes so far, by resource and subresource."""
    found: Counter[str] = Counter()
    for text, value in _LINE.findall((await desk.cluster.request_raw("GET", "/metrics")).decode()):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        if labels["group"] == GROUP and labels["verb"] in {"POST", "PUT", "PATCH", "APPLY", "DELETE"}:
            found[f"{labels['resource']}/{labels['subresource']}"] += round(float(value))
    return found


async def test_seven_writes_where_every_state_lasts(desk: Desk) -> None:
    await desk.register(launchDelayMilliseconds=3000, readyDelayMilliseconds=3000)
    await desk.pool()
    before = await _writes(desk)
    names = [f"m{number}" for number in range(_COUNT)]
    await asyncio.gather(*(desk.deploy(name) for name in names))
    await asyncio.gather(*(desk.reaches("DEPLOYING", name) for name in names))
    await asyncio.gather(*(desk.reaches("RUNNING", name) for name in names))
    spent = await _writes(desk) - before
    assert spent["modeldeployments/"] == spent["computenodes/"] == _COUNT
    assert spent["computenodes/status"] <= 2 * _COUNT, spent
    assert spent["modeldeployments/status"] <= 3 * _COUNT, spent
    assert spent["computepools/status"] <= 2 * _COUNT, "merged over the pool's deployments"


async def test_five_writes_where_states_pass_at_once(bare_desk: Desk, own_plane: ControlPlane) -> None:
    """A busy machine makes states last: here they may take a minute and still count as passing."""
    flags = ("--hold-seconds=60", *QUICK)
    operator = OperatorProcess(own_plane.kubeconfig, bare_desk.state_dir, free_ports(1)[0], *flags).start()
    try:
        await bare_desk.open()
        before = await _writes(bare_desk)
        names = [f"m{number}" for number in range(_COUNT)]
        await asyncio.gather(*(bare_desk.deploy(name) for name in names))
        await asyncio.gather(*(bare_desk.reaches("RUNNING", name) for name in names))
        spent = await _writes(bare_desk) - before
    finally:
        assert operator.stop() == 0
    assert spent["modeldeployments/"] == spent["computenodes/"] == _COUNT
    assert spent["computenodes/status"] <= 2 * _COUNT, spent
    assert spent["modeldeployments/status"] == _COUNT, spent
