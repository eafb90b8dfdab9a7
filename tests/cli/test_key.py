"""The key of a model on a real `calctl up`: printed for its owner, asked for by the model, the same after a restart, and kept from all others."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from rig.guarded_model import MODEL

pytestmark = pytest.mark.timeout(300)
Calctl = Any


def _answer(endpoint: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        return httpx.get(f"{endpoint}/v1/models", headers=headers, trust_env=False).status_code
    except httpx.TransportError:
        return 0  # it is on its way up again


def _endpoint(calctl: Calctl) -> str:
    return str(json.loads(calctl("get", "deployments", "guarded", "-o", "json").stdout)["endpoint"])


def _secret(calctl: Calctl) -> bytes:
    found = calctl("kubectl", "get", "secret", "cal-model-key", "-n", "cal-system", "-o", "json").stdout
    return base64.b64decode(json.loads(found)["data"]["key"])


def _told(calctl: Calctl, key: str) -> list[str]:
    """Where else the key stands: files of the supervisor and its members, and their command lines."""
    files = (*calctl.state.glob("*.json"), *(calctl.state / "logs").iterdir())
    told = [str(path) for path in files if key in path.read_text(errors="replace")]
    for member in calctl.members().values():
        words = psutil.Process(member["pid"]).cmdline()
        told += [member["name"] for word in words if key in word]
    return told


def test_a_model_asks_for_the_key_that_calctl_prints(calctl: Calctl, eventually: Callable[..., Any]) -> None:
    calctl.up()
    calctl("create", "pool", "here", "--provider", "local", "--gpu-count", "0")
    options = ["--pool", "here", "--port", "8000", "--gpus", "0", "--wait", "--timeout", "60"]
    made = calctl("deploy", "guarded", "--engine", "vllm", *options, "--", sys.executable, "-c", MODEL)
    endpoint = made.stdout.split()[-1]
    key = calctl("key", "guarded").stdout.strip()
    assert [_answer(endpoint, asked) for asked in (key, f"{key}x", None)] == [200, 401, 401]
    assert _told(calctl, key) == []
    file: Path = calctl.state / "model-key"
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_bytes() == _secret(calctl)

    calctl("deploy", "plain", "--image", "x", "--pool", "here")
    for wanted, why in (("plain", "the workload names no engine"), ("nothing", "nothing")):
        refused = calctl("key", wanted, check=False)
        assert refused.returncode == 1 and why in refused.stderr and refused.stdout == ""

    calctl("down")
    calctl.up()
    assert calctl("key", "guarded").stdout.strip() == key
    eventually(lambda: _answer(_endpoint(calctl), key) == 200, timeout=60, interval=0.5)
