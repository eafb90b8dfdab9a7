"""The world of `local`: the machine itself. Workloads are real processes, and time is real."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb

from cal_adapters.contract import Context, EnvValue, LaunchRequest, Mark
from cal_adapters.local import create, kernel
from cal_adapters.local.home import MARK_VARIABLE
from cal_crds.node import Offer
from cal_crds.pool import Tenancy
from cal_crds.provider import LocalSettings, ProviderSpec
from cal_crds.workload import Port, Resources, ServedModel, Workload

WORKLOAD: Final = Path(__file__).with_name("local_workload.py")
_WORLD_VARIABLE: Final = "CAL_TEST_CONTROL"
_CPUS: Final = 2


class LocalWorld:
    """A state directory of its own; its processes are known by a variable that names it."""

    name = "local"
    lacks: Mapping[Power, str] = {
        Power.PRICES: "this machine costs nothing, so no price can rise above a cap",
        Power.CREDENTIALS: "there are no credentials for one's own machine",
        Power.STRANGE_STATES: "the kernel's words are a closed list",
    }
    #: No wire, so no faults on it; that a caller is killed half-way has tests of its own.
    faults: Mapping[Verb, Collection[Fault]] = {}
    crowd = 3

    def __init__(self, root: Path) -> None:
        self.state_dir, self._control, self._numbers = root / "state", root / "control", itertools.count(1)

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        settings = ProviderSpec(adapter="local", local=LocalSettings(max_cpu=_CPUS))
        return Context("local", settings, installation, state_dir=self.state_dir)

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        variables = {"CAL_TEST_SECRET": SECRET, _WORLD_VARIABLE: str(self._orders(mark))}
        small = Resources(cpu="100m", memory="256Mi")
        command = [sys.executable, str(WORKLOAD)]
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": "default",
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": Offer(id="local-cpu"),
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": 0,
            "max_price_per_hour": Decimal(0),
            "model": ServedModel(name="tiny"),
            "workload": Workload(command=command, ports=[Port(name="http", port=8000)], resources=small),
            "env": [EnvValue(name, value, secret=name == "CAL_TEST_SECRET") for name, value in variables.items()],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return str(Mark(INSTALLATION, "nosuchtoken"))

    async def billing(self) -> Collection[Mark | None]:
        """The mark of every process of this world that wasn't started by another one of the same mark."""
        marks = {pid: mark for pid in kernel.processes() if (mark := self._mark_of(pid)) is not None}
        return [mark for pid, mark in marks.items() if marks.get(kernel.parent(pid) or 0) != mark]

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(0.05)

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        raise AssertionError("never called: no faults")

    async def add_foreign(self) -> None:
        adapter = create(self.context(installation=FOREIGN))
        await adapter.launch(await self.request(Mark(FOREIGN, "foreigntoken")))
        while Mark(FOREIGN, "foreigntoken") not in await self.billing():
            await self.advance(1)

    async def revoke_credentials(self) -> None:
        raise AssertionError("never called: in `lacks`")

    async def reprice(self, offer_id: str, factor: int) -> None:
        raise AssertionError("never called: in `lacks`")

    async def end(self, mark: Mark, exit_code: int) -> None:
        self.order(mark, "exit", str(exit_code))

    async def lose(self, mark: Mark) -> None:
        """What the loss of a machine is to one's own machine: the shim is killed."""
        lock = self.state_dir / "local" / "instances" / str(mark) / "lock"
        assert kernel.signal_holder(lock, signal.SIGKILL)
        while kernel.lock_holder(lock) is not None:
            await self.advance(1)

    async def strange_state(self, mark: Mark) -> None:
        raise AssertionError("never called: in `lacks`")

    async def say(self, mark: Mark, line: str) -> None:
        self.order(mark, f"say-{next(self._numbers):04d}", line)

    def order(self, mark: Mark, name: str, text: str) -> None:
        """A file that the workload obeys; it appears whole."""
        folder = self._orders(mark)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{name}"
        draft.write_text(text)
        draft.rename(folder / name)

    def clean_up(self) -> None:
        """Nothing of this world is left running."""
        shutil.rmtree(self.state_dir, ignore_errors=True)
        for pid in kernel.processes():
            if self._mark_of(pid) is not None:
                os.kill(pid, signal.SIGKILL)

    def _orders(self, mark: Mark) -> Path:
        return self._control / str(mark)

    def _mark_of(self, pid: int) -> Mark | None:
        variables = kernel.environment(pid)
        here = variables.get(_WORLD_VARIABLE, "").startswith(f"{self._control}/")
        return Mark.read(variables.get(MARK_VARIABLE, "")) if here else None


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalWorld]:
    world = LocalWorld(tmp_path)
    try:
        yield world
    finally:
        world.clean_up()
