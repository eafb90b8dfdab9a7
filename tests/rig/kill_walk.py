"""An operator that kills itself at its n-th suspension point of a launch: `python kill_walk.py` reads lines `N FLAGS...` from standard
input, forks an operator for each (0: never killed), and answers `pid`, then `killed` or `exit CODE` when it has ended.

A suspension point is where a task that reconciles a deployment or a node, or one that must not be split, gives the event loop away:
each `await` that really waits. SIGKILL there is what a power cut, the kernel's memory killer or `kubectl delete --force` do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from typing import Any

from cal_operator import __main__ as operator
from cal_operator.settings import parse

_WATCHED = ("reconcile ComputeNode", "reconcile ModelDeployment", "launch ", "record ", "undo ")


class Walk:
    """Counts suspensions, and kills at the n-th."""

    def __init__(self, n: int) -> None:
        self._left = n

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def factory(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """A task factory: tasks get their names after they are made, so each is wrapped and the watched ones count."""
        return asyncio.Task(_counted(coro, self), loop=loop, **kwargs)


async def _counted(coro: Coroutine[Any, Any, Any], walk: Walk) -> Any:
    return await _Steps(coro, walk)


class _Steps:
    """Awaits a coroutine step by step, and counts each time that it gives way."""

    def __init__(self, coro: Coroutine[Any, Any, Any], walk: Walk) -> None:
        self._coro, self._walk = coro, walk

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                given = self._coro.throw(error) if error is not None else self._coro.send(value)
            except StopIteration as end:
                return end.value
            task = asyncio.current_task()
            if task is not None and task.get_name().startswith(_WATCHED):
                self._walk.step()
            value, error = None, None
            try:
                value = yield given
            except BaseException as thrown:  # noqa: BLE001  # handed on to the coroutine, as `await` would
                error = thrown


def run(n: int, flags: list[str]) -> int:
    """One operator, until it is told to stop or kills itself."""
    settings = parse(flags)
    with asyncio.Runner() as runner:
        if n:
            runner.get_loop().set_task_factory(Walk(n).factory)
        return runner.run(operator.run(settings))


def main() -> None:
    """Serve: a fork is ready at once, a fresh interpreter takes seconds."""
    for line in sys.stdin:
        n, *flags = line.split()
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            os._exit(run(int(n), flags))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("killed" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
