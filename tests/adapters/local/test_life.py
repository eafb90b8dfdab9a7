"""How a local workload ends, is interrupted, and starts again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from worlds.contract_local import LocalWorld

from cal_adapters.contract import Instance, Mark, Observation, State
from cal_adapters.local import kernel
from cal_adapters.local.adapter import LocalAdapter
from cal_adapters.local.home import Home
from cal_crds.workload import Workload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
Launched = Callable[..., Awaitable[Instance]]
Reach = Callable[..., Awaitable[Observation]]
Gone = Callable[[str], Awaitable[None]]


def home_of(here: LocalWorld, mark: Mark) -> Home:
    return Home(here.state_dir / "local" / "instances" / str(mark))


def processes_of(mark: Mark) -> list[int]:
    return kernel.bearing("CAL_MARK", str(mark))


async def test_a_stop_ends_grandchildren_with_a_session_of_their_own(
    here: LocalWorld, mark: Mark, launched: Launched, gone: Gone, eventually: Callable[..., Any]
) -> None:
    instance = await launched(mark)
    here.order(mark, "spawn", "")
    eventually(lambda: len(processes_of(mark)) == 2)
    await gone(instance.handle)
    assert processes_of(mark) == []


async def test_what_a_command_leaves_behind_ends_with_it(
    here: LocalWorld, mark: Mark, launched: Launched, reach: Reach, eventually: Callable[..., Any]
) -> None:
    instance = await launched(mark)
    here.order(mark, "spawn", "")
    eventually(lambda: len(processes_of(mark)) == 2)
    await here.end(mark, 0)
    await reach(instance.handle, State.SUCCEEDED)
    assert processes_of(mark) == []


async def test_a_command_that_ignores_sigterm_is_killed_after_its_grace(
    here: LocalWorld, local: LocalAdapter, mark: Mark, eventually_async: Callable[..., Any], gone: Gone
) -> None:
    stubborn = Workload(command=["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"])
    instance = await local.launch(await here.request(mark, workload=stubborn))

    async def deaf() -> bool:
        return list(await local.logs(instance.handle, 1)) == ["deaf"]

    await eventually_async(deaf)
    await gone(instance.handle)
    seen = await local.observe(instance.handle)
    assert (seen.state, seen.exit_code) == (State.TERMINATED, 137)
    assert processes_of(mark) == []


async def test_when_the_lifeline_breaks_it_is_interrupted_and_then_started_again(
    here: LocalWorld,
    local: LocalAdapter,
    mark: Mark,
    launched: Launched,
    reach: Reach,
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after kill -9 of `calctl up`, which holds the other end of the pipe."""
    read_end, write_end = os.pipe()
    monkeypatch.setenv("CAL_LIFELINE_FD", str(read_end))
    instance = await launched(mark)
    first, port = processes_of(mark), (await local.observe(instance.handle)).endpoint
    os.close(write_end)
    eventually(lambda: kernel.lock_holder(home_of(here, mark).lock) is None)
    assert processes_of(mark) == []
    record = home_of(here, mark).record()
    assert record is not None
    assert record.state == "interrupted"
    assert [found.handle for found in await local.find(mark)] == [instance.handle]

    os.close(read_end)
    monkeypatch.delenv("CAL_LIFELINE_FD")
    assert (await local.observe(instance.handle)).state in (State.STARTING, State.RUNNING)
    seen = await reach(instance.handle, State.RUNNING)
    assert processes_of(mark) != first
    assert seen.endpoint == port
    assert list(await here.billing()) == [mark]


