"""The kill walk: SIGKILL at the n-th suspension point of a launch, n = 1, 2, ... until a launch ends unkilled; each leaves exactly one
instance once a successor has taken over.

CAL_KILL_WALK_STRIDE takes every k-th point only (1: each); what a run took is printed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rig import kill_walk
from rig.desk import QUICK, Desk
from rig.waiting import until

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.meta import DEPLOYMENT

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1500)]

_STRIDE = int(os.environ.get("CAL_KILL_WALK_STRIDE", "1"))
_LONGEST = 2000


class Zygote:
    """Operators in forks of one process that has imported everything."""

    def __init__(self, process: asyncio.subprocess.Process, flags: str) -> None:
        self._process, self._flags = process, flags

    async def start(self, n: int) -> int:
        """Start an operator that kills itself at its n-th suspension point (0: never); its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n} {self._flags}\n".encode())
        return int(await self._line())

    async def ended(self) -> str:
        return await self._line()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@pytest.fixture
async def zygote(own_plane: ControlPlane, adapter_state: Path) -> AsyncIterator[Zygote]:
    port = free_ports(1)[0]
    flags = [f"--kubeconfig={own_plane.kubeconfig}", f"--metrics-port={port}", "--identity=walker"]
    flags += ["--enable-adapters=demo", f"--adapter-state-dir={adapter_state}", "--system-namespace=cal-walk", *QUICK]
    log = os.open(adapter_state / "kill-walk.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", kill_walk.__file__),
        start_new_session=True,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )
    os.close(log)
    yield Zygote(process, " ".join(flags))
    os.killpg(process.pid, signal.SIGKILL)  # a test that failed leaves an operator behind
    await process.wait()


async def test_a_kill_at_any_suspension_point_of_a_launch_leaves_exactly_one_instance(
    bare_desk: Desk, zygote: Zygote
) -> None:
    desk = bare_desk
    await desk.cluster.create("/api/v1/namespaces", {"metadata": {"name": "cal-walk"}})
    pid = await zygote.start(0)
    await desk.open()
    desk.ledger.forget_marks()  # a market that would sell the same thing twice
    desk.ledger.dawdle(0.3)
    os.kill(pid, signal.SIGTERM)
    assert await zygote.ended() == "exit 0"
    kills = 0
    for n in range(1, _LONGEST, _STRIDE):
        if not await _killed_at(desk, zygote, n):
            print(f"\nkill walk: {kills} kills, stride {_STRIDE}; a launch has fewer than {n} suspension points")
            break
        kills += 1
    assert 0 < kills * _STRIDE < _LONGEST


async def _killed_at(desk: Desk, zygote: Zygote, n: int) -> bool:
    """One step of the walk. False if the launch ended before the n-th point."""
    bought_before = len(desk.ledger.history())
    await desk.deploy()
    pid = await zygote.start(n)
    ending = asyncio.create_task(zygote.ended())
    running = asyncio.create_task(desk.reaches("RUNNING"))
    await asyncio.wait({ending, running}, return_when=asyncio.FIRST_COMPLETED)
    killed = ending.done()
    if killed:
        assert ending.result() == "killed"
        pid = await zygote.start(0)
        ending = asyncio.create_task(zygote.ended())
        await running
    (node,) = await desk.nodes()
    await desk.bills_exactly([node.spec.token])
    # Not what bills now: the sweep may have stopped a double already.
    assert len(desk.ledger.history()) == bought_before + 1, f"bought twice after a kill at point {n}"
    if not killed:
        os.kill(pid, signal.SIGKILL)
        await ending
        pid = await zygote.start(0)
        ending = asyncio.create_task(zygote.ended())
    await desk.delete(DEPLOYMENT, "model")
    await desk.no_nodes()

    async def stopped() -> bool:
        return desk.billing() == []

    await until(stopped)
    os.kill(pid, signal.SIGTERM)
    assert await ending == "exit 0"
    return killed
