"""What the operator is told at its start: flags first, then the environment. Frozen; passed from `main`, read nowhere else."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Times in seconds."""

    kubeconfig: str | None = None
    system_namespace: str = "cal-system"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8081
    identity: str = "operator"
    enabled_adapters: frozenset[str] = frozenset()
    adapter_state_dir: Path | None = None
    lease_seconds: float = 15.0
    #: How long a passing state must last to be written: what comes and goes within it costs no write.
    hold_seconds: float = 1.0
    #: Deployments' changes are merged into one pool status write over this time.
    pool_merge_seconds: float = 1.0
    resync_seconds: float = 60.0
    sweep_seconds: float = 60.0
    #: An orphan is stopped when it was seen twice, this far apart.
    orphan_grace_seconds: float = 30.0
    #: A replacement of a replica that never served waits this long, doubled with each attempt, at most `backoff_max_seconds`.
    backoff_base_seconds: float = 5.0
    backoff_max_seconds: float = 300.0
    #: An offer that had no room, or whose price rose above the cap, is left alone for this long.
    offer_cooldown_seconds: float = 30.0
    #: A node that has beaten and was silent for so long is unhealthy, if its provider or probe agrees.
    beat_timeout_seconds: float = 120.0
    #: An ephemeral instance that ends within this time of its last start has failed; later it has stopped.
    ephemeral_failure_minutes: float = 10.0


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from flags and environment. Ends the process with 2 and a usage line on bad ones."""
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m cal_operator", description="The operator of the Compute Abstraction Layer."
    )
    parser.add_argument(
        "--kubeconfig", default=env("KUBECONFIG"), help="admin or service kubeconfig; in-cluster when absent"
    )
    parser.add_argument(
        "--namespace",
        default=env("CAL_NAMESPACE", "default"),
        help="accepted for symmetry with the api; all are watched",
    )
    parser.add_argument(
        "--system-namespace", default=env("CAL_SYSTEM_NAMESPACE", "cal-system"), help="Lease and provider Secrets"
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=int(env("CAL_METRICS_PORT", "8081")),
        help="127.0.0.1 port of probes and metrics",
    )
    parser.add_argument(
        "--identity", default=env("CAL_IDENTITY", socket.gethostname()), help="holder identity of the Lease"
    )
    parser.add_argument(
        "--enable-adapters", default=env("CAL_ENABLE_ADAPTERS", ""), help="on-request adapters, comma-separated"
    )
    parser.add_argument(
        "--adapter-state-dir", type=Path, default=env("CAL_ADAPTER_STATE_DIR"), help="where such adapters keep state"
    )
    for name in (
        "lease_seconds",
        "sweep_seconds",
        "orphan_grace_seconds",
        "offer_cooldown_seconds",
        "backoff_base_seconds",
        "beat_timeout_seconds",
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Settings, name))
    minutes = float(env("EPHEMERAL_FAILURE_THRESHOLD_MINUTES", str(Settings.ephemeral_failure_minutes)))
    parser.add_argument("--ephemeral-failure-minutes", type=float, default=minutes)
    given = vars(parser.parse_args(arguments))
    given.pop("namespace")
    enabled = frozenset(filter(None, given.pop("enable_adapters").split(",")))
    return Settings(enabled_adapters=enabled, **given)
