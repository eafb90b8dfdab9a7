"""The documentation's curl examples, run by the real curl, in order."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

POOL = """{
    "pool_name": "test-pool",
    "owner_type": "user",
    "owner_id": "user-123",
    "provider": "nosana",
    "allowed_gpu_types": ["rtx3090"],
    "max_cost_per_hour": 0.50,
    "is_dedicated": false,
    "provider_pool_id": "market-123",
    "scheduling_policy_json": "{}"
  }"""
JSON = ["-H", "Content-Type: application/json"]


@pytest.fixture
def curl(world: Any) -> Callable[..., tuple[int, Any]]:
    """curl("-X", "POST", "/path", ...) -> (status, body)."""
    program = shutil.which("curl")
    assert program, "the examples need curl"

    def run(path: str, *arguments: str) -> tuple[int, Any]:
        url = str(world.http.base_url).rstrip("/") + path
        argv = [program, "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", *arguments, url]
        body, _, code = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.rpartition("\n")
        return int(code), json.loads(body)

    return run


def test_the_examples_work_in_order(curl: Any, world: Any, eventually: Callable[..., Any]) -> None:
    assert curl("/provider/resources")[0] == 200
    assert curl("/provider/resources?provider=nosana")[1]["provider"] == "nosana"
    assert curl("/inventory/providers")[1]["providers"]["nosana"]["adapter_type"] == "depin"
    code, made = curl("/createpool", "-X", "POST", *JSON, "-d", POOL)
    assert (code, made["status"]) == (200, "CREATED")
    assert curl("/createpool", "-X", "POST", *JSON, "-d", POOL) == (
        409,
        {"detail": "Pool 'test-pool' already exists for this owner"},
    )
    deploy = {
        "pool_id": made["pool_id"],
        "model_id": str(uuid4()),
        "model_name": "llama-2-7b",
        "model_version": "v1.0",
        "replicas": 1,
        "gpu_per_replica": 1,
        "configuration": {"image": "vllm/vllm-openai:latest", "engine": "vllm", "workload_type": "inference"},
    }
    code, deployment = curl("/deploy", "-X", "POST", *JSON, "-d", json.dumps(deploy))
    assert (code, deployment["status"]) == (200, "PENDING")
    uid = deployment["deployment_id"]
    assert curl(f"/status/{uid}")[1]["model_name"] == "llama-2-7b"
    world.node(uid, "job-123")
    beat = '{"provider": "nosana", "provider_instance_id": "job-123", "state": "READY", "expose_url": "https://node-123.nosana.io"}'
    eventually(lambda: curl("/inventory/heartbeat", "-X", "POST", *JSON, "-d", beat) == (200, {"status": "ok"}))
    nodes = curl("/inventory/nodes/nosana")[1]["nodes"]
    assert "https://node-123.nosana.io" in [node["expose_url"] for node in nodes]
    assert curl(f"/logs/{uid}/stream")[1]["subscription"]["jobId"] == "job-123"
    assert curl("/terminate", "-X", "POST", *JSON, "-d", f'{{"deployment_id": "{uid}"}}')[1]["status"] == "TERMINATING"
    assert curl(f"/listDeployments/{made['pool_id']}")[1]["total"] == 1
    assert curl(f"/deletepool/{made['pool_id']}", "-X", "POST")[1] == {"pool_id": made["pool_id"], "status": "DELETED"}
    assert curl("/listPools/user-123")[1]["pools"][0]["state"] == "TERMINATING"


def test_a_form_that_a_web_page_could_send_is_refused(curl: Any) -> None:
    assert curl("/createpool", "-X", "POST", "-d", POOL)[0] == 415
