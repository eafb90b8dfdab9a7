"""The processes under attack: two operators, the api and the relay out of the fork server, and a kube-apiserver. What ends is started anew."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chaos import zygote

from cal_cli.controlplane import ControlPlane

OPERATORS: Final = ("operator-0", "operator-1")
API, RELAY = "api", "relay"
#: The limit of one line of the fork server's.
_LINE: Final = 1 << 16


@dataclass
class Member:
    """One process that is kept running. `delay`: seconds from its end to its next start."""

    name: str
    module: str
    argv: list[str]
    log: Path
    pid: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    code: int | None = None
    delay: float = 0.2
    paused: bool = False


class Fleet:
    """Starts, kills, pauses. `exits` counts ends that nobody here asked for."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.members: dict[str, Member] = {}
        self.kills: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self._server: asyncio.subprocess.Process | None = None
        #: Whose start was asked for, in order, and what tells that it has begun.
        self._asked: deque[tuple[Member, asyncio.Event]] = deque()
        self._running: dict[int, Member] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # --- life ------------------------------------------------------------------------------------------------------------

    async def start(self, members: list[tuple[str, str, list[str]]]) -> None:
        """Start the fork server, then (name, module, arguments) each."""
        log = os.open(self.folder / "zygote.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", zygote.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=_LINE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        os.close(log)
        self._tasks.append(asyncio.create_task(self._listen()))
        for name, module, argv in members:
            self.members[name] = Member(name, module, argv, self.folder / f"{name}.log")
            self._tasks.append(asyncio.create_task(self._keep(self.members[name])))

    async def stop(self) -> None:
        """End the fork server, and with it what it started."""
        for task in self._tasks[1:]:
            task.cancel()
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            await self._server.wait()
        self._tasks[0].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        assert self._server is not None and self._server.stdout is not None
        while line := await self._server.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            if "pid" in said:
                member, begun = self._asked.popleft()
                member.pid, self._running[said["pid"]] = said["pid"], member
                begun.set()
            else:
                self._note_end(self._running.pop(said["ended"]), said["code"])
        raise RuntimeError(f"the fork server ended: {(self.folder / 'zygote.log').read_text()[-2000:]}")

    def _note_end(self, member: Member, code: int) -> None:
        member.code, member.pid, member.paused = code, None, False
        if code != -signal.SIGKILL:
            self.exits[f"{member.name} {code}"] += 1
        member.ended.set()

    async def _keep(self, member: Member) -> None:
        assert self._server is not None and self._server.stdin is not None
        while True:
            order = {"module": member.module, "argv": member.argv, "log": str(member.log)}
            begun = asyncio.Event()
            self._asked.append((member, begun))
            member.ended.clear()
            member.delay = 0.2
            self._server.stdin.write(json.dumps(order).encode() + b"\n")
            await begun.wait()
            await member.ended.wait()
            await asyncio.sleep(member.delay)

    # --- harm --------------------------------------------------------------------------------------------------------------

    async def kill(self, name: str, delay: float = 0.2) -> bool:
        """SIGKILL; it starts again `delay` seconds later. False if it wasn't running."""
        member = self.members[name]
        if member.pid is None:
            return False
        member.delay = delay
        os.kill(member.pid, signal.SIGKILL)
        await member.ended.wait()
        if member.code != -signal.SIGKILL:
            return False  # it ended by itself at that moment
        self.kills[member.module] += 1
        return True

    def pause(self, name: str) -> bool:
        """SIGSTOP. False if it isn't running."""
        member = self.members[name]
        if member.pid is None or member.paused:
            return False
        os.kill(member.pid, signal.SIGSTOP)
        member.paused = True
        return True

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        member = self.members[name]
        if member.pid is not None and member.paused:
            os.kill(member.pid, signal.SIGCONT)
            member.paused = False

    async def kill_apiserver(self, delay: float) -> None:
        """SIGKILL for the kube-apiserver; returns when it is there again. etcd stays: what it has acknowledged is kept."""
        server = self.plane.apiserver
        server.signal(signal.SIGKILL)
        await asyncio.to_thread(server.stop)
        self.kills["kube-apiserver"] += 1
        await asyncio.sleep(delay)
        server.start()
        while not await asyncio.to_thread(self.plane.apiserver_ready):
            if not self.plane.etcd.alive():
                raise RuntimeError(f"etcd ended, and nobody here did that:\n{self.plane.etcd.tail()}")
            if not server.alive():
                server.start()
            await asyncio.sleep(0.1)
