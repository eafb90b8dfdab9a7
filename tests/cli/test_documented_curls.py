"""The API document's curl examples, run as they are written, in order, against a real `calctl up`.

Only the base URL is another one, and the ids are those that earlier answers gave. Nosana and Akash are registered without a credential, as `up`
registers them; so that no test asks a real provider, their objects are there beforehand, with endpoints on this machine: a Nosana to test
against, and a port where nobody listens. `up` leaves providers that are there as they are.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds.nosana import Nosana

from cal_cli.bootstrap import documents

pytestmark = pytest.mark.timeout(300)
Calctl = Any
Ask = Callable[..., tuple[int, Any]]
BASE = "http://localhost:8080"
PAGES = Path(__file__).resolve().parents[2] / "docs" / "adapters"
REMOTE = Path(__file__).resolve().parents[2] / "cli" / "cal_cli" / "manifests" / "remote"

RESOURCES = "curl http://localhost:8080/provider/resources"
RESOURCES_OF_ONE = "curl http://localhost:8080/provider/resources?provider=nosana"
CAPABILITIES = "curl http://localhost:8080/inventory/providers"
CREATE_POOL = r"""
curl -X POST http://localhost:8080/createpool \
  -H "Content-Type: application/json" \
  -d '{
    "pool_name": "test-pool",
    "owner_type": "user",
    "owner_id": "user-123",
    "provider": "nosana",
    "allowed_gpu_types": ["rtx3090"],
    "max_cost_per_hour": 0.50,
    "is_dedicated": false,
    "provider_pool_id": "market-123",
    "scheduling_policy_json": "{}"
  }'
"""
HEARTBEAT = r"""
curl -X POST http://localhost:8080/inventory/heartbeat \
  -H "Content-Type: application/json" \
  -d '{
    "provider": "nosana",
    "provider_instance_id": "job-123",
    "state": "READY",
    "expose_url": "https://node-123.nosana.io"
  }'
"""

# --- the bodies that the document shows beside its routes

FULL_HEARTBEAT = """{
  "provider": "nosana",
  "provider_instance_id": "job-address-123",
  "gpu_allocated": 1,
  "vcpu_allocated": 8,
  "ram_gb_allocated": 32,
  "health_score": 100,
  "state": "READY",
  "expose_url": "https://node-123.nosana.io"
}"""
FULL_POOL = """{
  "pool_name": "my-gpu-pool",
  "owner_type": "user",
  "owner_id": "user-123",
  "provider": "nosana",
  "allowed_gpu_types": ["rtx3090", "rtx4090"],
  "max_cost_per_hour": 1.00,
  "is_dedicated": false,
  "provider_pool_id": "market-address-123",
  "scheduling_policy_json": "{}"
}"""
DEPLOY = """{
  "pool_id": "uuid",
  "model_id": "optional-model-uuid",
  "model_name": "llama-2-7b",
  "model_version": "v1.0",
  "replicas": 1,
  "gpu_per_replica": 1,
  "configuration": {
    "image": "vllm/vllm-openai:latest",
    "engine": "vllm",
    "workload_type": "inference"
  }
}"""
HEARTBEAT_OF_UNICODE = '{"provider": "nosana", "provider_instance_id": "j\u00f6b-\U0001f680", "state": "READY"}'
TERMINATE = """{
  "deployment_id": "uuid"
}"""


def _manifests(endpoints: dict[str, str]) -> list[dict[str, Any]]:
    """The providers as `up` registers them, each with an endpoint on this machine. Fails for one that has none here."""
    bodies = list(documents(REMOTE))
    for body in bodies:
        body["spec"]["endpoint"] = endpoints[body["metadata"]["name"]]
    return bodies


@pytest.fixture
def examples(calctl: Calctl, free_port: int) -> Iterator[Calctl]:
    """`calctl up`, with nosana and akash registered without a credential. No provider outside this machine is asked."""
    with Nosana().serve() as nosana:
        endpoints = {"nosana": nosana, "akash": f"http://127.0.0.1:{free_port}"}
        calctl.up()  # offline
        calctl("kubectl", "apply", "-f", "-", stdin=yaml.safe_dump_all(_manifests(endpoints)))
        _check_endpoints(calctl, endpoints)
        calctl("down")
        calctl("up", "--detach", f"--api-port={calctl.api_port}", f"--relay-port={calctl.relay_port}")
        _check_endpoints(calctl, endpoints)
        yield calctl
        calctl("down")


def _check_endpoints(calctl: Calctl, endpoints: dict[str, str]) -> None:
    listed = json.loads(calctl("kubectl", "get", "cprov", "-o", "json").stdout)["items"]
    found = {item["metadata"]["name"]: item["spec"] for item in listed}
    assert {name: spec.get("endpoint") for name, spec in found.items() if name != "local"} == endpoints
    assert not any("credentials" in spec for spec in found.values())


@pytest.fixture
def ask(examples: Calctl) -> Ask:
    """ask(command): runs a curl of the document's in a shell; status and body."""
    shown = "curl() { command curl --silent --show-error --noproxy '*' --write-out '\\n%{http_code}' \"$@\"; }\n"

    def run(command: str) -> tuple[int, Any]:
        script = "set -eu\n" + shown + command.replace(BASE, f"http://localhost:{examples.api_port}")
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    return run


