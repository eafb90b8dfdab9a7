"""What the relay counts of itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """One registry per application, so that two of them in one process don't mix."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.clients = Gauge("cal_relay_clients", "WebSockets that are open.", registry=registry)
        self.upstreams = Gauge("cal_relay_upstreams", "Logs that are read at providers.", registry=registry)
        self.nodes = Gauge("cal_relay_nodes", "Nodes in the watch cache.", registry=registry)
        self.lines = Counter("cal_relay_lines", "Lines read from followed logs.", registry=registry)
        self.sent = Counter("cal_relay_frames_sent", "Frames sent to clients.", registry=registry)
        self.lost = Counter("cal_relay_lines_lost", "Lines that slow clients did not get.", registry=registry)
        self.interruptions = Counter(
            "cal_relay_interruptions", "Times that a followed log broke off.", ["provider"], registry=registry
        )
        self.subscriptions = Counter(
            "cal_relay_subscriptions", "Subscriptions by what came of them.", ["result"], registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
