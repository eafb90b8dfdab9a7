"""`calctl up --detach`: the supervisor in the background, and this terminal back once all is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from cal_cli.errors import Failure, say
from cal_cli.statedir import StateDir

_FAILURE = "calctl: "


def detach(state: StateDir, argv: list[str]) -> int:
    """Starts the supervisor in the background and returns its pid once all is ready. Raises `Failure` if it ends before."""
    state.make()
    with state.lock():
        pass  # raises where one runs already, before anything is started
    state.logs.mkdir(exist_ok=True)
    log = state.logs / "supervisor.log"
    offset = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "cal_cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _follow_until_ready(state, child, log, offset)
    except BaseException as error:
        if child.poll() is None:
            child.terminate()
            child.wait()
        if isinstance(error, KeyboardInterrupt):
            raise Failure("interrupted before it was ready") from None
        raise
    return child.pid


def _follow_until_ready(directory: StateDir, child: subprocess.Popen[bytes], log: Path, offset: int) -> None:
    """Shows what the supervisor says until it is ready. Its failure (the rest of what it says) becomes ours."""
    failure: list[str] = []
    with log.open("rb") as file:
        file.seek(offset)
        while True:
            state, code = directory.read(), child.poll()
            for line in file.read().decode(errors="replace").splitlines():
                if failure or line.startswith(_FAILURE):
                    failure.append(line.removeprefix(_FAILURE))
                else:
                    say(line)
            if code is not None:
                raise Failure("\n".join(failure) or f"the supervisor ended with code {code}; its log is {log}")
            if state is not None and state.ready and state.pid == child.pid:
                return
            time.sleep(0.1)
