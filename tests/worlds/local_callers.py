"""Callers of `local` in processes of their own: `python local_callers.py launch|walk ROOT TOKEN`. ROOT is a LocalWorld's folder.

launch: launches TOKEN once, and prints the handle. walk: launches TOKEN plus n in the world ROOT/n, in a child that kills itself (SIGKILL)
at the n-th thing that it does to files, locks or processes; n = 1, 2, ... until a launch ends unkilled; prints that n.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from worlds.contract_local import LocalWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Mark
from cal_adapters.local.adapter import LocalAdapter

_DEEDS = ("open", "os.", "fcntl.", "subprocess.", "shutil.")


async def _launch(root: Path, token: str) -> str:
    world = LocalWorld(root)
    request = await world.request(Mark(INSTALLATION, token))
    return (await LocalAdapter.open(world.context()).launch(request)).handle


def _killed_at(number: int, root: Path, token: str) -> bool:
    """Whether the launch didn't survive its n-th deed."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    left = number

    def count(event: str, _: object) -> None:
        nonlocal left
        if event.startswith(_DEEDS):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    asyncio.run(_launch(root, token))
    os._exit(0)


def main() -> None:
    """See above."""
    root, token = Path(sys.argv[2]), sys.argv[3]
    if sys.argv[1] == "launch":
        print(asyncio.run(_launch(root, token)))
        return
    number = 1
    while _killed_at(number, root / str(number), f"{token}{number}"):
        number += 1
    print(number)


if __name__ == "__main__":
    main()
