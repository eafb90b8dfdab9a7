"""The state directory of `calctl up`: where things lie in it, what runs from it, and the lock that makes it one at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from cal_cli.errors import Failure


@dataclass
class Member:
    """A process under the supervisor, as `calctl status` and the next `up` see it."""

    name: str
    pid: int
    started: float
    restarts: int = 0


@dataclass
class State:
    """What the supervisor writes down about itself."""

    pid: int
    ready: bool = False
    api_url: str = ""
    relay_url: str = ""
    kubeconfig: str = ""
    context: str | None = None
    ports: list[int] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)


class StateDir:
    """A directory that survives restarts: etcd's data, certificates, logs, the adapters' own state."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.kubeconfig = self.path / "kubeconfig"
        self.logs = self.path / "logs"
        self.adapters = self.path / "adapters"
        #: A copy of the Secret for the api, which may not read Secrets.
        self.model_key = self.path / "model-key"
        self._state = self.path / "state.json"
        self._lock = self.path / "supervisor.lock"

    def is_default(self) -> bool:
        """Whether a command without --state-dir, run from here, finds it."""
        return self.path == StateDir(default_path()).path

    def ours(self) -> bool:
        """Whether an `up` has ever made it its own."""
        return self._lock.exists()

    def make(self) -> None:
        """Raises `Failure` for a directory that holds anything else: what `up` brings would mix with it, and go with it."""
        if self.path.is_dir() and any(self.path.iterdir()) and not self.ours():
            raise Failure(
                f"{self.path} holds other things than the state of `calctl up`: give it a directory of its own"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Failure(f"state directory {self.path} can't be made: {error.strerror}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the supervisor for its whole life; the kernel frees it however that ends."""
        self.make()
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                state = self.read()
                who = f" (pid {state.pid})" if state else ""
                raise Failure(
                    f"already running{who} from {self.path}: see `calctl status`, or give another --state-dir"
                ) from None
            yield

    def running(self) -> bool:
        """Whether a supervisor holds the lock right now."""
        if not self._lock.exists():
            return False
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def read(self) -> State | None:
        """What the last supervisor wrote, alive or not."""
        try:
            raw = json.loads(self._state.read_text())
            return State(**{**raw, "members": [Member(**member) for member in raw["members"]]})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, state: State) -> None:
        part = self._state.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(state), indent=1))
        part.rename(self._state)

    def keep_model_key(self, key: bytes) -> None:
        """Readable by nobody else, from the first byte on."""
        self.model_key.unlink(missing_ok=True)
        self.model_key.touch(mode=0o600)
        self.model_key.write_bytes(key)

    def leftovers(self) -> list[psutil.Process]:
        """Processes of an earlier supervisor that are still there: same pid and same start time."""
        state = self.read()
        return [process for member in (state.members if state else []) if (process := same_process(member))]


def same_process(member: Member) -> psutil.Process | None:
    """The process of a record, unless it ended (its pid may belong to somebody else by now)."""
    try:
        process = psutil.Process(member.pid)
        # The clock may have been set in between; a second is far less than a pid needs to come round again.
        same = abs(process.create_time() - member.started) < 1
    except psutil.Error:
        return None
    return process if same and alive(process) else None


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie is its parent's affair."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def default_path() -> Path:
    """After the XDG convention; `CAL_STATE_DIR` names another one."""
    own = os.environ.get("CAL_STATE_DIR")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(own) if own else Path(base) / "compute-abstraction-layer"
