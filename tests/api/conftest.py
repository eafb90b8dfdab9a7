"""A real api process beside a real relay, on the real API server; the operator's part is written by the tests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from rig import service
from rig.rest_world import PROVIDERS, CodeWorld, World
from rig.service import Service

from cal_cli.controlplane import ControlPlane
from cal_cli.controlplane.plane import free_ports
from cal_crds.meta import API_VERSION, PROVIDER

REPO = Path(__file__).resolve().parents[2]

# A loaded machine is slow, which proves nothing.
settings.register_profile("cal-api", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cal-api")

#: Where the rights of `manifests/rbac/api.yaml` hold.
SYSTEM = "cal-system"
Starter = Callable[..., Service]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For processes of ours: nothing of the caller's settings, and where the source roots are."""
    return service.environment("api", "relay", "adapters", "crds")


@pytest.fixture(scope="session")
def api_kubeconfig(control_plane: ControlPlane, kubectl: Callable[..., Any]) -> Path:
    """The api's own rights, as `calctl up` and the chart give them: the tests must not pass by an admin's."""
    kubectl("create", "namespace", SYSTEM)
    kubectl("apply", "-f", str(REPO / "cli" / "cal_cli" / "manifests" / "rbac" / "api.yaml"))
    return control_plane.user_kubeconfig("calayer:api")


@pytest.fixture(scope="session")
def start_api(
    environment: dict[str, str], api_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Starter]:
    """start_api(flag, ..., ready=True, config=..., port=...) -> Service; all are stopped in the end."""
    running: list[Service] = []

    def start(*flags: str, ready: bool = True, config: Path = api_kubeconfig, port: int | None = None) -> Service:
        log, path = tmp_path_factory.mktemp("api") / "log", "/readyz" if ready else "/health"
        config_flag = f"--kubeconfig={config}"
        running.append(service.launch("cal_api", config_flag, *flags, env=environment, log=log, port=port, ready=path))
        return running[-1]

    yield start
    for api in running:
        api.stop()


@pytest.fixture(scope="session")
def relay_url(environment: dict[str, str], kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real relay."""
    log = tmp_path_factory.mktemp("relay") / "log"
    relay = service.launch("cal_relay", f"--kubeconfig={kubeconfig}", env=environment, log=log)
    yield relay.url
    relay.stop()


@pytest.fixture(scope="session")
def namespaces(kubectl: Callable[..., Any]) -> tuple[str, str]:
    """(the api's, the operator's)."""
    name = f"api-{os.getpid()}"
    kubectl("create", "namespace", name)
    return name, SYSTEM


@pytest.fixture(scope="session")
def providers(kubectl: Callable[..., Any], kubeconfig: Path) -> None:
    """nosana, akash and k8s, registered and seen by the operator."""
    for name in PROVIDERS:
        spec = {"adapter": name, "credentials": [{"name": "main", "secretRef": {"name": "keys"}}]}
        body = {"apiVersion": API_VERSION, "kind": PROVIDER.name, "metadata": {"name": name}, "spec": spec}
        kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    for name, status in PROVIDERS.items():
        patch = json.dumps({"status": {"observedGeneration": 1, **status}})
        kubectl("patch", "cprov", name, "--subresource=status", "--type=merge", "-p", patch)


@pytest.fixture(scope="session")
def model_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installation's key as a mounted Secret would have it."""
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(os.urandom(32))
    return path


@pytest.fixture(scope="session")
def api(
    start_api: Starter, namespaces: tuple[str, str], providers: None, relay_url: str, model_key_file: Path
) -> Service:
    """The api that most tests talk to."""
    namespace, system = namespaces
    where = (f"--namespace={namespace}", f"--system-namespace={system}")
    return start_api(*where, f"--relay-url={relay_url}", f"--model-key-file={model_key_file}")


@pytest.fixture(scope="session")
def world(api: Service, namespaces: tuple[str, str], kubeconfig: Path) -> Iterator[World]:
    with httpx.Client(base_url=api.url, timeout=30, trust_env=False) as http:
        yield World(http, kubeconfig, *namespaces)


@pytest.fixture(scope="session")
def dead_api(start_api: Starter, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an api whose API server nobody has ever reached."""
    path = tmp_path_factory.mktemp("dead") / "kubeconfig"
    nobody = f"https://127.0.0.1:{free_ports(1)[0]}"
    path.write_text(re.sub(r"https://127\.0\.0\.1:\d+", nobody, kubeconfig.read_text()))
    with httpx.Client(base_url=start_api(ready=False, config=path).url, timeout=30, trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def lone_api(start_api: Starter, namespaces: tuple[str, str], providers: None) -> Iterator[httpx.Client]:
    """A client of an api without a relay."""
    flag = f"--relay-url=http://127.0.0.1:{free_ports(1)[0]}"
    with httpx.Client(
        base_url=start_api(f"--namespace={namespaces[0]}", flag).url, timeout=30, trust_env=False
    ) as http:
        yield http


@pytest.fixture(scope="session")
def code_world(world: World, eventually: Callable[..., Any]) -> CodeWorld:
    return CodeWorld(world.http, world.kubeconfig, world.namespace, world.system_namespace, eventually)
