"""What the tests of `local` share: the machine as a world, its adapter, and callers in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds.contract_local import LocalWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Instance, Mark, Observation, Readiness, State, Stop
from cal_adapters.local.adapter import LocalAdapter
from cal_crds.names import new_token

CALLERS = Path(__file__).parents[2] / "worlds" / "local_callers.py"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[LocalWorld]:
    """A state directory of its own on this machine; nothing is left running."""
    world = LocalWorld(tmp_path)
    yield world
    world.clean_up()


@pytest.fixture
async def local(here: LocalWorld, anyio_backend: str) -> AsyncIterator[LocalAdapter]:
    adapter = LocalAdapter.open(here.context())
    assert isinstance(adapter, LocalAdapter)
    yield adapter
    await adapter.close()


@pytest.fixture
def mark() -> Mark:
    return Mark(INSTALLATION, new_token())


@pytest.fixture
def reach(local: LocalAdapter, eventually_async: Callable[..., Any]) -> Callable[..., Awaitable[Observation]]:
    """await reach(handle, *states): observes until it is in one of the states (and, if that is Running, listens)."""

    async def reached(handle: str, *states: State) -> Observation:
        async def look() -> Observation | None:
            seen = await local.observe(handle)
            serving = seen.state is not State.RUNNING or seen.readiness is not Readiness.NO
            return seen if seen.state in states and serving else None

        found: Observation = await eventually_async(look)
        return found

    return reached


@pytest.fixture
def launched(
    here: LocalWorld, local: LocalAdapter, reach: Callable[..., Awaitable[Observation]]
) -> Callable[..., Awaitable[Instance]]:
    """await launched(mark, **changes): an instance that runs and listens (if it has ports)."""

    async def launch(mark: Mark, **changes: Any) -> Instance:
        instance = await local.launch(await here.request(mark, **changes))
        await reach(instance.handle, State.RUNNING)
        return instance

    return launch


@pytest.fixture
def gone(local: LocalAdapter, eventually_async: Callable[..., Any]) -> Callable[[str], Awaitable[None]]:
    """await gone(handle): stops until it is proven."""

    async def stopped(handle: str) -> None:
        async def proven() -> bool:
            return await local.stop(handle) is Stop.GONE

        await eventually_async(proven)

    return stopped


@pytest.fixture
def caller(here: LocalWorld, tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """caller("launch", token): another process that launches. Its output is piped."""
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start(command: str, token: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(CALLERS), command, str(tmp_path), token]
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
