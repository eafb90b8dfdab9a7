"""A child process that leaves no orphan: a group of its own, a log file, and an end when its parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TIE = Path(__file__).with_name("tie.py")
_POLL = 0.05
_LOG_LIMIT = 16 << 20
#: How the last line of a Go program begins, before the stacks.
_GO_ENDS = ("panic: ", "fatal error: ")


class ProcessFailed(Exception):
    """A child ended or did not become ready; the message holds the end of its log."""


def tied(argv: Sequence[str], orphan_signal: int) -> list[str]:
    """The command line that runs `argv` and has the kernel send it `orphan_signal` when this process ends."""
    return [sys.executable, "-I", "-S", str(_TIE), str(os.getpid()), str(int(orphan_signal)), *argv]


class Process:
    """A program with its arguments, started at most once at a time.

    The kernel ties it to the thread that starts it: start it from the main thread.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
        orphan_signal: int = signal.SIGTERM,
    ) -> None:
        """`env` None: ours. `inherit`: file descriptors that it keeps, under their numbers. `orphan_signal`: what it gets
        when its parent ends without stopping it."""
        self.name, self.argv, self.log, self.env, self.inherit = name, list(argv), log, env, tuple(inherit)
        self.orphan_signal = int(orphan_signal)
        self._child: subprocess.Popen[bytes] | None = None
        #: How long the log was before this run.
        self._logged = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Starts it. Its output is appended to the log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.trim_log()
        with self.log.open("ab") as log:
            self._logged = log.tell()
            self._child = subprocess.Popen(
                tied(self.argv, self.orphan_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                start_new_session=True,
                pass_fds=self.inherit,
            )

    def exit_code(self) -> int | None:
        """None while it runs (or was never started); else its exit code, negative for a signal."""
        return self._child.poll() if self._child else None

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal to it and to all that it started, if it is still there."""
        if self._child is not None and self.alive():
            os.killpg(self._child.pid, number)

    def terminate(self) -> None:
        """Asks it to end; doesn't wait."""
        self.signal(signal.SIGTERM)

    def stop(self, grace: float = 10.0) -> None:
        """SIGTERM, and SIGKILL for what is still there after `grace` seconds."""
        if self._child is None:
            return
        self.terminate()
        try:
            self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._child.wait()

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Polls `ready` until it holds. Raises `ProcessFailed` when the process ends first or `timeout` seconds pass."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.alive():
                raise ProcessFailed(f"{self.name} ended with code {self.exit_code()}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not ready after {timeout:.0f} s:\n{self.tail()}")
            time.sleep(_POLL)

    def tail(self, lines: int = 15) -> str:
        """What its log has of this run, the last lines of it. Of Go's panics the words: the stack after them tells users nothing."""
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as file:
            file.seek(max(self._logged, self.log.stat().st_size - 65536))
            said = file.read().decode(errors="replace").splitlines()
        ends = [number for number, line in enumerate(said, 1) if line.startswith(_GO_ENDS)]
        return "\n".join(said[: ends[-1] if ends else None][-lines:])

    def trim_log(self) -> None:
        """Keeps the log from filling the disk: what is too long moves aside. Works while the process writes (append mode)."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.with_suffix(self.log.suffix + ".1").write_bytes(self.log.read_bytes()[-_LOG_LIMIT:])
            os.truncate(self.log, 0)
            self._logged = 0
