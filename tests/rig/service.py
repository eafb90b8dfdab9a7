"""A service of ours as a real process on a free port, with its log in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from rig.waiting import eventually

from cal_cli.controlplane.plane import free_ports

_REPO = Path(__file__).resolve().parents[2]


def environment(*roots: str) -> dict[str, str]:
    """For processes of ours: nothing of the caller's settings, and these source roots alone, so that no other is needed unseen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAL_", "KUBE"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(str(_REPO / root) for root in roots)}


def command(module: str, *flags: str) -> list[str]:
    """The service's command line; its warnings are errors."""
    return [sys.executable, "-W", "error", "-m", module, *flags]


@dataclass
class Service:
    """One that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, if it still runs; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def answers(self, path: str) -> bool:
        """Whether a GET is a 200 now. A service that has ended is an error, with its log."""
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        try:
            return httpx.get(self.url + path, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def launch(
    module: str, *flags: str, env: dict[str, str], log: Path, port: int | None = None, ready: str = "/readyz"
) -> Service:
    """Start `python -m module --port=... flags`; returns once `ready` is a 200."""
    number = port or free_ports(1)[0]
    with log.open("wb") as output:
        argv = command(module, f"--port={number}", *flags)
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    service = Service(process, number, log)
    try:
        eventually(lambda: service.answers(ready), timeout=60)
    except BaseException:
        service.stop(signal.SIGKILL)
        raise
    return service
