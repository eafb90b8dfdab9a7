"""A fork server: the real `main` of operator, api and relay, in forks of one process that has imported all three.

A fork is ready at once, where a fresh interpreter takes seconds. Reads lines of JSON {"module", "argv", "log"} from standard input and
answers {"pid"}; when a child ends, {"ended": pid, "code": exit code or -signal}. At the end of its input it kills what is left and ends.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from cal_api.__main__ import main as api
from cal_operator.__main__ import main as operator
from cal_relay.__main__ import main as relay

_MAINS: Final[dict[str, Callable[[], int]]] = {"cal_operator": operator, "cal_api": api, "cal_relay": relay}
_PR_SET_PDEATHSIG: Final = 1


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(_become(order))
    return pid


def _become(order: dict[str, Any]) -> int:
    """The child: what `python -m MODULE ARGV` does, with its output in the log."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whatever ends the harness leaves nothing running
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.argv = [order["module"], *order["argv"]]
    try:
        return _MAINS[order["module"]]()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def _reap(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def main() -> None:
    """Serve until the input ends."""
    children: set[int] = set()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()
    pending = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        _reap(children)
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            children.add(pid := _fork(json.loads(line)))
            _say(pid=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    _reap_all(children)


def _reap_all(children: set[int]) -> None:
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
