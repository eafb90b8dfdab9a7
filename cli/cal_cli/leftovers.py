"""Ends what a supervisor that was killed could not end itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

from cal_cli.statedir import StateDir

_GRACE = 5.0
_INTERRUPT = 60.0


def end_leftovers(state: StateDir, say: Callable[[str], None]) -> None:
    """Processes that are recorded as an earlier supervisor's children end now. They were told to already by the kernel."""
    left = state.leftovers()
    if not left:
        return
    say(f"ending what an earlier run left behind: {', '.join(f'{_name(p)} (pid {p.pid})' for p in left)}")
    for process in left:
        _quietly(process.terminate)
    _, stubborn = psutil.wait_procs(left, timeout=_GRACE)
    for process in stubborn:
        _quietly(process.kill)
    psutil.wait_procs(stubborn, timeout=_GRACE)


def interrupt_local(state: StateDir, say: Callable[[str], None]) -> None:
    """Stops the processes that the local adapter started; the next `up` starts them again."""
    argv = [sys.executable, "-P", "-m", "cal_adapters.local", "stop-all", str(state.adapters)]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=_INTERRUPT, check=False)
    except subprocess.TimeoutExpired:
        say(f"local workloads did not stop in {_INTERRUPT:.0f} s")
        return
    if answer.returncode != 0:
        say(f"local workloads could not be stopped: {answer.stderr.strip().splitlines()[-1:]}")


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "process"


def _quietly(action: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):  # gone is what we want
        action()
