"""The api's own metrics: requests by route and code, and how the cache stands. One registry per application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts; `text` writes them in Prometheus' format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "cal_api_requests", "Requests answered.", ("method", "route", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "cal_api_request_seconds", "Time to answer.", ("route",), buckets=_BUCKETS, registry=self.registry
        )
        self.objects = Gauge("cal_api_cached_objects", "Objects in the cache.", ("kind",), registry=self.registry)
        self.connected = Gauge(
            "cal_api_watch_connected", "1 while the API server answers the watch.", ("kind",), registry=self.registry
        )
        self.lists = Gauge(
            "cal_api_watch_lists", "Lists made by the watch since the start.", ("kind",), registry=self.registry
        )
        # Label look-ups are the dear part of the client library: their results are kept.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        self._names: Mapping[str, str] = {}

    def name_routes(self, names: Mapping[str, str]) -> None:
        """Name of a handler -> the path that its requests are counted under."""
        self._names = names

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One request answered. Unknown routes share one name: anybody can make up paths."""
        # What isn't a handler (a mount whose routes don't match) has no name, and may not be hashable.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        key = method, getattr(scope.get("endpoint"), "__name__", ""), status
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._child(*key)
        children[0].inc()
        children[1].observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _child(self, method: str, handler: str, status: int) -> tuple[Any, Any]:
        route = self._names.get(handler, "other")
        return self._requests.labels(method, route, str(status)), self._seconds.labels(route)
