"""The folder of one local instance: what stands in which file, and who writes it. Standard library only: the shim imports it too.

request.json   what to run; written once, before anything starts: from here on the instance exists
env.json       its variables, secrets among them (mode 0600); removed when it has ended for good
lock           held by the shim as long as it lives: the kernel makes the start single
record.json    what the shim saw; written by the shim alone, replaced whole
stopped        a tombstone: it must end, and no late shim may start it
log.N          what it printed, in numbered segments of bounded size; the last few are kept
work/          its working directory
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

#: The variable by which a workload's processes are known, and their children after them.
MARK_VARIABLE: Final = "CAL_MARK"
#: Size of a log segment, and how many are kept.
SEGMENT_BYTES: Final = 4 << 20
SEGMENTS: Final = 3


@dataclass(frozen=True)
class PortWish:
    """A port of the workload: its name, the number in the spec, and the URL scheme."""

    name: str
    declared: int
    scheme: str


@dataclass(frozen=True)
class Request:
    """What to run."""

    mark: str
    argv: list[str]
    created: float
    working_dir: str | None = None
    ports: list[PortWish] = field(default_factory=list)
    #: What counts as taken: CPUs in thousandths and memory in bytes; 0: nothing was asked for, and no limit holds.
    millicpu: int = 0
    memory: int = 0
    #: The CPUs that it may run on; empty: all.
    cpus: list[int] = field(default_factory=list)
    #: Uuids of the GPUs that are its own.
    gpus: list[str] = field(default_factory=list)
    #: Seconds between SIGTERM and SIGKILL.
    grace: float = 10.0


@dataclass(frozen=True)
class Record:
    """What the shim saw. `state`: starting, running, ended or interrupted. Times in seconds since the epoch."""

    state: str
    boot: str
    shim: int
    shim_start: int
    pid: int | None = None
    pid_start: int | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    #: Why it ended: exit, start (it could not be started), stop, memory.
    cause: str = ""
    #: For people: the same in a few words.
    message: str = ""
    #: Port name -> the number that was handed over.
    ports: dict[str, int] = field(default_factory=dict)


class Home:
    """The folder, with typed access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock, self.tombstone, self.work = path / "lock", path / "stopped", path / "work"
        self._request, self._env, self._record = path / "request.json", path / "env.json", path / "record.json"

    def make(self, request: Request, env: dict[str, str]) -> bool:
        """Writes down what to run; False if that was done before (then nothing changes)."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._request.exists():
            return False
        self.work.mkdir(exist_ok=True)
        _replace(self._env, env)
        draft = _write(self._request, asdict(request))
        try:
            os.link(draft, self._request)  # fails if another caller was first, where a rename wouldn't
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def request(self) -> Request | None:
        data = _load(self._request)
        return Request(**{**data, "ports": [PortWish(**port) for port in data["ports"]]}) if data else None

    def env(self) -> dict[str, str]:
        return _load(self._env) or {}

    def forget_env(self) -> None:
        self._env.unlink(missing_ok=True)

    def record(self) -> Record | None:
        data = _load(self._record)
        return Record(**data) if data else None

    def write_record(self, record: Record) -> None:
        _replace(self._record, asdict(record))

    def stopped(self) -> bool:
        return self.tombstone.exists()

    def entomb(self) -> None:
        """From now on it must end, and doesn't start again."""
        self.tombstone.touch(mode=0o600)

    def segments(self) -> list[int]:
        """Numbers of the log segments, oldest first."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:  # forgotten meanwhile
            return []
        return sorted(int(name[4:]) for name in names if name.startswith("log.") and name[4:].isdigit())

    def segment(self, number: int) -> Path:
        return self.path / f"log.{number}"


def _load(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if it isn't there or was cut short by a crash of the machine."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write(path: Path, data: object) -> Path:
    """A new file beside `path`, on disk, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _replace(path: Path, data: object) -> None:
    os.replace(_write(path, data), path)
