"""`expose` of a configuration -> ports and the readiness probe: a number, "8000", "8000-8002", or a list of those and of objects."""

from __future__ import annotations

import re
from typing import Any

from cal_api.draft import items, mapping, text, whole
from cal_api.errors import BadRequest, bad

_MOST = 16
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(?:tcp|http))?")
_PROTOCOLS = {
    "http": "Http",
    "https": "Http",
    "api": "Http",
    "web": "Http",
    "webapi": "Http",
    "websocket": "WebSocket",
    "ws": "WebSocket",
    "tcp": "Tcp",
    "none": "Tcp",
}
_KINDS = {"http": "httpGet", "https": "httpGet", "websocket": "tcpSocket", "tcp": "tcpSocket"}

Port = dict[str, Any]
Probe = dict[str, Any]


def read(where: str, value: Any) -> tuple[list[Port], Probe | None]:
    """The ports in order (the first is the endpoint), and the first health check as a probe."""
    entries = items(where, value, _MOST) if isinstance(value, list) else [value]
    ports: list[Port] = []
    probe: Probe | None = None
    for index, entry in enumerate(entries):
        place = f"{where}.{index}" if isinstance(value, list) else where
        added = _numbers(place, entry)
        protocol = _protocol(place, entry)
        ports += [
            {"name": _name(ports, number, offset), "port": number, "protocol": protocol}
            for offset, number in enumerate(added)
        ]
        if probe is None and isinstance(entry, dict) and entry.get("health_checks"):
            probe = _probe(f"{place}.health_checks", entry["health_checks"], ports[-1]["name"])
    _no_doubles(where, ports)
    return ports, probe


def _numbers(where: str, entry: Any) -> list[int]:
    if isinstance(entry, dict):
        if "port" not in entry:
            raise BadRequest(f"{where}.port: is required")
        return _numbers(f"{where}.port", entry["port"])
    if not isinstance(entry, str):
        return [whole(where, entry, 1, 65535)]
    found = _RANGE.fullmatch(entry.strip())
    if not found:
        raise bad(where, entry, "must be a port, or a range like 8000-8002")
    first = whole(where, int(found[1]), 1, 65535)
    last = whole(where, int(found[2] or first), first, min(65535, first + _MOST - 1))
    return list(range(first, last + 1))


def _protocol(where: str, entry: Any) -> str:
    if not isinstance(entry, dict) or entry.get("type") is None:
        return "Http"
    word = text(f"{where}.type", entry["type"]).lower()
    if word not in _PROTOCOLS:
        raise bad(f"{where}.type", entry["type"], f"must be one of {list(_PROTOCOLS)}")
    return _PROTOCOLS[word]


def _name(before: list[Port], number: int, offset: int) -> str:
    return f"port-{number}" if before or offset else "http"


def _probe(where: str, value: Any, port: str) -> Probe:
    checks = [mapping(f"{where}.{i}", check) for i, check in enumerate(items(where, value, _MOST))]
    kinds = [_kind(f"{where}.{i}.type", check) for i, check in enumerate(checks)]
    chosen = kinds.index("httpGet") if "httpGet" in kinds else 0
    if kinds[chosen] == "tcpSocket":
        return {"tcpSocket": {"port": port}}
    path = text(f"{where}.{chosen}.path", checks[chosen].get("path") or "/", 1024)
    if not re.fullmatch(r"/[^\s]*", path):
        raise bad(f"{where}.{chosen}.path", path, "must start with / and hold no spaces")
    return {"httpGet": {"path": path, "port": port}}


def _kind(where: str, check: Any) -> str:
    word = text(where, check.get("type", "http")).lower()
    if word not in _KINDS:
        raise bad(where, word, f"must be one of {list(_KINDS)}")
    return _KINDS[word]


def _no_doubles(where: str, ports: list[Port]) -> None:
    numbers = [port["port"] for port in ports]
    if len(numbers) > _MOST:
        raise BadRequest(f"{where}: {len(numbers)} ports are too many; at most {_MOST}")
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise BadRequest(f"{where}: port {twice[0]} stands there twice")
