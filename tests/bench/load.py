"""A load generator of its own process: `python load.py HOST PORT PATH CONNECTIONS SECONDS`; prints {"requests", "seconds", "bad"}.

Raw sockets, keep-alive, one request at a time on each connection: what it costs is far below what a Python server costs.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class _Client(asyncio.Protocol):
    """Asks again as soon as an answer is whole."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._left = 0
        self._head = b""
        self.done = self.bad = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._head, 0, end + 2)
            assert length is not None
            self._left = int(length[1]) - (len(self._head) - end - 4)
            self.bad += not self._head.startswith(b"HTTP/1.1 200")
            self._head = b""
        if self._left <= 0:
            self._left = 0
            self.done += 1
            self._transport.write(self._request)


async def _run(host: str, port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: _Client(request), host, port))[1] for _ in range(connections)]
    # The first moments warm caches up and are not counted.
    await asyncio.sleep(0.3)
    began, before = time.perf_counter(), sum(client.done for client in clients)
    await asyncio.sleep(seconds)
    done, took = sum(client.done for client in clients) - before, time.perf_counter() - began
    return {"requests": done, "seconds": took, "bad": sum(client.bad for client in clients)}


if __name__ == "__main__":
    host, port, path, connections, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(_run(host, int(port), path, int(connections), float(seconds)))))
