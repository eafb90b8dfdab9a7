"""Keeps a set of processes running: restarts what dies, tells what happens, and never leaves one behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from cal_cli.controlplane import Process
from cal_cli.statedir import Member

Say = Callable[[str], None]

_TICK = 0.2
_FIRST_DELAY = 0.5
_LAST_DELAY = 30.0
#: Whoever ran this long has recovered: the next failure starts again with a short delay.
_STEADY = 60.0
_TRIM_EVERY = 30.0


@dataclass
class Supervised:
    """A process and how it has been doing."""

    process: Process
    ready: Callable[[], bool]
    grace: float = 15.0
    restarts: int = 0
    delay: float = _FIRST_DELAY
    due: float | None = None
    started: float = 0.0

    def start(self) -> None:
        self.process.start()
        self.started, self.due = time.monotonic(), None

    def member(self) -> Member:
        """Its record for the state file."""
        pid = self.process.pid or 0
        try:
            created = psutil.Process(pid).create_time() if pid else 0.0
        except psutil.NoSuchProcess:
            created = 0.0
        return Member(self.process.name, pid, created, self.restarts)


class Supervisor:
    """Owns the processes in their order of start; they stop in the reverse order."""

    def __init__(self, say: Say, changed: Callable[[list[Member]], None]) -> None:
        self._say, self._changed = say, changed
        self.members: list[Supervised] = []

    def add(self, member: Supervised) -> None:
        """Starts it and takes charge of it."""
        self.members.append(member)
        member.start()
        self._record()

    def watch(self, stop: threading.Event) -> None:
        """Restarts what dies until `stop` is set. In the main thread: the kernel ties children to the thread that forks."""
        trimmed = time.monotonic()
        while not stop.wait(_TICK):
            now = time.monotonic()
            for member in self.members:
                self._look_after(member, now)
            if now - trimmed > _TRIM_EVERY:
                trimmed = now
                for member in self.members:
                    member.process.trim_log()

    def stop(self, names: set[str]) -> None:
        """SIGTERM to all of `names` at once, then waits for each; SIGKILL after its grace."""
        chosen = [member for member in self.members if member.process.name in names]
        for member in chosen:
            member.process.terminate()
        for member in chosen:
            member.process.stop(member.grace)
        self._record()

    def _look_after(self, member: Supervised, now: float) -> None:
        if member.due is not None:
            if now >= member.due:
                member.restarts += 1
                member.start()
                self._record()
        elif not member.process.alive():
            if now - member.started > _STEADY:
                member.delay = _FIRST_DELAY
            member.due = now + member.delay
            last = member.process.tail(1)
            name, code = member.process.name, member.process.exit_code()
            self._say(f"{name} ended with code {code}; starting it again in {member.delay:g} s. Its last words: {last}")
            member.delay = min(member.delay * 2, _LAST_DELAY)

    def _record(self) -> None:
        self._changed([member.member() for member in self.members])
