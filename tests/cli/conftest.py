"""calctl as a user runs it: the real command in a process of its own, on a state directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cal_cli.controlplane.plane import free_ports

Result = subprocess.CompletedProcess[str]


@dataclass
class Calctl:
    """calctl on one state directory."""

    state: Path
    api_port: int
    relay_port: int
    env: dict[str, str]

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "cal_cli"]

    @property
    def ports(self) -> list[str]:
        """Its ports; and no provider that lies outside this machine, whose real address a test must not ask."""
        return [f"--api-port={self.api_port}", f"--relay-port={self.relay_port}", "--offline"]

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 150, stdin: str | None = None) -> Result:
        """Runs calctl to its end. Fails the test on an exit code other than 0 unless check=False."""
        result = subprocess.run(
            [*self.argv, *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            check=False,
        )
        assert not check or result.returncode == 0, f"calctl {' '.join(arguments)}: {result.stderr}\n{result.stdout}"
        return result

    def up(self, *arguments: str) -> Result:
        return self("up", "--detach", *self.ports, *arguments)

    def members(self) -> dict[str, dict[str, Any]]:
        """The records of the processes under the supervisor."""
        return {member["name"]: member for member in self.record()["members"]}

    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / "state.json").read_text())
        return content

    def processes(self) -> list[psutil.Process]:
        """Every process that has the state directory in its command line or environment: nothing of ours can hide."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and self._ours(process)]

    def _ours(self, process: psutil.Process) -> bool:
        try:
            words = [*process.cmdline(), process.environ().get("CAL_STATE_DIR", "")]
            return process.status() != psutil.STATUS_ZOMBIE and any(str(self.state) in word for word in words)
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def _maker(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Calctl]:
    def make() -> Calctl:
        state = tmp_path_factory.mktemp("calctl") / "state"
        api_port, relay_port = free_ports(2)
        env = {k: v for k, v in os.environ.items() if not k.startswith("CAL_") and k != "KUBECONFIG"}
        env |= {"CAL_STATE_DIR": str(state), "PATH": f"{_links(state.parent, binaries)}:{env['PATH']}"}
        return Calctl(state, api_port, relay_port, env)

    return make


@pytest.fixture
def new_calctl(_maker: Callable[[], Calctl]) -> Iterator[Callable[[], Calctl]]:
    """Makes calctls with state directories of their own; whatever they started ends with the test."""
    made: list[Calctl] = []

    def make() -> Calctl:
        made.append(_maker())
        return made[-1]

    yield make
    for calctl in made:
        _end(calctl)


def _links(directory: Path, binaries: dict[str, Path]) -> Path:
    """A folder for PATH with the programs that the whole run uses."""
    folder = directory / "bin"
    folder.mkdir()
    for name in ("kube-apiserver", "etcd", "kubectl"):
        (folder / name).symlink_to(binaries[name])
    return folder


def _end(calctl: Calctl) -> None:
    if calctl.state.is_dir():
        calctl("down", check=False)
    for process in calctl.processes():
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def calctl(new_calctl: Callable[[], Calctl]) -> Calctl:
    """A calctl with nothing running yet."""
    return new_calctl()


@pytest.fixture(scope="module")
def system(_maker: Callable[[], Calctl]) -> Iterator[Calctl]:
    """A whole running system, with the demo market, shared by the tests of a module."""
    made = _maker()
    try:
        made.up("--demo")
        yield made
    finally:
        _end(made)
