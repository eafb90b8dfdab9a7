"""One mark, one process: however many launch it, and wherever they are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from worlds.contract_local import LocalWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Mark, Observation, Readiness, State, Stop
from cal_adapters.local import kernel, shim, translate
from cal_adapters.local.adapter import LocalAdapter
from cal_adapters.local.home import Home
from cal_adapters.local.machine import Machine
from cal_adapters.local.store import Store
from cal_crds.names import new_token
from cal_crds.provider import LocalSettings

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
Reach = Callable[..., Awaitable[Observation]]


async def test_eight_processes_that_launch_at_once_start_one(
    here: LocalWorld, mark: Mark, reach: Reach, caller: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    callers = [caller("launch", mark.token) for _ in range(8)]
    outputs = await asyncio.gather(*(asyncio.to_thread(each.communicate) for each in callers))
    assert [each.returncode for each in callers] == [0] * 8
    assert {output for output, _ in outputs} == {f"{mark}\n"}
    await reach(str(mark), State.RUNNING)
    assert list(await here.billing()) == [mark]


async def test_a_caller_that_is_killed_at_any_moment_leaves_at_most_one_instance(
    tmp_path: Path, mark: Mark, caller: Callable[[str, str], subprocess.Popen[str]], eventually_async: Any
) -> None:
    """Every deed of a launch (opening, linking, locking, starting) is once the last one of its process."""
    walker = caller("walk", mark.token)
    output, _ = await asyncio.to_thread(walker.communicate)
    survived = int(output)
    print(f"killed at {survived - 1} moments")
    assert survived > 10
    for number in range(1, survived + 1):
        world = LocalWorld(tmp_path / str(number))
        try:
            await _one_or_none_then_one(world, Mark(INSTALLATION, f"{mark.token}{number}"), eventually_async)
        finally:
            world.clean_up()


async def _one_or_none_then_one(world: LocalWorld, mark: Mark, eventually_async: Any) -> None:
    local = LocalAdapter.open(world.context())
    found = await local.find(mark)
    assert len(found) <= 1
    if not found:
        assert list(await world.billing()) == []
        await local.launch(await world.request(mark))

    async def running() -> bool:
        seen = await local.observe(str(mark))
        assert seen.readiness is not Readiness.NO, seen
        return True

    await eventually_async(running)
    assert list(await world.billing()) == [mark]


async def test_the_operators_end_touches_nothing_and_its_successor_adopts(
    here: LocalWorld,
    local: LocalAdapter,
    mark: Mark,
    reach: Reach,
    caller: Callable[[str, str], subprocess.Popen[str]],
) -> None:
    first = caller("launch", mark.token)
    await asyncio.to_thread(first.communicate)
    before = (await reach(str(mark), State.RUNNING)).message
    second = LocalAdapter.open(here.context())
    assert [found.handle for found in await second.list_marked()] == [str(mark)]
    assert (await second.observe(str(mark))).message == before
    assert list(await here.billing()) == [mark]


async def test_a_late_launch_after_the_stop_starts_nothing(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Callable[..., Awaitable[Any]], gone: Callable[..., Any]
) -> None:
    instance = await launched(mark)
    await gone(instance.handle)
    again = await local.launch(await here.request(mark))
    assert again.handle == instance.handle
    assert (await local.observe(again.handle)).state is State.TERMINATED
    assert list(await here.billing()) == []
    assert list(await local.find(mark)) == []


async def test_a_stop_before_the_shim_has_its_lock_wins(here: LocalWorld, local: LocalAdapter, mark: Mark) -> None:
    """The request is written, the shim not started yet: what a caller killed in between leaves."""
    request, store = await here.request(mark), Store(here.state_dir)
    store.make(str(mark), lambda looks: translate.to_run(request, Machine.measure(LocalSettings()), [], os.environ))
    assert [found.handle for found in await local.find(mark)] == [str(mark)]
    assert await local.stop(str(mark)) is Stop.GONE
    store.tend(str(mark))
    assert (await local.observe(str(mark))).state is State.TERMINATED
    assert list(await here.billing()) == []


async def test_the_shim_itself_starts_nothing_that_is_over_or_taken(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Callable[..., Awaitable[Any]], gone: Callable[..., Any]
) -> None:
    """The last line of defence, also against a caller that looked before somebody else stopped it."""
    instance = await launched(mark)
    folder = here.state_dir / "local" / "instances" / str(mark)
    assert await asyncio.to_thread(run_shim, folder) == shim.LOCKED
    await gone(instance.handle)
    assert await asyncio.to_thread(run_shim, folder) == shim.OVER
    (folder / "stopped").unlink()
    assert await asyncio.to_thread(run_shim, folder) == shim.OVER, "it has ended"
    (folder / "record.json").unlink()
    Home(folder).entomb()
    assert await asyncio.to_thread(run_shim, folder) == shim.OVER, "it was stopped"
    assert list(await here.billing()) == []


def run_shim(folder: Path) -> int:
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-m", "cal_adapters.local.shim", str(folder)], env=environment, check=False
    ).returncode


async def test_a_killed_shim_takes_its_command_along_and_is_told_as_lost(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Callable[..., Awaitable[Any]], reach: Reach
) -> None:
    instance = await launched(mark)
    await here.lose(mark)
    seen = await reach(instance.handle, State.LOST)
    assert "killed" in seen.message
    assert list(await here.billing()) == []


async def test_what_outlives_a_killed_shim_is_ended_by_the_stop(
    here: LocalWorld,
    local: LocalAdapter,
    mark: Mark,
    launched: Callable[..., Awaitable[Any]],
    gone: Callable[[str], Awaitable[None]],
    eventually: Callable[..., Any],
) -> None:
    instance = await launched(mark)
    here.order(mark, "spawn", "")
    eventually(lambda: len(kernel.bearing("CAL_MARK", str(mark))) == 2)
    await here.lose(mark)
    Home(here.state_dir / "local" / "instances" / str(mark)).entomb()
    assert [found.handle for found in await local.find(mark)] == [instance.handle], "its grandchild still runs"
    await gone(instance.handle)
    assert kernel.bearing("CAL_MARK", str(mark)) == []
    assert list(await local.find(mark)) == []


async def test_two_marks_are_two_processes(
    here: LocalWorld, mark: Mark, launched: Callable[..., Awaitable[Any]]
) -> None:
    other = Mark(INSTALLATION, new_token())
    await launched(mark)
    await launched(other)
    assert sorted(map(str, await here.billing())) == sorted([str(mark), str(other)])


def test_a_lock_is_held_by_one_process_and_named(here: LocalWorld) -> None:
    here.state_dir.mkdir(parents=True)
    path = here.state_dir / "lock"
    assert kernel.lock_holder(path) is None
    holder = subprocess.Popen(["python3", "-c", f"import fcntl,time; f=open({str(path)!r},'w'); fcntl.lockf(f, 2); print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert kernel.lock_holder(path) == holder.pid
        assert kernel.take_lock(path) is None
        assert kernel.signal_holder(path, signal.SIGKILL)
        holder.wait()
        assert kernel.lock_holder(path) is None
        assert not kernel.signal_holder(path, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate()
