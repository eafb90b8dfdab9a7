"""A wire that can be cut after a request had its effect and before its answer arrives."""

from __future__ import annotations

import asyncio


class Cutter:
    """Forwards TCP to a port of this machine; can cut a connection in place of an answer."""

    def __init__(self, port: int, only: bytes = b"") -> None:
        """`only`: answers to requests that begin with these bytes."""
        self._target, self._only = port, only
        #: How many answers to swallow from now on.
        self.swallow = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
        asked: list[bytes] = []
        pumps = [
            asyncio.create_task(self._requests(reader, upstream, asked)),
            asyncio.create_task(self._answers(upstream_reader, writer, asked)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for end in (writer, upstream):
            end.close()
        await asyncio.gather(*pumps, writer.wait_closed(), upstream.wait_closed(), return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
        while data := await reader.read(65536):
            asked.append(data[:32])
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
        while data := await reader.read(65536):
            # The client asked something and here is the answer: so it was done.
            if self.swallow and any(request.startswith(self._only) for request in asked):
                self.swallow -= 1
                return
            asked.clear()
            writer.write(data)
            await writer.drain()
