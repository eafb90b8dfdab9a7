"""The operator's own probes and metrics: /healthz, /readyz, /metrics."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cal_crds import money
from cal_operator.store import Store, Table
from cal_operator.world import World

RECONCILE_SECONDS = Histogram("cal_reconcile_seconds", "Duration of reconciles.", ["kind"])
#: Objects whose cost is told before others get a turn: a scrape of thousands must not hold up a purchase.
_AT_ONCE = 200


class _Gauges(Collector):
    """What is read off the store at each scrape."""

    def __init__(self, world: World) -> None:
        self._world = world

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "cal_queue_depth", "Objects that wait for, or are in, a reconcile.", value=len(self._world.queue)
        )
        nodes = GaugeMetricFamily("cal_nodes", "Nodes by provider and state.", labels=["provider", "state"])
        cost = GaugeMetricFamily("cal_cost_per_hour_usd", "US dollars per hour, by provider.", labels=["provider"])
        count: Tally[tuple[str, str]] = Tally()
        rates: dict[str, Decimal] = {}
        for fact in self._world.store.facts():
            state = "gone" if fact.gone else ("ready" if fact.ready else "not_ready")
            count[fact.provider, state] += 1
            if not fact.gone:
                rates[fact.provider] = rates.get(fact.provider, Decimal(0)) + money.parse(fact.rate)
        for (provider, state), number in count.items():
            nodes.add_metric([provider, state], number)
        for provider, rate in rates.items():
            cost.add_metric([provider], float(rate))
        yield nodes
        yield cost


def cost_lines(store: Store, now: datetime) -> Iterator[bytes]:
    """US dollars up to `now`, an object a line. Written as text: ten thousand samples of the client library would weigh megabytes."""
    tables: tuple[tuple[str, Table[Any]], ...] = (
        ("node", store.nodes),
        ("deployment", store.deployments),
        ("pool", store.pools),
    )
    for word, table in tables:
        name = f"cal_{word}_cost_usd"
        yield f"# HELP {name} US dollars so far, by {word}; it goes with its object.\n# TYPE {name} gauge\n".encode()
        for namespace, of, cost in table.costs():
            # Names of Kubernetes objects hold nothing that would have to be escaped.
            yield f'{name}{{namespace="{namespace}",name="{of}"}} {money.render(money.total(cost, now))}\n'.encode()


async def serve(world: World, host: str, port: int, ready: Callable[[], bool]) -> web.AppRunner:
    """Start the server. OSError if the port is taken."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(status=503, text="not leading, or not synced")

    async def metrics(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
        lines = cost_lines(world.store, world.clock.now())
        with suppress(ConnectionError):  # whoever asked has hung up
            await reply.prepare(request)
            await reply.write(generate_latest(REGISTRY))
            while part := b"".join(islice(lines, _AT_ONCE)):
                await reply.write(part)
                await asyncio.sleep(0)
        return reply

    REGISTRY.register(_Gauges(world))
    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
