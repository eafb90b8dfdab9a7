"""What the relay is told at its start: flags first, then the environment. Nothing else reads either."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cal_crds.loopback import host_argument, port_argument


@dataclass(frozen=True)
class Settings:
    """Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 3000
    #: None: in-cluster.
    kubeconfig: str | None = None
    system_namespace: str = "cal-system"
    enabled: frozenset[str] = frozenset()
    state_dir: Path | None = None
    #: WebSockets at once; a further one is told so and closed.
    max_clients: int = 1000
    #: How long a new WebSocket may take to say what it wants.
    subscribe_timeout: float = 10.0
    #: How often a connection is pinged, and how long the answer may take.
    ping_interval: float = 20.0
    ping_timeout: float = 20.0


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings; argparse ends the process with 2 on a bad flag or value."""
    parser = _parser(environ)
    given = parser.parse_args(arguments)
    return Settings(
        host=given.host,
        port=given.port,
        kubeconfig=given.kubeconfig or None,
        system_namespace=given.system_namespace,
        enabled=frozenset(name.strip() for name in given.enable_adapters.split(",") if name.strip()),
        state_dir=Path(given.adapter_state_dir) if given.adapter_state_dir else None,
        max_clients=given.max_clients,
        subscribe_timeout=given.subscribe_timeout,
        ping_interval=given.ping_interval,
        ping_timeout=given.ping_interval,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cal_relay", description=__doc__, allow_abbrev=False)
    flag = parser.add_argument
    flag("--kubeconfig", default=environ.get("KUBECONFIG"), help="else in-cluster (KUBECONFIG)")
    flag("--namespace", help="taken by every process of the system; the relay serves the nodes of all namespaces")
    flag(
        "--system-namespace",
        default=environ.get("CAL_SYSTEM_NAMESPACE") or "cal-system",
        help="where the providers' Secrets are (CAL_SYSTEM_NAMESPACE)",
    )
    flag("--host", type=host_argument, default="127.0.0.1", help="a loopback address")
    flag("--port", type=port_argument, default=3000)
    flag(
        "--enable-adapters",
        default=environ.get("CAL_ENABLE_ADAPTERS", ""),
        help="adapters that load only on request, comma-separated (CAL_ENABLE_ADAPTERS)",
    )
    flag(
        "--adapter-state-dir",
        default=environ.get("CAL_ADAPTER_STATE_DIR"),
        help="where they keep their state (CAL_ADAPTER_STATE_DIR)",
    )
    flag("--max-clients", type=_positive, default=Settings.max_clients, help="WebSockets at once")
    flag(
        "--subscribe-timeout", type=_positive, default=Settings.subscribe_timeout, help="seconds until the first frame"
    )
    flag("--ping-interval", type=_positive, default=Settings.ping_interval, help="seconds between two pings")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number from 1 to 999999")
    return int(text)
