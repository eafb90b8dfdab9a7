"""What each process may do at the API server: what it needs, and nothing that would matter if it were taken over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Calctl = Any

ROWS = [
    # who, verb, resource, namespace, may
    ("operator", "create", "computenodes.calayer.dev", "default", True),
    ("operator", "patch", "computenodes.calayer.dev/status", "default", True),
    ("operator", "delete", "modeldeployments.calayer.dev", "default", True),
    ("operator", "delete", "computepools.calayer.dev", "default", False),
    ("operator", "create", "modeldeployments.calayer.dev", "default", False),
    ("operator", "list", "secrets", "default", False),
    ("operator", "get", "secrets", "cal-system", True),
    ("operator", "create", "secrets", "cal-system", True),
    ("operator", "create", "secrets", "default", False),
    ("operator", "create", "clusterroles.rbac.authorization.k8s.io", "", False),
    ("api", "create", "modeldeployments.calayer.dev", "default", True),
    ("api", "create", "computenodes.calayer.dev", "default", False),
    ("api", "patch", "computenodes.calayer.dev", "default", False),
    ("api", "patch", "computenodes.calayer.dev/status", "default", True),
    ("api", "patch", "modeldeployments.calayer.dev/status", "default", False),
    ("api", "create", "secrets", "default", True),
    ("api", "get", "secrets", "default", False),
    ("api", "list", "secrets", "default", False),
    ("api", "get", "secrets", "cal-system", False),
    ("api", "patch", "computeproviders.calayer.dev", "", False),
    ("relay", "list", "computenodes.calayer.dev", "default", True),
    ("relay", "get", "secrets", "cal-system", True),
    ("relay", "get", "secrets", "default", False),
    ("relay", "patch", "computenodes.calayer.dev", "default", False),
    ("relay", "create", "configmaps", "default", False),
]


@pytest.fixture(scope="module")
def can(system: Calctl, binaries: dict[str, Path]) -> Callable[..., bool]:
    def ask(who: str, verb: str, resource: str, namespace: str) -> bool:
        kubeconfig = system.state / "users" / f"calayer-{who}.kubeconfig"
        name, _, subresource = resource.partition("/")
        argv = [str(binaries["kubectl"]), f"--kubeconfig={kubeconfig}", "auth", "can-i", verb, name]
        argv += [f"--subresource={subresource}"] if subresource else []
        if namespace:
            argv.append(f"--namespace={namespace}")
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert result.stdout.strip() in ("yes", "no"), result.stderr
        return result.stdout.strip() == "yes"

    return ask


@pytest.mark.parametrize(("who", "verb", "resource", "namespace", "may"), ROWS)
def test_rights(can: Callable[..., bool], who: str, verb: str, resource: str, namespace: str, may: bool) -> None:
    assert can(who, verb, resource, namespace) is may


def test_nothing_was_refused_in_the_whole_life_of_a_deployment(system: Calctl, eventually: Callable[..., Any]) -> None:
    """Made, fed with a secret, asked for its log, terminated: each process had the rights for its part."""
    system("create", "pool", "rights", "--provider", "demo")
    secret = ["--env", "API_KEY=hunter2"]
    system("deploy", "whole", "--pool", "rights", "--gpus", "1", "--image", "x", *secret, "--wait", "--timeout", "90")
    assert system("logs", "whole").stdout
    system("terminate", "whole")
    eventually(lambda: "TERMINATED" in system("get", "deployments").stdout, timeout=90, interval=1)
    assert system("logs", "whole").stdout
    for name in ("operator", "api", "relay"):
        log = (system.state / "logs" / f"{name}.log").read_text().lower()
        refusals = [line for line in log.splitlines() if "forbidden" in line or "traceback" in line]
        assert refusals == []
        assert "hunter2" not in log