async def test_a_broken_lifeline_lets_nothing_start(
    here: LocalWorld, local: LocalAdapter, mark: Mark, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    monkeypatch.setenv("CAL_LIFELINE_FD", str(read_end))
    await local.launch(await here.request(mark))
    home = home_of(here, mark)
    eventually(lambda: kernel.lock_holder(home.lock) is None)
    os.close(read_end)
    record = home.record()
    assert record is not None
    assert (record.state, record.pid) == ("interrupted", None)


async def test_a_lifeline_that_is_no_pipe_is_told_and_left_alone(
    mark: Mark, launched: Launched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CAL_LIFELINE_FD", "12345")
    await launched(mark)
    assert "CAL_LIFELINE_FD" in caplog.text


def stop_all(here: LocalWorld) -> str:
    argv = [sys.executable, "-m", "cal_adapters.local", "stop-all", str(here.state_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


async def test_stop_all_interrupts_and_the_next_look_starts_again(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Launched, reach: Reach
) -> None:
    instance = await launched(mark)
    assert await asyncio.to_thread(stop_all, here) == "interrupted: 1\n"
    assert processes_of(mark) == []
    await reach(instance.handle, State.RUNNING)
    assert list(await here.billing()) == [mark]


async def test_stop_all_does_not_revive_what_was_stopped(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Launched, gone: Gone
) -> None:
    instance = await launched(mark)
    await gone(instance.handle)
    assert await asyncio.to_thread(stop_all, here) == "interrupted: 0\n"
    assert (await local.observe(instance.handle)).state is State.TERMINATED


async def test_a_shutdown_that_ends_the_command_first_is_an_interruption_all_the_same(
    here: LocalWorld, mark: Mark, launched: Launched, reach: Reach, eventually: Callable[..., Any]
) -> None:
    """SIGTERM to all processes at once; the shim is held up, so that it sees its command's end first."""
    instance = await launched(mark)
    home = home_of(here, mark)
    (command,) = processes_of(mark)
    kernel.signal_holder(home.lock, signal.SIGSTOP)
    os.kill(command, signal.SIGTERM)
    eventually(lambda: not processes_of(mark))
    kernel.signal_holder(home.lock, signal.SIGTERM)
    kernel.signal_holder(home.lock, signal.SIGCONT)
    eventually(lambda: kernel.lock_holder(home.lock) is None)
    record = home.record()
    assert record is not None
    assert record.state == "interrupted"
    await reach(instance.handle, State.RUNNING)


async def test_a_command_that_somebody_else_ends_has_failed(mark: Mark, launched: Launched, reach: Reach) -> None:
    instance = await launched(mark)
    (command,) = processes_of(mark)
    os.kill(command, signal.SIGTERM)
    seen = await reach(instance.handle, State.FAILED)
    assert (seen.exit_code, seen.message) == (143, "ended by SIGTERM")


async def test_a_follower_of_what_is_forgotten_comes_to_an_end(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Launched
) -> None:
    instance = await launched(mark)
    await here.say(mark, "begun")
    async with aclosing(local.follow(instance.handle, 10)) as lines:
        assert await asyncio.wait_for(anext(lines), 30) == "begun"
        shutil.rmtree(here.state_dir)
        assert await asyncio.wait_for(anext(lines, "the end"), 30) == "the end"


async def test_after_a_restart_of_the_machine_it_starts_again(
    here: LocalWorld, mark: Mark, launched: Launched, reach: Reach
) -> None:
    instance = await launched(mark)
    await here.lose(mark)
    file = home_of(here, mark).path / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "an earlier one"}))
    await reach(instance.handle, State.RUNNING)
    assert list(await here.billing()) == [mark]


async def test_a_record_cut_short_by_a_crash_does_not_stop_it_from_starting(
    here: LocalWorld, mark: Mark, launched: Launched, reach: Reach
) -> None:
    instance = await launched(mark)
    await here.lose(mark)
    (home_of(here, mark).path / "record.json").write_text('{"state": "run')
    await reach(instance.handle, State.RUNNING)
    assert list(await here.billing()) == [mark]


async def test_without_its_folder_it_ends(
    here: LocalWorld, mark: Mark, launched: Launched, eventually: Callable[..., Any]
) -> None:
    await launched(mark)
    shutil.rmtree(here.state_dir)
    eventually(lambda: not processes_of(mark))


async def test_what_ended_long_ago_is_forgotten_with_its_folder(
    here: LocalWorld, local: LocalAdapter, mark: Mark, launched: Launched, gone: Gone
) -> None:
    instance = await launched(mark)
    await gone(instance.handle)
    home = home_of(here, mark)
    await local.list_marked()
    assert home.path.exists(), "its log may still be wanted"
    file = home.path / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ended": 1.0}))
    await local.list_marked()
    assert not home.path.exists()


async def test_variables_lie_in_files_of_their_owner_and_go_with_the_end(
    here: LocalWorld, mark: Mark, launched: Launched, gone: Gone
) -> None:
    instance = await launched(mark)
    home = home_of(here, mark)
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert (home.path / "env.json").stat().st_mode & 0o777 == 0o600
    holding = [path.name for path in home.path.iterdir() if path.is_file() and b"hunter2" in path.read_bytes()]
    assert holding == ["env.json"]
    await gone(instance.handle)
    assert not (home.path / "env.json").exists()


async def test_the_account_is_the_state_directory(here: LocalWorld, local: LocalAdapter, tmp_path: Path) -> None:
    same, other = LocalAdapter.open(here.context()), LocalAdapter.open(LocalWorld(tmp_path / "other").context())
    account = (await local.check()).id
    assert account
    assert (await same.check()).id == account
    assert (await other.check()).id != account
