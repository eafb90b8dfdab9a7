"""What the operator is told at its start: flags first, then the environment. Frozen; passed from `main`, read nowhere else."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    #: What happens to a deployment's nodes is merged over this time, before the deployment is looked at.
    node_merge_seconds: float = 0.05
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


#: Flag, environment variable, default, what it is for.
_TEXTS = (
    ("--kubeconfig", "KUBECONFIG", None, "admin or service kubeconfig; in-cluster when absent"),
    ("--namespace", "CAL_NAMESPACE", "default", "accepted for symmetry with the api; all are watched"),
    ("--system-namespace", "CAL_SYSTEM_NAMESPACE", "cal-system", "where the Lease and the providers' Secrets are"),
    ("--metrics-host", "CAL_METRICS_HOST", "127.0.0.1", "address of probes and metrics"),
    ("--identity", "CAL_IDENTITY", None, "holder identity of the Lease; the host's name when absent"),
    ("--enable-adapters", "CAL_ENABLE_ADAPTERS", "", "adapters that load only on request, comma-separated"),
    ("--adapter-state-dir", "CAL_ADAPTER_STATE_DIR", None, "where such adapters keep state"),
)
#: Times that tests and impatient people shorten.
_TIMES = (
    "lease_seconds",
    "sweep_seconds",
    "orphan_grace_seconds",
    "offer_cooldown_seconds",
    "backoff_base_seconds",
    "beat_timeout_seconds",
    "hold_seconds",
)


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from flags and environment. Ends the process with 2 and a usage line on bad ones."""
    parser = argparse.ArgumentParser(
        "python -m cal_operator", description="The operator of the Compute Abstraction Layer."
    )
    for flag, variable, default, purpose in _TEXTS:
        parser.add_argument(flag, default=os.environ.get(variable, default), help=f"{purpose} ({variable})")
    port = os.environ.get("CAL_METRICS_PORT", str(Settings.metrics_port))
    parser.add_argument("--metrics-port", type=int, default=port, help="port of probes and metrics (CAL_METRICS_PORT)")
    for name in _TIMES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Settings, name))
    minutes = os.environ.get("EPHEMERAL_FAILURE_THRESHOLD_MINUTES", str(Settings.ephemeral_failure_minutes))
    parser.add_argument("--ephemeral-failure-minutes", type=float, default=minutes)
    return _settings(vars(parser.parse_args(arguments)))


def _settings(given: dict[str, Any]) -> Settings:
    given.pop("namespace")
    folder, enabled = given.pop("adapter_state_dir"), given.pop("enable_adapters")
    return Settings(
        enabled_adapters=frozenset(filter(None, enabled.split(","))),
        adapter_state_dir=Path(folder) if folder else None,
        identity=given.pop("identity") or socket.gethostname(),
        **given,
    )
