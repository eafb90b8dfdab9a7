"""The application: routes, the door, the errors, and the lifespan that holds the connections and the watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount

from cal_api import deployments, errors, inventory, keys, logs, pools, service
from cal_api.backend import Backend
from cal_api.edge import Edge
from cal_api.metrics import Metrics
from cal_api.operation import Operation, routes
from cal_api.settings import Settings
from cal_crds.cluster import Cluster, ClusterError

_LOG = logging.getLogger(__name__)
#: How long the shutdown waits for the last digest, in seconds.
_LAST_WORDS = 3.0
#: In the order in which they are tried: what is polled most comes first.
OPERATIONS: tuple[Operation, ...] = (
    *deployments.OPERATIONS,
    *pools.OPERATIONS,
    *inventory.OPERATIONS,
    *logs.OPERATIONS,
    *keys.OPERATIONS,
)


def create_app(cluster: Cluster, settings: Settings, failed: Callable[[], None] | None = None) -> Starlette:
    """A fresh application; `cluster` stays the caller's to close. `failed` is called if a watch ends by a fault of ours: the process had better start again."""
    metrics = Metrics()
    metrics.name_routes({op.handler.__name__: op.public_path for op in OPERATIONS})
    return Starlette(
        routes=_routes(metrics),
        middleware=[Middleware(Edge, metrics=metrics)],
        exception_handlers=errors.HANDLERS,
        lifespan=_lifespan(cluster, settings, failed or (lambda: None)),
    )


def _routes(metrics: Metrics) -> list[BaseRoute]:
    prefixes = sorted({prefix for op in OPERATIONS for prefix in op.prefixes}, key=len, reverse=True)
    mounts = [Mount(prefix, routes=routes(op for op in OPERATIONS if prefix in op.prefixes)) for prefix in prefixes]
    return [*routes(OPERATIONS), *service.routes(OPERATIONS, metrics, _version()), *mounts]


def _version() -> str:
    try:
        return version("compute-abstraction-layer")
    except PackageNotFoundError:  # run from a checkout
        return "0"


_Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]


def _lifespan(cluster: Cluster, settings: Settings, failed: Callable[[], None]) -> _Lifespan:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        # trust_env: a proxy of the environment has no business with the relay beside us
        async with httpx.AsyncClient(timeout=httpx.Timeout(20.0, connect=3.0), trust_env=False) as relay:
            port = Backend(settings, cluster, relay)
            tasks = [_task(job, failed) for job in _jobs(port)]
            try:
                yield {"backend": port}
            finally:
                await _stop(port, tasks)

    return lifespan


def _jobs(port: Backend) -> list[Coroutine[Any, Any, None]]:
    nodes = port.store.nodes

    def refresh(uid: str) -> None:
        if entry := nodes.get(uid):
            nodes.refresh(entry)

    def alive(uid: str) -> bool:
        return nodes.get(uid) is not None or not nodes.synced

    digests = port.beats.run(port.cluster, port.settings.digest_seconds, alive, refresh)
    return [*(watch.run() for watch in port.watches), digests]


def _task(job: Coroutine[Any, Any, None], failed: Callable[[], None]) -> asyncio.Task[None]:
    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _LOG.critical("a background task ended", exc_info=error)
            failed()

    task = asyncio.create_task(job)
    task.add_done_callback(ended)
    return task


async def _stop(port: Backend, tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    try:
        async with asyncio.timeout(_LAST_WORDS):
            # Else every restart would look to the operator like beats that were missed.
            await port.beats.write(port.cluster)
    except (ClusterError, TimeoutError) as error:
        _LOG.warning("the last beats were not written: %s", error)
