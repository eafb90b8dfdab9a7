"""What the kernel tells and does: locks, processes, listening sockets. Standard library only: the shim imports it too. Linux.

A process id alone means little, since ids are used again: signals go through a pidfd taken while the id was proven right.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_LISTEN = "0A"
_LOOPBACK = ("00000000", "0100007F", "0" * 32, "0000000000000000FFFF00000100007F", "0000000000000000FFFF000000000000")


def boot_id() -> str:
    """Differs after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# --- locks (POSIX record locks: let go by the kernel at the holder's end, not inherited, and the kernel names the holder)


def take_lock(path: Path) -> int | None:
    """The open descriptor that holds the lock until the process ends or closes it; None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


def lock_holder(path: Path) -> int | None:
    """The id of the process that holds the lock, None if none does. Doesn't take the lock, so it disturbs nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


def signal_holder(path: Path, number: int) -> bool:
    """Sends a signal to the lock's holder and to nobody else. False if there is none."""
    while (pid := lock_holder(path)) is not None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if lock_holder(path) == pid:
                signal.pidfd_send_signal(descriptor, number)
                return True
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
    return False


# --- processes


def processes() -> list[int]:
    """The ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with its id and the boot id, its identity."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def descendants(root: int) -> list[int]:
    """The ids of all living children of `root` and theirs, also those with a session of their own."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        fields = _stat(pid)
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def parent(pid: int) -> int | None:
    """The id of the process's parent; None if the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def environment(pid: int) -> dict[str, str]:
    """The variables that the process was started with; empty for a dead one, and for somebody else's."""
    pairs = _read(Path(f"/proc/{pid}/environ")).decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def bearing(variable: str, value: str) -> list[int]:
    """The ids of living processes that were started with this environment variable (children inherit it)."""
    return [pid for pid in processes() if environment(pid).get(variable) == value]


def kill_bearing(variable: str, value: str) -> bool:
    """SIGKILL to all of them. False if there were none."""
    pids = bearing(variable, value)
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if environment(pid).get(variable) == value:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
    return bool(pids)


def resident_bytes(pids: Collection[int]) -> int:
    """Memory in use by these processes, shared pages counted once for each."""
    pages = (_read(Path(f"/proc/{pid}/statm")).split() for pid in pids)
    return sum(int(fields[1]) for fields in pages if len(fields) > 1) * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pids: Collection[int]) -> int:
    """Memory in use by these processes, shared pages split among who shares them (dearer to read)."""
    lines = (line for pid in pids for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Pss:")) * 1024


# --- sockets


def listening(pids: Collection[int]) -> set[int]:
    """The TCP ports that these processes listen on and that 127.0.0.1 reaches."""
    own = {inode for pid in pids for inode in _sockets(pid)}
    return {port for port, inode in _listeners() if inode in own}


def _listeners() -> Iterator[tuple[int, str]]:
    for table in ("tcp", "tcp6"):
        for line in _read(Path(f"/proc/net/{table}")).decode().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTEN and address in _LOOPBACK:
                yield int(port, 16), fields[9]


def _sockets(pid: int) -> Iterator[str]:
    try:
        links = list(os.scandir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return
    for link in links:
        try:
            target = os.readlink(link.path)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


# --- /proc


def _stat(pid: int) -> list[str] | None:
    """The fields of stat after the command's name (which may hold blanks): state is the first."""
    text = _read(Path(f"/proc/{pid}/stat")).decode(errors="replace")
    return text.rpartition(")")[2].split() or None


def _read(path: Path) -> bytes:
    """A file of /proc; empty when its process is gone, or somebody else's."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
