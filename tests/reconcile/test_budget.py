"""The write budget from creation to RUNNING, counted by the API server's own metrics. Events and Leases are not counted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def _operator(desk: Desk, plane: ControlPlane, *flags: str) -> Iterator[None]:
    operator = OperatorProcess(plane.kubeconfig, desk.state_dir, free_ports(1)[0], *flags, *QUICK).start()
    try:
        yield
    finally:
        assert operator.stop() == 0, operator.log.read_text()[-4000:]


async def test_seven_writes_where_every_state_lasts(fresh_desk: Desk, fresh_plane: ControlPlane) -> None:
    """Each lasts long enough to be written and seen, and what passes at once may take two seconds for it, as on a busy machine."""
    desk = fresh_desk
    with _operator(desk, fresh_plane, "--hold-seconds=2"):
        await desk.register(launchDelayMilliseconds=6000, readyDelayMilliseconds=6000)
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


async def test_five_writes_where_states_pass_at_once(fresh_desk: Desk, fresh_plane: ControlPlane) -> None:
    """A busy machine makes states last: here they may take a minute and still count as passing."""
    desk = fresh_desk
    with _operator(desk, fresh_plane, "--hold-seconds=60"):
        await desk.open()
        before = await _writes(desk)
        names = [f"m{number}" for number in range(_COUNT)]
        await asyncio.gather(*(desk.deploy(name) for name in names))
        await asyncio.gather(*(desk.reaches("RUNNING", name) for name in names))
        spent = await _writes(desk) - before
    assert spent["modeldeployments/"] == spent["computenodes/"] == _COUNT
    assert spent["computenodes/status"] <= 2 * _COUNT, spent
    assert spent["modeldeployments/status"] == _COUNT, spent
