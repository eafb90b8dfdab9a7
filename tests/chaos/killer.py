"""The attack: SIGKILL at random moments, leaders that are stopped for longer than their Lease and then go on, all from one seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from chaos.churn import Churn
from chaos.fleet import API, OPERATORS, RELAY, Fleet
from chaos.stage import DEMO, Stage
from rig.plane import SYSTEM

from cal_crds.cluster import Cluster, ClusterError

_LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/cal-operator"
#: What is killed, with weights. "strike" is the leader a moment after users asked for something that costs money, "sale" the leader
#: between a sale at the demo market and its answer.
_VICTIMS: Final = {
    "leader": 30,
    "strike": 14,
    "sale": 18,
    "standby": 6,
    "both": 3,
    API: 14,
    RELAY: 10,
    "apiserver": 1.5,
}
#: While a leader is paused and its successor waits for the Lease, operators are left alone.
_BYSTANDERS: Final = {API: 6, RELAY: 4}
_FIRST_PAUSE: Final = 8
_PAUSE_EVERY: Final = 90
_TAKEOVER_SECONDS: Final = 60.0


class Killer:
    """Kills until it has killed enough."""

    def __init__(self, fleet: Fleet, stage: Stage, churn: Churn, cluster: Cluster, seed: int) -> None:
        self._fleet, self._stage, self._churn, self._cluster = fleet, stage, churn, cluster
        self._dice = random.Random(f"{seed} kills")
        self.kills = 0
        #: Leaders that were stopped past their Lease while another took over.
        self.pauses = 0
        self.takeovers = 0
        self._pausing: asyncio.Task[None] | None = None

    async def run(self, until: int) -> None:
        """Up to that number of kills in all."""
        while self.kills < until:
            await asyncio.sleep(self._dice.uniform(0.2, 0.9) if self._pausing is None else self._dice.uniform(1.0, 3.0))
            if self._pausing is not None and self._pausing.done():
                self._pausing = self._pausing.result()
            if self._pausing is None and self.kills >= _FIRST_PAUSE + self.pauses * _PAUSE_EVERY:
                self._pausing = asyncio.create_task(self._pause())
            victims = _VICTIMS if self._pausing is None else _BYSTANDERS
            await self._strike(self._dice.choices(list(victims), list(victims.values()))[0], until)
        if self._pausing is not None:
            await self._pausing
            self._pausing = None

    async def _strike(self, victim: str, until: int) -> None:
        delay = self._dice.uniform(0.0, 0.4)
        aim: dict[str, Callable[[], Awaitable[list[str]]]] = {
            "leader": self._leader,
            "strike": self._asked,
            "sale": self._sold,
            "standby": self._standby,
            "both": self._both,
        }
        if victim == "apiserver":
            await self._fleet.kill_apiserver(delay)
            self._count("kube-apiserver")
            return
        names = await aim[victim]() if victim in aim else [victim]
        for name in names:
            if self.kills < until and await self._fleet.kill(name, delay):
                self._count(name)

    def _count(self, name: str) -> None:
        self.kills += 1
        self._churn.note(f"kill {self.kills}: {name}")

    # --- whom --------------------------------------------------------------------------------------------------------------

    async def _leader(self) -> list[str]:
        holder = await self._holder()
        return [holder if holder in OPERATORS else self._dice.choice(OPERATORS)]

    async def _standby(self) -> list[str]:
        (leader,) = await self._leader()
        return [name for name in OPERATORS if name != leader]

    async def _both(self) -> list[str]:
        return list(OPERATORS)

    async def _asked(self) -> list[str]:
        """The leader, a moment after somebody has asked for something that costs money."""
        wait = self._dice.uniform(0.0, 1.0)
        self._churn.bought.clear()
        try:
            async with asyncio.timeout(3):
                await self._churn.bought.wait()
        except TimeoutError:
            return await self._leader()
        await asyncio.sleep(wait)
        return await self._leader()

    async def _sold(self) -> list[str]:
        """The leader, just after the demo market has sold something and before it has told so."""
        wait, names, sales = self._dice.uniform(0.0, 0.45), await self._leader(), self._stage.demo_sales()
        await self._churn.provoke(DEMO)
        for _ in range(100):
            if self._stage.demo_sales() > sales:
                break
            await asyncio.sleep(0.03)
        await asyncio.sleep(wait)
        return names

    async def _holder(self) -> str:
        try:
            async with asyncio.timeout(3):
                lease = await self._cluster.get(_LEASE)
        except (ClusterError, TimeoutError):
            return ""
        return str(lease["spec"].get("holderIdentity") or "")

    # --- pauses --------------------------------------------------------------------------------------------------------------

    async def _pause(self) -> None:
        """SIGSTOP for the leader, until another one leads and a while longer; then it goes on, in the belief that it leads."""
        beyond = self._dice.uniform(0.0, 4.0)
        (leader,) = await self._leader()
        if await self._holder() != leader or not self._fleet.pause(leader):
            return  # nobody leads just now: another time
        self.pauses += 1
        self._churn.note(f"pause {leader}")
        self.takeovers += await self._taken_over(leader)
        await asyncio.sleep(beyond)
        self._fleet.go_on(leader)
        self._churn.note(f"{leader} goes on")

    async def _taken_over(self, leader: str) -> bool:
        """Whether another one leads within a minute."""
        end = time.monotonic() + _TAKEOVER_SECONDS
        while time.monotonic() < end:
            if await self._holder() not in ("", leader):
                return True
            await asyncio.sleep(0.3)
        return False
