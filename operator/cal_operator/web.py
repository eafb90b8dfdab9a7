"""The operator's own probes and metrics: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from decimal import Decimal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cal_crds import money
from cal_operator.world import World

RECONCILE_SECONDS = Histogram("cal_reconcile_seconds", "Duration of reconciles.", ["kind"])


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


async def serve(world: World, host: str, port: int, ready: Callable[[], bool]) -> web.AppRunner:
    """Start the server. OSError if the port is taken."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(status=503, text="not leading, or not synced")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    REGISTRY.register(_Gauges(world))
    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
