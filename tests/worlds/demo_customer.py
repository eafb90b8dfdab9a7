"""Buys at the demo market from a process of its own: `python demo_customer.py STATE_DIR COUNT`. Prints each mark once it is bought."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from worlds.contract_demo import DemoWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Mark
from cal_adapters.fake import create
from cal_crds.names import new_token


async def _buy(state_dir: Path, count: int) -> None:
    world = DemoWorld(state_dir)
    adapter = create(world.context())
    request = await world.request(Mark(INSTALLATION, new_token()))
    for _ in range(count):
        bought = await adapter.launch(replace(request, mark=Mark(INSTALLATION, new_token())))
        print(bought.mark, flush=True)


if __name__ == "__main__":
    asyncio.run(_buy(Path(sys.argv[1]), int(sys.argv[2])))
