"""The small process beside each local workload: `python -m cal_adapters.local.shim FOLDER`. Standard library only, single-threaded.

It returns at once and leaves itself behind, detached: so it outlives the operator, which finds it again by the lock. Exit codes of
the call: 0 it runs now, 3 another shim has the lock, 4 the instance is over, 1 it failed (why is on stderr).

Under the lock it runs the command (`run.py`). It ends when the command ends, on SIGTERM (with a tombstone: a stop; without: an
interruption, say a shutdown), when the lifeline breaks (`calctl up` is gone: an interruption), or when its folder is removed. An
interrupted workload is started again by the next who looks at it; a stopped one never.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final, NoReturn

from cal_adapters.local import kernel
from cal_adapters.local.home import MARK_VARIABLE, Home
from cal_adapters.local.run import Run

STARTED: Final = 0
FAILED: Final = 1
LOCKED: Final = 3
OVER: Final = 4
LIFELINE: Final = "CAL_LIFELINE_FD"

_HURRY: Final = 0.05


def main() -> NoReturn:
    """Forks the shim, and exits with its first word."""
    home = Home(Path(sys.argv[1]))
    answer, say = os.pipe()
    if os.fork():
        os.close(say)
        word = os.read(answer, 1)
        os._exit(word[0] if word else FAILED)
    os.close(answer)
    os.setsid()
    os.chdir("/")
    try:
        _shim(home, say)
    except Exception:  # noqa: BLE001
        # The last resort of a process that nobody watches: the reason must stand somewhere.
        sys.stderr.write(text := traceback.format_exc())
        (home.path / "shim.err").write_text(text)
        os._exit(FAILED)
    os._exit(0)


def _shim(home: Home, say: int) -> None:
    # A stop that comes between the lock and the handlers waits until they are there.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if kernel.take_lock(home.lock) is None:
        _answer(say, LOCKED)
        return
    request, record = home.request(), home.record()
    if request is None or home.stopped() or (record is not None and record.state == "ended"):
        _answer(say, OVER)
        return
    # A shim that was killed may have left processes behind: there must not be two workloads with one mark.
    while kernel.kill_bearing(MARK_VARIABLE, request.mark):
        time.sleep(_HURRY)
    lifeline = os.environ.pop(LIFELINE, None)
    run = Run(home, request, record, None if lifeline is None else int(lifeline))
    _answer(say, STARTED)
    run.whole()


def _answer(say: int, word: int) -> None:
    """Tells the caller, and lets go of its streams."""
    os.write(say, bytes([word]))
    os.close(say)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


if __name__ == "__main__":
    main()
