"""Ports that somebody else listens on: named before anything is started."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from cal_cli.controlplane.plane import port_is_free
from cal_cli.errors import Failure


def refuse_taken(ports: Mapping[str, int]) -> None:
    """Raises `Failure` when a port is taken, or asked for twice. `ports` by the flags that choose them."""
    if len(set(ports.values())) < len(ports):
        raise Failure(f"{' and '.join(ports)} are both {next(iter(ports.values()))}; they must differ")
    for flag, port in ports.items():
        if not port_is_free(port):
            raise Failure(f"port {port} is in use{_user_of(port)}; choose another with {flag}")


def _user_of(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                name = psutil.Process(connection.pid).name() if connection.pid else "another user's process"
                return f" by {name} (pid {connection.pid})" if connection.pid else f" by {name}"
    except psutil.Error:
        pass  # not allowed to look: the port itself says enough
    return ""
