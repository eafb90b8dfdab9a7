"""A client of the relay's WebSocket, as they are in the wild."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection


@dataclass
class Follower:
    """Reads the frames of one connection that has sent its subscription."""

    socket: ClientConnection
    #: All frames so far.
    frames: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The lines of the log, without the relay's own words."""
        return [frame["data"] for frame in self.frames if frame["type"] == "log" and "notice" not in frame]

    @property
    def notices(self) -> list[str]:
        return [frame["data"] for frame in self.frames if "notice" in frame]

    @property
    def lost(self) -> int:
        """How many lines the relay said it left out."""
        return sum(int(text.split()[1]) for text in self.notices if text.endswith("you read too slowly"))

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        self.frames.append(json.loads(await self.socket.recv()))
        return self.frames[-1]

    async def until(self, done: Callable[[Follower], object]) -> None:
        """Read on until it is so. The test's own time limit is the deadline."""
        while not done(self):
            await self.frame()

    async def until_line(self, line: str) -> None:
        await self.until(lambda follower: line in follower.lines)

    async def rest(self) -> tuple[int, str]:
        """Read to the end; close code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.frame()
        return self.socket.close_code or 0, self.socket.close_reason or ""
