"""Child processes: they leave no orphan, whatever ends their parent, and their logs stay bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cal_cli.controlplane import Process, ProcessFailed

PARENT = """
import sys, signal
from pathlib import Path
from cal_cli.controlplane import Process
child = Process("sleeper", ["/bin/sleep", "600"], Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
signal.pause()
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    eventually(lambda: child.name() == "sleep")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_stop_ends_the_whole_group_even_if_it_ignores_sigterm(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path / 'pid'}; wait; wait"
    process = Process("stubborn", ["/bin/sh", "-c", script], tmp_path / "log")
    process.start()
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    grandchild = int((tmp_path / "pid").read_text())
    process.stop(grace=0.2)
    assert process.exit_code() == -signal.SIGKILL
    eventually(lambda: not psutil.pid_exists(grandchild))


def test_one_that_dies_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = Process("brief", ["/bin/sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessFailed, match=r"(?s)brief ended with code 3.*no such luck"):
        process.wait_ready(lambda: False, timeout=30)


def test_the_last_words_of_a_go_program_are_its_panic_and_not_the_stack(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("panic: of an earlier run\n")
    script = "echo no space left on device; echo 'panic: no log'; echo; echo 'goroutine 1 [running]:'; seq 100; exit 2"
    process = Process("gopher", ["/bin/sh", "-c", script], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessFailed) as told:
        process.wait_ready(lambda: False, timeout=30)
    assert str(told.value) == "gopher ended with code 2:\nno space left on device\npanic: no log"
    assert process.tail(1) == "panic: no log"


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    process = Process("ghost", [str(tmp_path / "ghost")], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessFailed, match="No such file"):
        process.wait_ready(lambda: False, timeout=30)


def test_one_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    process = Process("slow", ["/bin/sleep", "600"], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessFailed, match="not ready after"):
        process.wait_ready(lambda: False, timeout=0.2)
    process.stop()


def test_a_log_that_grew_too_long_moves_aside_while_it_is_written(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    log = tmp_path / "log"
    script = "head -c 20000000 /dev/zero; echo full; read _ < gate; echo more"
    os.mkfifo(tmp_path / "gate")
    process = Process("talker", ["/bin/sh", "-c", f"cd {tmp_path}; {script}"], log)
    process.start()
    eventually(lambda: log.exists() and log.stat().st_size == 20000005)
    process.trim_log()
    assert log.stat().st_size == 0
    assert (tmp_path / "log.1").stat().st_size == 16 << 20
    (tmp_path / "gate").write_text("\n")
    eventually(lambda: log.read_text() == "more\n")
    process.stop()
