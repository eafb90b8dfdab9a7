"""The operator's own probe: whether an endpoint answers, by HTTP or TCP, where the provider can't tell."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aiohttp

from cal_crds.workload import Probe, Workload

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Prober:
    """One connection pool for all probes; redirects aren't followed, bodies aren't read."""

    def __init__(self, at_once: int = 64) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(at_once)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def answers(self, endpoint: str, workload: Workload) -> tuple[bool, str]:
        """Whether it answers, and why not."""
        probe = workload.readiness_probe or Probe()
        async with self._slots:
            try:
                async with asyncio.timeout(probe.timeout_seconds):
                    if probe.http_get is not None:
                        return await self._http(endpoint, probe.http_get.path)
                    return await _tcp(endpoint)
            except TimeoutError:
                return False, f"no answer from {endpoint} within {probe.timeout_seconds} s"
            except (OSError, aiohttp.ClientError, ValueError) as error:
                return False, f"no answer from {endpoint}: {error}"

    async def _http(self, endpoint: str, path: str) -> tuple[bool, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        url = endpoint.rstrip("/") + path
        async with self._session.get(url, allow_redirects=False) as reply:
            return 200 <= reply.status < 400, f"{url} answers {reply.status}"


async def _tcp(endpoint: str) -> tuple[bool, str]:
    parts = urlsplit(endpoint)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        return False, f"{endpoint} names no port"
    _, writer = await asyncio.open_connection(parts.hostname, port)
    writer.close()
    return True, ""
