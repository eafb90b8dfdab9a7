"""All local instances under one state directory: made, found, looked at, started again and stopped. Blocking: call it in a thread.

`<state_dir>/local/instances/<mark>/` is an instance (`home.py`), `id` names this store for good, `assign.lock` is held while
somebody decides what is still free, `ports/` holds the shims' claims.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cal_adapters
from cal_adapters.contract import Mark
from cal_adapters.local import kernel, shim
from cal_adapters.local.home import MARK_VARIABLE, Home, Record, Request

_log = logging.getLogger(__name__)
#: How long an ended instance, its log and its working directory are kept, in seconds.
KEEP_SECONDS: Final = 86400.0
_SPAWN_SECONDS: Final = 8.0
_LAST_RESORT_SECONDS: Final = 15.0


class NotStarted(Exception):
    """The shim could not be started; the instance exists and may be started by a later look."""


@dataclass(frozen=True)
class Look:
    """An instance as it is at one moment. `alive`: its shim runs (its id); `stopped`: it must end."""

    home: Home
    request: Request
    record: Record | None
    alive: int | None
    stopped: bool

    @property
    def ended(self) -> bool:
        """Ended for good, by itself or by a stop that its shim carried out."""
        return self.record is not None and self.record.state == "ended"

    @property
    def startable(self) -> bool:
        """Not running, and nothing forbids it: never started, interrupted, or the machine was started anew."""
        if self.alive is not None or self.stopped or self.ended:
            return False
        return self.record is None or self.record.state != "running" or self.record.boot != kernel.boot_id()

    @property
    def over(self) -> bool:
        """Nothing of it runs, and nothing will."""
        return self.alive is None and (self.ended or self.stopped) and not self.remains()

    @property
    def lost(self) -> bool:
        """Its shim was killed: nobody knows how the command ended."""
        return self.alive is None and not self.stopped and not self.ended and not self.startable

    def remains(self) -> bool:
        """Whether processes outlived a shim that was killed."""
        return not self.ended and bool(kernel.bearing(MARK_VARIABLE, self.request.mark))


class Store:
    """The instances of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "local"
        self._instances = self._root / "instances"

    def account(self) -> str:
        """Names this store, for ever. Another directory or machine has another: "not found" there says nothing about here."""
        file = self._root / "id"
        if not file.exists():
            with self._deciding():
                if not file.exists():
                    file.write_text(f"local-{secrets.token_hex(8)}")
        return file.read_text()

    def look(self, handle: str) -> Look | None:
        """None if there is no such instance."""
        if Mark.read(handle) is None:
            return None
        home = Home(self._instances / handle)
        request = home.request()
        while request is not None:
            seen = kernel.lock_holder(home.lock), home.record()
            stopped = home.stopped()
            # A shim that came or went meanwhile has written another record.
            if (kernel.lock_holder(home.lock), home.record()) == seen:
                return Look(home, request, seen[1], seen[0], stopped)
        return None

    def looks(self) -> Iterator[Look]:
        """Every instance here, of any installation, ended ones too."""
        names = sorted(os.listdir(self._instances)) if self._instances.is_dir() else []
        return (look for look in map(self.look, names) if look is not None)

    def make(self, mark: str, decide: Callable[[list[Look]], tuple[Request, dict[str, str]]]) -> None:
        """Writes down an instance, unless it exists. `decide` gets all that isn't over and says what to run; its errors
        mean that nothing was made."""
        with self._deciding():
            if self.look(mark) is None:
                request, env = decide([look for look in self.looks() if not look.over])
                Home(self._instances / mark).make(request, env)

    def tend(self, handle: str) -> None:
        """Starts the instance if it should run and doesn't. However many call this at once, one shim starts. Raises NotStarted."""
        look = self.look(handle)
        if look is None or not look.startable:
            return
        fd = lifeline()
        environment = {"PYTHONPATH": str(Path(cal_adapters.__file__).parent.parent)}
        if fd is not None:
            environment[shim.LIFELINE] = str(fd)
        # -S -P: neither site-packages nor the present directory, for a small process that nothing can be slipped into.
        argv = [sys.executable, "-S", "-P", "-m", "cal_adapters.local.shim", str(look.home.path)]
        passed = () if fd is None else (fd,)
        try:
            done = subprocess.run(
                argv,
                env=environment,
                pass_fds=passed,
                capture_output=True,
                text=True,
                timeout=_SPAWN_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NotStarted(f"{handle} could not be started: {error}") from error
        if done.returncode not in (shim.STARTED, shim.LOCKED, shim.OVER):
            raise NotStarted(f"{handle} could not be started: {done.stderr.strip()[-500:]}")

    def stop(self, handle: str) -> bool:
        """Asks it to end, for good; True: nothing of it runs, and nothing can start it."""
        look = self.look(handle)
        if look is None:
            return True
        look.home.entomb()
        # From here on a shim that gets the lock sees the tombstone; one that had it gets the signal.
        if kernel.signal_holder(look.home.lock, signal.SIGTERM):
            return False
        after = self.look(handle)
        if after is not None and not after.ended and kernel.kill_bearing(MARK_VARIABLE, handle):
            return False
        look.home.forget_env()
        return True

    def prune(self, installation: str) -> None:
        """Forgets what ended long ago."""
        for look in self.looks():
            mark = Mark.read(look.request.mark)
            if mark is not None and mark.installation == installation and look.over and _age(look) > KEEP_SECONDS:
                shutil.rmtree(look.home.path, ignore_errors=True)

    def interrupt_all(self) -> int:
        """Ends all that runs, to be started again by the next who looks; returns how many ran. Takes as long as they take to end."""
        running = [look for look in self.looks() if kernel.signal_holder(look.home.lock, signal.SIGTERM)]
        deadline = time.monotonic() + _LAST_RESORT_SECONDS
        while any(kernel.lock_holder(look.home.lock) for look in running):
            if time.monotonic() > deadline:
                for look in running:
                    kernel.signal_holder(look.home.lock, signal.SIGKILL)
                    kernel.kill_bearing(MARK_VARIABLE, look.request.mark)
            time.sleep(0.05)
        return len(running)

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """One at a time, over all processes: what is free is looked up and taken."""
        self._instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._root / "assign.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def lifeline() -> int | None:
    """The pipe end that `calctl up` handed to the operator: it breaks when `calctl up` is gone. None: none was handed over."""
    text = os.environ.get(shim.LIFELINE)
    if not text:
        return None
    try:
        if stat.S_ISFIFO(os.fstat(int(text)).st_mode):
            return int(text)
    except (ValueError, OSError):
        pass
    _log.warning("%s is no open pipe: local workloads won't notice when calctl is killed", shim.LIFELINE)
    return None


def _age(look: Look) -> float:
    ended = look.record.ended if look.record is not None and look.record.ended else look.home.tombstone.stat().st_mtime
    return time.time() - ended
