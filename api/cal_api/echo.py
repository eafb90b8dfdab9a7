"""Our Workload -> `configuration`, as REST shows it: the way back of `translate`, with every secret hidden."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cal_api.redact import HIDDEN, hidden_arguments, redacted
from cal_api.values import snake
from cal_crds.workload import EnvVar, Port, PortProtocol, Workload

_TYPES = {PortProtocol.HTTP: "http", PortProtocol.WEBSOCKET: "websocket", PortProtocol.TCP: "tcp"}


def configuration(workload: Workload) -> dict[str, Any]:
    """What `translate` would read as this workload, secrets aside; only what is set."""
    whole = {
        "workload_type": snake(workload.type),
        "engine": workload.engine,
        "image": workload.image,
        "entrypoint": hidden_arguments(workload.command),
        "cmd": hidden_arguments(workload.args),
        "env": environment(workload.env),
        "expose": [_port(port, workload) for port in workload.ports],
        "resources": workload.resources.dump() if workload.resources else None,
        "image_pull_secrets": [secret.name for secret in workload.image_pull_secrets],
        "work_dir": workload.working_dir,
    }
    return {name: value for name, value in whole.items() if value not in (None, [], {})}


def environment(variables: Iterable[EnvVar]) -> dict[str, str]:
    """Name -> value, as it may be shown."""
    shown: dict[str, str] = redacted({var.name: _value(var) for var in variables})
    return shown


def _value(var: EnvVar) -> str:
    return HIDDEN if var.value_from else var.value or ""


def _port(port: Port, workload: Workload) -> dict[str, Any]:
    shown: dict[str, Any] = {"port": port.port, "type": _TYPES[port.protocol]}
    probe = workload.readiness_probe
    if probe and probe.http_get and probe.http_get.port == port.name:
        shown["health_checks"] = [{"type": "http", "path": probe.http_get.path}]
    elif probe and probe.tcp_socket and probe.tcp_socket.port == port.name:
        shown["health_checks"] = [{"type": "tcp"}]
    return shown
