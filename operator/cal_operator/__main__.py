"""`python -m cal_operator`: one process, one leader at a time."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from cal_adapters.connect import find_installation
from cal_crds.cluster import NO_ACCESS, Cluster, ClusterError
from cal_operator.accounts import Accounts
from cal_operator.clock import SystemClock
from cal_operator.engine import Engine
from cal_operator.events import Events
from cal_operator.handlers import Watcher
from cal_operator.leader import Leader, LeadershipLost
from cal_operator.liveness import Liveness
from cal_operator.settings import Settings, parse
from cal_operator.store import Store
from cal_operator.web import serve
from cal_operator.world import World

log = logging.getLogger("cal_operator")

#: To the API server at once: as many as keep it busy, and no more, since the buffers of each weigh as much as a hundred objects.
_CONNECTIONS = 16


async def build(cluster: Cluster, lease_cluster: Cluster, settings: Settings) -> World:
    """Everything that the reconciles share. The Lease has connections of its own: its renewal never queues behind other requests."""
    clock = SystemClock()
    installation = await find_installation(cluster, settings.system_namespace)
    return World(
        cluster=cluster,
        clock=clock,
        settings=settings,
        installation=installation,
        store=Store(),
        accounts=Accounts(cluster, clock, settings, installation),
        events=Events(cluster, clock),
        leader=Leader(
            lease_cluster,
            clock,
            namespace=settings.system_namespace,
            identity=settings.identity,
            duration=settings.lease_seconds,
        ),
        liveness=Liveness(clock, settings.system_namespace, settings.beat_timeout_seconds),
    )


async def run(settings: Settings) -> int:
    """Lead and work until SIGTERM or SIGINT (0), or until the watch or the lease is lost (1: start me again)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        await Cluster.connect(settings.kubeconfig, connections=_CONNECTIONS) as cluster,
        await Cluster.connect(settings.kubeconfig, connections=2) as lease_cluster,
    ):
        world = await build(cluster, lease_cluster, settings)
        engine = Engine(world)
        server = await serve(world, settings.metrics_host, settings.metrics_port, lambda: engine.ready)
        watcher = Watcher(settings, engine.feed)
        try:
            return await _lead(world, engine, watcher, stop)
        finally:
            await server.cleanup()


async def _lead(world: World, engine: Engine, watcher: Watcher, stop: asyncio.Event) -> int:
    stopping = asyncio.create_task(stop.wait())
    leading = asyncio.create_task(world.leader.acquire())
    await asyncio.wait({stopping, leading}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        leading.cancel()
        return 0
    leading.result()
    watcher.start()
    working, watching = asyncio.create_task(engine.run()), asyncio.create_task(watcher.ended())
    await asyncio.wait({stopping, working, watching}, return_when=asyncio.FIRST_COMPLETED)
    code = 0 if stop.is_set() else 1
    try:
        await engine.drain()
        await _end(working)
        await world.leader.release()
    except ClusterError as error:
        log.warning("the lease is not released, it runs out: %s", error.message)
    finally:
        watching.cancel()
        # Also when the API server is away: a thread of kopf's that waits would keep this process for ever.
        await watcher.stop()
    return code


async def _end(working: asyncio.Task[None]) -> None:
    """Cancel the engine, and say why it ended if it did by itself."""
    working.cancel()
    ended = (await asyncio.gather(working, return_exceptions=True))[0]
    if isinstance(ended, BaseExceptionGroup) and (lost := ended.split(LeadershipLost)[0]) is not None:
        log.error("this process ends: %s", lost.exceptions[0])
    elif isinstance(ended, Exception):
        log.error("the operator ends", exc_info=ended)


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("kopf", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = parse(sys.argv[1:])
    try:
        return asyncio.run(run(settings))
    except (OSError, ClusterError, *NO_ACCESS) as error:
        log.error("the operator ends: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
