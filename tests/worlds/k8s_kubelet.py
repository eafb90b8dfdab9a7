"""A stand-in for the kubelet's log endpoint: what a real API server asks when a client reads a Pod's log.

Follows `kubelet/pkg/apis`: GET /containerLogs/{namespace}/{pod}/{container} with tailLines, follow, timestamps and sinceTime.
Nodes made with `status()` point at it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from cal_cli.controlplane.pki import Authority


class Kubelet:
    """Lines by Pod; `cut` breaks off what is being followed."""

    def __init__(self) -> None:
        self.port = 0
        self._lines: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._ended: set[str] = set()
        self._news = asyncio.Condition()
        self._cuts = 0

    def status(self) -> dict[str, Any]:
        """The part of a Node's status that leads the API server here."""
        addresses = [{"type": kind, "address": "127.0.0.1"} for kind in ("InternalIP", "Hostname")]
        return {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}}}

    async def say(self, pod: str, line: str) -> None:
        """The container of `pod` prints a line."""
        now = datetime.now(UTC)
        self._lines[pod].append(
            (f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}{len(self._lines[pod]) % 1000:03d}Z", line)
        )
        await self._tell()

    async def end(self, pod: str) -> None:
        """The container of `pod` has ended: who follows its log comes to the end."""
        self._ended.add(pod)
        await self._tell()

    async def cut(self) -> None:
        """Breaks every connection that follows a log, as a restart of the kubelet does."""
        self._cuts += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def logs(self, request: web.Request) -> web.StreamResponse:
        pod, query = request.match_info["pod"], request.query
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.force_close()  # asyncio leaves a TLS connection open that its client ends while it idles
        await response.prepare(request)
        since, cuts = query.get("sinceTime", ""), self._cuts
        lines = [item for item in self._lines[pod] if item[0][:19] >= since[:19]]
        start = len(self._lines[pod]) - len(lines)
        if "tailLines" in query:
            start = max(start, len(self._lines[pod]) - int(query["tailLines"]))
        async for time, line in self._from(pod, start, cuts, follow=query.get("follow") == "true"):
            text = f"{time} {line}\n" if query.get("timestamps") == "true" else f"{line}\n"
            await response.write(text.encode())
        if self._cuts != cuts and request.transport is not None:
            request.transport.abort()
        return response

    async def _from(self, pod: str, start: int, cuts: int, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        while True:
            for item in self._lines[pod][start:]:
                start += 1
                yield item
            if not follow or pod in self._ended or self._cuts != cuts:
                return
            async with self._news:
                if start == len(self._lines[pod]) and pod not in self._ended and self._cuts == cuts:
                    await self._news.wait()


@asynccontextmanager
async def open_kubelet(directory: Path) -> AsyncIterator[Kubelet]:
    """A kubelet on a free port of 127.0.0.1, by TLS as the API server wants it."""
    pair = Authority(directory, "kubelet-ca").server("kubelet")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.cert, pair.key)
    kubelet, app = Kubelet(), web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", kubelet.logs)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        kubelet.port = runner.addresses[0][1]
        yield kubelet
    finally:
        await runner.cleanup()
