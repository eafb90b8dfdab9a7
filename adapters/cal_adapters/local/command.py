"""Turns a request into a running command: ports, environment, limits. Standard library only: a part of the shim.

What holds: CPUs by affinity (whole CPUs, inherited by all children); memory per process by RLIMIT_DATA, which refuses an allocation
at once, and over all its processes by the shim's watch; and the workload is the first that the kernel takes when the machine
runs out of memory. RLIMIT_AS isn't used: GPU libraries, Go and the JVM reserve address space that they never touch.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cal_adapters.local import kernel
from cal_adapters.local.home import MARK_VARIABLE, Home, Request

_PR_SET_PDEATHSIG: Final = 1
_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_LOWEST_PORT: Final = 20000
_LIBC: Final = ctypes.CDLL(None)


class NoPort(OSError):
    """No port is free."""


@dataclass(frozen=True)
class Prepared:
    """A command that can be started. `ports`: what was handed over, by name."""

    request: Request
    argv: list[str]
    env: dict[str, str]
    directory: str
    ports: dict[str, int]

    def start(self, output: int) -> subprocess.Popen[bytes]:
        """Raises OSError or SubprocessError; `complaint` says it for people."""
        return subprocess.Popen(
            self.argv,
            env=self.env,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=self._before_exec,  # noqa: PLW1509  (the shim has one thread)
        )

    def _before_exec(self) -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # if the shim is killed, so is the command
        Path("/proc/self/oom_score_adj").write_text("500")
        if self.request.cpus:
            os.sched_setaffinity(0, self.request.cpus)
        if self.request.memory and not self.request.gpus:
            resource.setrlimit(resource.RLIMIT_DATA, (self.request.memory, self.request.memory))


def prepare(home: Home, request: Request, before: Mapping[str, int]) -> Prepared:
    """The command with its ports chosen (the same as `before` where they are free) and written into env and arguments."""
    ports = _ports(home, request, before)
    env = {**home.env(), **_port_variables(request, ports), MARK_VARIABLE: request.mark}
    if request.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(request.gpus)
    argv = [_expand(part, env) for part in request.argv]
    return Prepared(request, argv, env, request.working_dir or str(home.work), ports)


def _port_variables(request: Request, ports: Mapping[str, int]) -> dict[str, str]:
    named = {f"PORT_{wish.name.upper().replace('-', '_')}": str(ports[wish.name]) for wish in request.ports}
    return {**named, "PORT": str(ports[request.ports[0].name])} if request.ports else named


def _expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as in a Kubernetes command: unknown names stay as they are, `$$` is a dollar sign."""
    return _REFERENCE.sub(lambda found: "$" if found[1] is None else env.get(found[1], found[0]), text)


def complaint(error: Exception, request: Request) -> str:
    """Why the command couldn't be started, for people."""
    if isinstance(error, FileNotFoundError):
        if request.working_dir and error.filename == request.working_dir:
            return f"working directory not found: {request.working_dir}"
        return f"command not found: {error.filename or request.argv[0]}"
    return f"the command can't be started: {error}"


# --- ports


def _ports(home: Home, request: Request, before: Mapping[str, int]) -> dict[str, int]:
    """A free port for each wish. The lock on its file keeps other shims off it for as long as this one lives."""
    claims = home.path.parent.parent / "ports"
    claims.mkdir(exist_ok=True)
    chosen: dict[str, int] = {}
    for wish in request.ports:
        candidates = [before[wish.name]] if wish.name in before else []
        low, high = _range()
        candidates += random.sample(range(low, high), k=min(200, high - low))
        free = (port for port in candidates if port not in chosen.values() and _claim(claims, port))
        port = next(free, None)
        if port is None:
            raise NoPort("no free port")
        chosen[wish.name] = port
    return chosen


def _range() -> tuple[int, int]:
    """Below the ports that the kernel gives to outgoing connections: those would be taken at random."""
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return (_LOWEST_PORT, lowest_ephemeral) if lowest_ephemeral > _LOWEST_PORT + 1000 else (1024, 65536)


def _claim(claims: Path, port: int) -> bool:
    """Whether nobody listens there and no other shim has claimed it. A lock that was taken stays with this process."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return kernel.take_lock(claims / str(port)) is not None