def post(path: str, body: str) -> str:
    return f"curl -X POST {BASE}{path} -H \"Content-Type: application/json\" -d '{body}'"


def test_the_curl_examples_then_every_route_in_the_documents_order(
    ask: Ask, examples: Calctl, eventually: Callable[..., Any]
) -> None:
    _curl_examples(ask, eventually)
    status, pool = ask(CREATE_POOL.replace("test-pool", "second-pool"))
    assert status == 200
    _inventory_routes(ask)
    _pool_routes(ask)
    _deployment_routes(ask, pool["pool_id"], examples, eventually)
    _bad_words(ask, pool["pool_id"])


def _curl_examples(ask: Ask, eventually: Callable[..., Any]) -> None:
    # Offers come from the public endpoint; where nobody answers there is an entry in `errors`.
    eventually(lambda: {"nosana", "akash"} <= _told(ask(RESOURCES)[1]), timeout=30)
    status, found = ask(RESOURCES)
    assert status == 200
    assert {offer["provider"] for offer in found["resources"]} == {"nosana", "local"}
    (trouble,) = found["errors"]
    assert trouble["provider"] == "akash"
    assert "can't be reached" in trouble["error"]
    status, found = ask(RESOURCES_OF_ONE)
    assert (status, found["errors"]) == (200, [])
    rtx = next(offer for offer in found["resources"] if offer["gpu_type"] == "nvidia-rtx-3090")
    assert (rtx["_provider"], rtx["gpu_count"], rtx["price_per_hour"]) == ("nosana", 1, 0.2112)
    status, known = ask(CAPABILITIES)
    assert status == 200
    assert known["providers"]["nosana"]["capabilities"]["supports_log_streaming"] is True
    assert known["providers"]["akash"]["capabilities"]["pricing_model"] == "auction"
    status, made = ask(CREATE_POOL)
    assert (status, made["status"]) == (200, "CREATED")
    assert ask(CREATE_POOL)[0] == 409
    # Nobody has a job of that name: that is what the document says of it.
    assert ask(HEARTBEAT) == (404, {"detail": "Node not found"})


def _told(resources: Any) -> set[str]:
    return {item["provider"] for key in ("resources", "errors") for item in resources[key]}


def _inventory_routes(ask: Ask) -> None:
    assert ask(f"curl '{BASE}/provider/resources?provider=unknown'")[0] == 400
    assert ask(post("/inventory/heartbeat", FULL_HEARTBEAT))[0] == 404
    assert ask(f"curl {BASE}/inventory/nodes/nosana") == (200, {"nodes": [], "total": 0})
    assert ask(f"curl {BASE}/inventory/providers")[0] == 200


def _pool_routes(ask: Ask) -> None:
    status, made = ask(post("/createpool", FULL_POOL))
    assert (status, made["status"]) == (200, "CREATED")
    status, refused = ask(post("/createpool", FULL_POOL.replace('"nosana"', '"unknown"')))
    assert status == 400
    assert refused["detail"].startswith("No adapter registered for provider 'unknown'. Available providers: ['")
    status, listed = ask(f"curl {BASE}/listPools/user-123")
    assert status == 200
    names = {pool["pool_name"]: pool["state"] for pool in listed["pools"]}
    assert names == {"my-gpu-pool": "ACTIVE", "test-pool": "ACTIVE", "second-pool": "ACTIVE"}
    deleted = ask(f"curl -X POST {BASE}/deletepool/{made['pool_id']}")
    assert deleted == (200, {"pool_id": made["pool_id"], "status": "DELETED"})


