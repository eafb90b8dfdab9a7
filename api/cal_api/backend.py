"""What the routes work with: one object, made at start, reached through the lifespan's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from starlette.requests import Request

from cal_api.beats import Beats
from cal_api.errors import BadRequest, NotFound, NotReady
from cal_api.lookup import Lookup
from cal_api.settings import Settings
from cal_api.store import Store
from cal_api.table import Entry, Table
from cal_api.turns import Turns
from cal_api.values import is_uuid
from cal_api.watch import Watch
from cal_api.writer import Writer
from cal_crds.cluster import Cluster
from cal_crds.deployment import ModelDeployment
from cal_crds.pool import ComputePool
from cal_crds.provider import ComputeProvider


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Backend:
    """The port to the cluster and the relay."""

    settings: Settings
    cluster: Cluster
    relay: httpx.AsyncClient
    now: Callable[[], datetime] = utc_now
    turns: Turns = field(default_factory=Turns)
    beats: Beats = field(init=False)
    store: Store = field(init=False)
    writer: Writer = field(init=False)
    watches: tuple[Watch, ...] = field(init=False)
    _lookups: dict[str, Lookup] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        self.beats = Beats(settings.identity, settings.system_namespace, self.now)
        self.store = Store(self.beats.last)
        self.writer = Writer(self.cluster, self.store)
        tables = self.store.tables
        self.watches = tuple(Watch(self.cluster, self.store, t, settings.watch_silence_seconds) for t in tables)
        self._lookups = {t.kind.name: Lookup(self.cluster, self.store, t, settings.lookups_per_second) for t in tables}

    def second(self) -> datetime:
        """Now, in whole seconds: the moment that the costs in an answer are of."""
        return self.now().replace(microsecond=0)

    def require_sync(self) -> None:
        """NotReady until every kind was listed once: before that, nothing can be said of anything."""
        if not self.store.synced:
            raise NotReady("Not in step with the Kubernetes API server yet; try again")

    async def pool(self, uid: str, what: str = "Pool") -> Entry[ComputePool]:
        """The pool of that id in a path; NotFound, also for what can't be an id."""
        return await self._find(self.store.pools, uid, what)

    async def deployment(self, uid: str) -> Entry[ModelDeployment]:
        """The deployment of that id; NotFound, also for what can't be an id."""
        return await self._find(self.store.deployments, uid, "Deployment")

    def provider(self, name: str) -> Entry[ComputeProvider]:
        """A registered provider; BadRequest with the list, as documented."""
        found = self.store.provider(name)
        if found is None:
            known = [entry.name for entry in self.store.providers_in_order()]
            raise BadRequest(f"No adapter registered for provider {name!a}. Available providers: {known}")
        return found

    async def _find(self, table: Table[Any], uid: str, what: str) -> Entry[Any]:
        # The hot path first: every status poll comes here.
        entry = table.get(uid)
        if entry is None:
            self.require_sync()
            entry = await self._lookups[table.kind.name].find(uid.lower()) if is_uuid(uid) else None
        if entry is None:
            raise NotFound(f"{what} {ascii(uid)[1:-1][:100]} not found")
        return entry


def backend(request: Request) -> Backend:
    found: Backend = request.scope["state"]["backend"]
    return found
