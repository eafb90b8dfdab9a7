"""The adapters that logs are read with: made when first needed, made anew when their provider or Secret changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from cal_adapters.connect import connect, find_installation, read_credentials
from cal_adapters.contract import Adapter
from cal_adapters.errors import CredentialsRefused
from cal_crds.cluster import Cluster
from cal_crds.meta import PROVIDER
from cal_crds.provider import ComputeProvider
from cal_relay.settings import Settings

#: How long an adapter is used before its provider and Secret are looked at again. Seconds.
_FRESH = 30.0


@dataclass
class _Kept:
    adapter: Adapter
    #: What it was made from.
    made_from: tuple[Mapping[str, Any], Mapping[str, str] | None]
    checked: float
    users: int = 0
    retired: bool = False


class Adapters:
    """Lends adapters. An adapter that is replaced is closed when its last borrower is done."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._installation: str | None = None
        self._kept: dict[tuple[str, str | None], _Kept] = {}
        self._locks: dict[tuple[str, str | None], asyncio.Lock] = {}

    @asynccontextmanager
    async def lend(self, provider: str, credential: str | None) -> AsyncIterator[Adapter]:
        """The adapter of a provider and credential. Raises what `connect` does; cluster.NotFound if there is no such provider."""
        key = provider, credential
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = await self._current(provider, credential)
            kept.users += 1
        try:
            yield kept.adapter
        except CredentialsRefused:
            # The Secret may hold better ones by now.
            kept.checked = float("-inf")
            raise
        finally:
            kept.users -= 1
            await self._close_unused(kept)

    async def close(self) -> None:
        """Let go of all of them."""
        for kept in self._kept.values():
            kept.retired = True
            await self._close_unused(kept)
        self._kept.clear()

    async def _current(self, provider: str, credential: str | None) -> _Kept:
        kept = self._kept.get((provider, credential))
        if kept and monotonic() - kept.checked < _FRESH:
            return kept
        found = ComputeProvider.parse(await self._cluster.get(PROVIDER.path(name=provider)))
        credentials = await read_credentials(self._cluster, found, credential, self._settings.system_namespace)
        made_from = found.spec.dump(), credentials.data if credentials else None
        if kept and kept.made_from == made_from:
            kept.checked = monotonic()
            return kept
        fresh = _Kept(await self._make(found, credential), made_from, monotonic())
        self._kept[provider, credential] = fresh
        if kept:
            kept.retired = True
            await self._close_unused(kept)
        return fresh

    async def _make(self, provider: ComputeProvider, credential: str | None) -> Adapter:
        settings = self._settings
        if self._installation is None:
            self._installation = await find_installation(self._cluster, settings.system_namespace)
        return await connect(
            self._cluster,
            provider,
            credential,
            installation=self._installation,
            enabled=settings.enabled,
            state_dir=settings.state_dir,
            kubeconfig=settings.kubeconfig,
            system_namespace=settings.system_namespace,
        )

    @staticmethod
    async def _close_unused(kept: _Kept) -> None:
        if kept.retired and not kept.users:
            await kept.adapter.close()