def _deployment_routes(ask: Ask, pool: str, examples: Calctl, eventually: Callable[..., Any]) -> None:
    status, made = ask(post("/deploy", DEPLOY.replace('"uuid"', f'"{pool}"')))
    assert (status, made["status"]) == (200, "PENDING")
    uid = made["deployment_id"]
    _waits_for_a_credential(ask, uid, "nosana", examples, eventually)
    status, found = ask(f"curl {BASE}/status/{uid}")
    assert (status, found["model_name"], found["pool_id"], found["replicas"]) == (200, "llama-2-7b", pool, 1)
    status, ended = ask(post("/terminate", TERMINATE.replace('"uuid"', f'"{uid}"')))
    assert (status, ended["deployment_id"], ended["status"]) == (200, uid, "TERMINATING")
    status, listed = ask(f"curl {BASE}/listDeployments/{pool}")
    assert (status, [item["deployment_id"] for item in listed["deployments"]]) == (200, [uid])
    status, logs = ask(f"curl '{BASE}/logs/{uid}?tail=100'")
    assert (status, logs["provider"], logs["logs"]) == (200, "nosana", ["Waiting for node provisioning..."])
    status, stream = ask(f"curl {BASE}/logs/{uid}/stream")
    assert (status, stream["supported"], stream["subscription"]["type"]) == (200, True, "subscribe_logs")
    assert ask(f"curl {BASE}/status/00000000-0000-4000-8000-000000000000")[0] == 404
    eventually(lambda: ask(f"curl {BASE}/status/{uid}")[1]["state"] == "TERMINATED", timeout=30)


def _bad_words(ask: Ask, pool: str) -> None:
    """Refused by name, or taken as the plain text that they are."""
    body = DEPLOY.replace('"uuid"', f'"{pool}"')
    for image in ("acme/model:1; rm -rf /", "$(id)", r"acme/model\nkind: x", "a b", "`id`", "{{x}}"):
        status, refused = ask(post("/deploy", body.replace("vllm/vllm-openai:latest", image)))
        assert status == 400, image
        assert "image" in refused["detail"]
    assert ask(post("/inventory/heartbeat", HEARTBEAT_OF_UNICODE))[0] == 404
    env = r"""{"A": "two\nlines: \"quoted\" $(id) `id` %s"}"""
    status, made = ask(post("/deploy", body.replace('"engine"', f'"env": {env}, "engine"')))
    assert status == 200
    shown = ask(f"curl {BASE}/status/{made['deployment_id']}")[1]["configuration"]["env"]
    assert shown == {"A": 'two\nlines: "quoted" $(id) `id` %s'}


def _waits_for_a_credential(
    ask: Ask, uid: str, provider: str, examples: Calctl, eventually: Callable[..., Any]
) -> None:
    """It says what is missing, by REST and to a person."""
    found = eventually(lambda: (seen := ask(f"curl {BASE}/status/{uid}")[1])["waiting"] and seen, timeout=30)
    assert (found["state"], found["waiting"]["reason"]) == ("PENDING", "NoCredentials")
    assert f"provider {provider} has no credentials" in found["waiting"]["message"]
    assert f"provider {provider} has no credentials" in examples("explain", uid).stdout


def test_the_commands_of_the_adapters_pages(ask: Ask, examples: Calctl) -> None:
    """Each curl is answered as it should be, each kubectl and each resource is accepted."""
    found = {page.name: page.read_text() for page in sorted(PAGES.glob("*.md"))}
    assert {"nosana.md", "akash.md"} <= found.keys()
    for name, text in found.items():
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if block.startswith("curl "):
                assert ask(block.replace("localhost:8080", BASE))[1]["status"] == "CREATED", name
            elif block.startswith("kubectl -n cal-system create secret") and "--from-file" not in block:
                examples("kubectl", *shlex.split(block)[1:], "--dry-run=server")
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if block.startswith("apiVersion: "):
                examples("kubectl", "apply", "--dry-run=server", "-f", "-", stdin=block)


def test_akash_takes_the_same_examples(ask: Ask, examples: Calctl, eventually: Callable[..., Any]) -> None:
    created = CREATE_POOL.replace('"nosana"', '"akash"')
    status, refused = ask(created)
    assert status == 400
    assert "akash-gpu-market" in refused["detail"], "what a pool at Akash may be called"
    status, pool = ask(created.replace("market-123", "akash-gpu-market"))
    assert (status, pool["status"]) == (200, "CREATED")
    status, made = ask(post("/deploy", DEPLOY.replace('"uuid"', f'"{pool["pool_id"]}"')))
    assert (status, made["status"]) == (200, "PENDING")
    _waits_for_a_credential(ask, made["deployment_id"], "akash", examples, eventually)
    assert ask(RESOURCES_OF_ONE.replace("nosana", "akash"))[1]["resources"] == []
