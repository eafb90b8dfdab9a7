"""One run of one workload, under its lock: from the start of the command to the last line of its log. A part of the shim.

A single loop in a single thread waits for output, signals and the lifeline. Everything below this process is its business: it is the
parent of all orphans there, so that nothing which the workload starts gets away.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cal_adapters.local import kernel
from cal_adapters.local.command import complaint, prepare
from cal_adapters.local.home import Home, Record, Request
from cal_adapters.local.segments import LogWriter

_PR_SET_CHILD_SUBREAPER: Final = 36
#: Seconds between two looks at memory and folder; and while something is being ended.
_TICK: Final = 1.0
_HURRY: Final = 0.05
#: How long somebody outside may hold the log pipe after the workload's end.
_DRAIN: Final = 2.0


class Run:
    """One run of one workload. Made under the lock."""

    def __init__(self, home: Home, request: Request, before: Record | None, lifeline: int | None) -> None:
        self._home, self._request, self._lifeline = home, request, lifeline
        self._folder = os.stat(home.lock).st_ino
        self._log = LogWriter(home)
        self._selector = selectors.DefaultSelector()
        self._child: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._sigterm = False
        #: Why it is being ended (stop, interrupt, memory), and when SIGKILL follows.
        self._why: str | None = None
        self._kill_at = self._watch_at = 0.0
        self._record = Record("starting", kernel.boot_id(), os.getpid(), kernel.start_ticks(os.getpid()) or 0)
        self._ports_before = before.ports if before else {}
        home.write_record(self._record)

    def whole(self) -> None:
        """From the start of the command to the last line of its log."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._listen()
        self._events(timeout=0)
        if self._why is None:
            self._start(self._ports_before)
        while self._child is not None and not self._over():
            self._events(_HURRY if self._why or self._status is not None else _TICK)
            self._reap()
            self._watch()
        if self._record.state != "ended":
            self._finish()

    # --- starting

    def _listen(self) -> None:
        """Signals wake the loop. Handlers, not SIG_IGN: what is ignored would stay ignored in the workload."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._selector.register(wake, selectors.EVENT_READ)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        if self._lifeline is not None:
            os.set_inheritable(self._lifeline, False)
            self._selector.register(self._lifeline, selectors.EVENT_READ)

    def _on_signal(self, number: int, _: object) -> None:
        self._sigterm = self._sigterm or number == signal.SIGTERM

    def _start(self, ports_before: Mapping[str, int]) -> None:
        """Starts the command. That it can't be started ends the instance."""
        output, into = os.pipe2(os.O_CLOEXEC)
        try:
            prepared = prepare(self._home, self._request, ports_before)
            self._child = prepared.start(into)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            self._end_record(code, "start", complaint(error, self._request))
            return
        finally:
            os.close(into)
        os.set_blocking(output, False)
        self._selector.register(output, selectors.EVENT_READ, data="log")
        pid, started = self._child.pid, time.time()
        self._save(state="running", started=started, pid=pid, pid_start=kernel.start_ticks(pid), ports=prepared.ports)

    # --- running

    def _events(self, timeout: float) -> None:
        """Waits for output, a signal or the lifeline's end."""
        for key, _ in self._selector.select(timeout):
            data = _read(key.fd)
            if key.data == "log" and data:
                self._log.write(data)
            if data == b"":
                self._selector.unregister(key.fd)
                if key.fd == self._lifeline:
                    self._end("interrupt")
        if self._sigterm:
            self._end("stop" if self._home.stopped() else "interrupt")

    def _reap(self) -> None:
        """Collects every child that has ended: ours, and orphans of the workload."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._child is not None and pid == self._child.pid:
                self._status = self._child.returncode = os.waitstatus_to_exitcode(status)

    def _watch(self) -> None:
        """Kills what has had its time, and what is left when the command has ended. Once a tick: memory, and the folder."""
        if self._status is not None or (self._why is not None and time.monotonic() >= self._kill_at):
            for pid in kernel.descendants(os.getpid()):
                _kill(pid, signal.SIGKILL)
        if time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + _TICK
        if self._why is None and self._request.memory and self._too_much_memory(self._request.memory):
            self._end("memory", grace=0)
        if not self._folder_is_ours():
            self._end("interrupt")

    def _too_much_memory(self, limit: int) -> bool:
        pids = kernel.descendants(os.getpid())
        # The cheap sum counts shared pages several times: the dear one is asked only when that looks too much.
        return kernel.resident_bytes(pids) > limit and kernel.proportional_bytes(pids) > limit

    def _folder_is_ours(self) -> bool:
        try:
            return os.stat(self._home.lock).st_ino == self._folder
        except FileNotFoundError:
            return False

    def _end(self, why: str, grace: float | None = None) -> None:
        """SIGTERM to all of the workload; SIGKILL follows after the grace time. The first reason counts, but a stop beats
        an interruption. Nothing happens to what has ended by itself."""
        if self._status is not None:
            return
        if self._why is not None:
            self._why = "stop" if (self._why, why) == ("interrupt", "stop") else self._why
            return
        self._why = why
        self._kill_at = time.monotonic() + (self._request.grace if grace is None else grace)
        for pid in kernel.descendants(os.getpid()):
            _kill(pid, signal.SIGTERM)

    def _over(self) -> bool:
        return self._status is not None and not kernel.descendants(os.getpid())

    # --- ending

    def _finish(self) -> None:
        """The rest of the log, then the outcome: the record is the last thing that is written under the lock."""
        deadline = time.monotonic() + _DRAIN
        while self._log_is_open() and time.monotonic() < deadline:
            self._events(_HURRY)
        self._log.close()
        if not self._folder_is_ours():
            return
        if self._was_interrupted() and not self._home.stopped():
            self._save(state="interrupted", ended=time.time(), message="interrupted, starts again")
        else:
            self._end_record(*_outcome(self._status, self._why, self._request.memory))

    def _was_interrupted(self) -> bool:
        """At a shutdown everybody gets SIGTERM at once: the command may be the first to end of it."""
        ended_by_it = self._status in (-signal.SIGTERM, 128 + signal.SIGTERM)
        return self._why == "interrupt" or (self._sigterm and self._why is None and ended_by_it)

    def _log_is_open(self) -> bool:
        return any(key.data == "log" for key in self._selector.get_map().values())

    def _end_record(self, code: int | None, cause: str, message: str) -> None:
        self._save(state="ended", ended=time.time(), exit_code=code, cause=cause, message=message)
        self._home.forget_env()

    def _save(self, **changes: object) -> None:
        self._record = replace(self._record, **changes)  # type: ignore[arg-type]
        self._home.write_record(self._record)


def _outcome(status: int | None, why: str | None, memory: int) -> tuple[int | None, str, str]:
    """Exit code as a shell tells it, cause, and a few words."""
    if why == "memory":
        return 137, "memory", f"used more than its {memory >> 20} MiB of memory"
    if status is None:
        return None, "stop", "stopped before it started"
    cause = "stop" if why in ("stop", "interrupt") else "exit"
    if status < 0:
        name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
        return 128 - status, cause, f"ended by {name}"
    return status, cause, f"exit code {status}"


def _read(descriptor: int) -> bytes | None:
    """What is there (b"": the other end is closed, None: nothing yet)."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def _kill(pid: int, number: int) -> None:
    """To a descendant just seen."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
