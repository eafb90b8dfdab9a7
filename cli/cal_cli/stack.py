"""The three processes of the system itself, as `calctl up` runs them: operator, api, relay."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from cal_cli.bootstrap import SYSTEM_NAMESPACE, embedded, examples
from cal_cli.controlplane import Process
from cal_cli.statedir import StateDir
from cal_cli.supervisor import Supervised

OPERATOR, API, RELAY = "operator", "api", "relay"
USERS = {name: f"calayer:{name}" for name in (OPERATOR, API, RELAY)}
#: A file descriptor that stays open as long as the supervisor lives; what sees it close knows that nobody looks after it.
LIFELINE = "CAL_LIFELINE_FD"


@dataclass(frozen=True)
class Settings:
    """What `calctl up` was asked for."""

    state: StateDir
    api_port: int
    relay_port: int
    metrics_port: int
    demo: bool = False
    namespace: str = "default"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def relay_url(self) -> str:
        return f"http://127.0.0.1:{self.relay_port}"

    @property
    def public_relay_url(self) -> str:
        return f"ws://localhost:{self.relay_port}"

    @property
    def identity(self) -> str:
        """The same for every operator of this state directory, so that a restart needn't wait for the old Lease."""
        return f"calctl-{hashlib.sha256(str(self.state.path).encode()).hexdigest()[:10]}"


def members(settings: Settings, kubeconfigs: Mapping[str, Path], lifeline: int) -> list[Supervised]:
    """The three, not started. `kubeconfigs` by name; `lifeline` is the read end of the supervisor's pipe."""
    adapters = [
        f"--enable-adapters={','.join(embedded(settings.demo))}",
        f"--adapter-state-dir={settings.state.adapters}",
    ]
    flags = {
        OPERATOR: [f"--metrics-port={settings.metrics_port}", f"--identity={settings.identity}", *adapters],
        API: [
            f"--port={settings.api_port}",
            f"--relay-url={settings.relay_url}",
            f"--public-relay-url={settings.public_relay_url}",
            f"--model-key-file={settings.state.model_key}",
        ],
        RELAY: [f"--port={settings.relay_port}", *adapters],
    }
    ports = {OPERATOR: settings.metrics_port, API: settings.api_port, RELAY: settings.relay_port}
    env = {**_environment(), LIFELINE: str(lifeline), "CAL_EXAMPLES": str(examples())}
    return [
        Supervised(
            Process(
                name,
                _argv(name, settings, kubeconfigs[name], flags[name]),
                settings.state.logs / f"{name}.log",
                env=env,
                inherit=(lifeline,),
            ),
            ready=_ready(ports[name]),
        )
        for name in (OPERATOR, RELAY, API)
    ]


def _argv(name: str, settings: Settings, kubeconfig: Path, flags: list[str]) -> list[str]:
    # -P: the current directory is nobody's business (in the repository it has a folder named `operator`).
    return [
        sys.executable,
        "-P",
        "-m",
        f"cal_{name}",
        f"--kubeconfig={kubeconfig}",
        f"--namespace={settings.namespace}",
        f"--system-namespace={SYSTEM_NAMESPACE}",
        *flags,
    ]


def _environment() -> dict[str, str]:
    """Ours, without what would override the flags. A proxy is for providers: what is on this machine is reached directly."""
    env = {name: value for name, value in os.environ.items() if name != "KUBECONFIG" and not name.startswith("CAL_")}
    direct = ",".join(filter(None, [env.get("NO_PROXY") or env.get("no_proxy"), "127.0.0.1,localhost"]))
    return {**env, "NO_PROXY": direct, "no_proxy": direct}


def _ready(port: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    return check
