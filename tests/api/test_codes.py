"""Every status code that the OpenAPI document promises, one row each. A code without a row fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import uuid4

import httpx
import pytest

from cal_api.app import OPERATIONS
from cal_api.openapi import codes
from cal_api.operation import Operation

Row = Callable[["World"], httpx.Response]


class World(Protocol):
    """What rows use of the fixture `world`."""

    http: httpx.Client
    get: Callable[..., httpx.Response]
    post: Callable[..., httpx.Response]
    patch: Callable[..., httpx.Response]
    delete: Callable[..., httpx.Response]
    pool: Callable[..., str]
    pool_body: Callable[..., dict[str, Any]]
    deployment: Callable[..., str]
    node: Callable[..., str]
    reach: Callable[..., None]
    keep_logs: Callable[..., None]
    eventually: Callable[..., Any]
    resource: Callable[..., dict[str, Any]]
    own_elsewhere: Callable[[str, str], None]


def _nobody() -> str:
    return str(uuid4())


def _ended(world: World, state: str = "STOPPED", **fields: Any) -> str:
    deployment = world.deployment(**fields)
    world.reach(deployment, state, world.eventually)
    return deployment


def _logged(world: World) -> str:
    deployment = _ended(world)
    world.reach(deployment, "STOPPED", world.eventually, lastStartTime="2026-01-01T00:00:00Z")
    world.keep_logs(deployment, ["hello"])
    return deployment


def _twice(world: World) -> httpx.Response:
    body = world.pool_body()
    world.post("/createpool", body)
    return world.post("/createpool", body)


def _owned_pool(world: World) -> str:
    pool = world.pool(metadata={"a": 1})
    world.own_elsewhere("pool", pool)
    return pool


def _owned_deployment(world: World, state: str = "RUNNING") -> str:
    deployment = world.deployment()
    world.own_elsewhere("deployment", deployment)
    world.reach(deployment, state, world.eventually)
    return deployment


def _start_in_stopped_pool(world: World, pool: str) -> httpx.Response:
    deployment = _ended(world, pool=pool)
    world.post(f"/stoppool/{pool}")
    return world.post("/start", {"deployment_id": deployment})


def _beat(world: World, instance: str, **fields: Any) -> httpx.Response:
    body = {"provider": "nosana", "provider_instance_id": instance, "state": "READY", **fields}
    return world.post("/inventory/heartbeat", body)


def _beating(world: World) -> httpx.Response:
    instance = f"job-{uuid4()}"
    node = world.node(world.deployment(), instance)
    world.eventually(lambda: instance in world.get("/inventory/nodes/nosana").text)
    assert node in world.get("/inventory/nodes/nosana").text
    return _beat(world, instance)


#: (method, path, code) -> the request that gets it. The codes that any route may answer are made below.
ROWS: dict[tuple[str, str, int], Row] = {
    ("GET", "/status/{deployment_id}", 200): lambda w: w.get(f"/status/{w.deployment()}"),
    ("GET", "/status/{deployment_id}", 404): lambda w: w.get(f"/status/{_nobody()}"),
    ("GET", "/listDeployments/{pool_id}", 200): lambda w: w.get(f"/listDeployments/{w.pool()}"),
    ("GET", "/listDeployments/{pool_id}", 400): lambda w: w.get(f"/listDeployments/{_nobody()}?limit=0"),
    ("GET", "/deployments", 200): lambda w: w.get("/deployments?org_id=nobody"),
    ("GET", "/deployments", 400): lambda w: w.get("/deployments?offset=-1"),
    ("GET", "/list", 200): lambda w: w.get("/list"),
    ("GET", "/list", 400): lambda w: w.get("/list?limit=many"),
    ("POST", "/deploy", 200): lambda w: w.post(
        "/deploy", {"pool_id": w.pool(), "model_name": "m", "configuration": {"engine": "vllm"}}
    ),
    ("POST", "/deploy", 400): lambda w: w.post("/deploy", {"pool_id": "pool-1"}),
    ("POST", "/deploy", 404): lambda w: w.post("/deploy", {"pool_id": _nobody(), "model_name": "m"}),
    ("POST", "/deploy", 409): lambda w: [
        w.post("/deploy", {"pool_id": pool, "model_name": "m", "org_id": "o", "configuration": {"engine": "vllm"}})
        for pool in [w.pool()] * 2
    ][1],
    ("POST", "/deploy", 422): lambda w: [
        w.http.post(
            "/deploy",
            json={"pool_id": pool, "model_name": name, "configuration": {"engine": "vllm"}},
            headers={"Idempotency-Key": "k"},
        )
        for pool in [w.pool()]
        for name in ("one", "another")
    ][1],
    ("POST", "/terminate", 200): lambda w: w.post("/terminate", {"deployment_id": w.deployment()}),
    ("POST", "/terminate", 400): lambda w: w.post("/terminate", {"deployment_id": "1"}),
    ("POST", "/terminate", 404): lambda w: w.post("/terminate", {"deployment_id": _nobody()}),
    ("POST", "/terminate", 409): lambda w: w.post("/terminate", {"deployment_id": _owned_deployment(w)}),
    ("POST", "/start", 200): lambda w: w.post("/start", {"deployment_id": _ended(w)}),
    ("POST", "/start", 400): lambda w: w.post("/start", {}),
    ("POST", "/start", 404): lambda w: w.post("/start", {"deployment_id": _nobody()}),
    ("POST", "/start", 409): lambda w: _start_in_stopped_pool(w, w.pool()),
    ("POST", "/start", 422): lambda w: w.post("/start", {"deployment_id": w.deployment()}),
    ("PATCH", "/update/{deployment_id}", 200): lambda w: w.patch(f"/update/{w.deployment()}", {"replicas": 2}),
    ("PATCH", "/update/{deployment_id}", 400): lambda w: w.patch(f"/update/{w.deployment()}", {"replicas": -1}),
    ("PATCH", "/update/{deployment_id}", 404): lambda w: w.patch(f"/update/{_nobody()}", {"replicas": 2}),
    ("PATCH", "/update/{deployment_id}", 409): lambda w: w.patch(f"/update/{_owned_deployment(w)}", {"replicas": 5}),
    ("DELETE", "/delete/{deployment_id}", 200): lambda w: w.delete(f"/delete/{_ended(w)}"),
    ("DELETE", "/delete/{deployment_id}", 400): lambda w: w.delete(f"/delete/{w.deployment()}"),
    ("DELETE", "/delete/{deployment_id}", 404): lambda w: w.delete(f"/delete/{_nobody()}"),
    ("GET", "/listPools/{owner_id}", 200): lambda w: w.get("/listPools/user-1"),
    ("GET", "/listPools/{owner_id}", 400): lambda w: w.get("/listPools/user-1?limit=501"),
    ("GET", "/pools", 200): lambda w: w.get("/pools"),
    ("GET", "/pools", 400): lambda w: w.get("/pools?limit=1.5"),
    ("GET", "/pool/{pool_id}", 200): lambda w: w.get(f"/pool/{w.pool()}"),
    ("GET", "/pool/{pool_id}", 404): lambda w: w.get("/pool/not-an-id"),
    ("GET", "/list/pool/{pool_id}/inventory", 200): lambda w: w.get(f"/list/pool/{w.pool()}/inventory"),
    ("GET", "/list/pool/{pool_id}/inventory", 404): lambda w: w.get(f"/list/pool/{_nobody()}/inventory"),
    ("POST", "/createpool", 200): lambda w: w.post("/createpool", w.pool_body()),
    ("POST", "/createpool", 400): lambda w: w.post("/createpool", w.pool_body(provider="unknown")),
    ("POST", "/createpool", 409): _twice,
    ("POST", "/createpool", 412): lambda w: w.post("/createpool", w.pool_body(provider_credential_name="other")),
    ("PATCH", "/updatepool/{pool_id}", 200): lambda w: w.patch(f"/updatepool/{w.pool()}", {"metadata": {"a": 1}}),
    ("PATCH", "/updatepool/{pool_id}", 400): lambda w: w.patch(f"/updatepool/{w.pool()}", {"metadata": 1}),
    ("PATCH", "/updatepool/{pool_id}", 404): lambda w: w.patch(f"/updatepool/{_nobody()}", {"metadata": {}}),
    ("PATCH", "/updatepool/{pool_id}", 409): lambda w: w.patch(f"/updatepool/{_owned_pool(w)}", {"metadata": {"b": 2}}),
    ("POST", "/stoppool/{pool_id}", 200): lambda w: w.post(f"/stoppool/{w.pool()}"),
    ("POST", "/stoppool/{pool_id}", 404): lambda w: w.post(f"/stoppool/{_nobody()}"),
    ("POST", "/stoppool/{pool_id}", 409): lambda w: w.post(f"/stoppool/{_owned_pool(w)}"),
    ("POST", "/deletepool/{pool_id}", 200): lambda w: w.post(f"/deletepool/{w.pool()}"),
    ("POST", "/deletepool/{pool_id}", 404): lambda w: w.post(f"/deletepool/{_nobody()}"),
    ("DELETE", "/pool/{pool_id}", 202): lambda w: w.delete(f"/pool/{w.pool()}"),
    ("DELETE", "/pool/{pool_id}", 404): lambda w: w.delete(f"/pool/{_nobody()}"),
    ("POST", "/inventory/heartbeat", 200): _beating,
    ("POST", "/inventory/heartbeat", 400): lambda w: _beat(w, "job", state="SLEEPY"),
    ("POST", "/inventory/heartbeat", 404): lambda w: _beat(w, "no-such-job"),
    ("GET", "/inventory/nodes/{provider}", 200): lambda w: w.get("/inventory/nodes/nosana"),
    ("GET", "/inventory/providers", 200): lambda w: w.get("/inventory/providers"),
    ("GET", "/provider/resources", 200): lambda w: w.get("/provider/resources"),
    ("GET", "/provider/resources", 400): lambda w: w.get("/provider/resources?provider=unknown"),
    ("GET", "/logs/{deployment_id}", 200): lambda w: w.get(f"/logs/{_logged(w)}"),
    ("GET", "/logs/{deployment_id}", 400): lambda w: w.get(f"/logs/{_nobody()}?tail=0"),
    ("GET", "/logs/{deployment_id}", 404): lambda w: w.get(f"/logs/{_nobody()}"),
    ("GET", "/logs/{deployment_id}/stream", 200): lambda w: w.get(f"/logs/{w.deployment()}/stream"),
    ("GET", "/logs/{deployment_id}/stream", 404): lambda w: w.get(f"/logs/{_nobody()}/stream"),
    ("GET", "/key/{deployment_id}", 200): lambda w: w.get(f"/key/{w.deployment()}"),
    ("GET", "/key/{deployment_id}", 404): lambda w: w.get(f"/key/{_nobody()}"),
}


_BY_KEY = {(op.method, op.public_path): op for op in OPERATIONS}
_WITH_BODY = [op for op in OPERATIONS if op.body]


def _name(value: object) -> str:
    if isinstance(value, Operation):
        return f"{value.method} {value.public_path}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _filled(op: Operation) -> str:
    return op.public_path.format(**dict.fromkeys(op.parameters, _nobody()))


@pytest.mark.parametrize("key", ROWS, ids=_name)
def test_every_documented_code_is_met(key: tuple[str, str, int], code_world: Any) -> None:
    reply = ROWS[key](code_world)
    assert reply.status_code == key[2], reply.text
    assert reply.headers["content-type"] == "application/json"
    model = _BY_KEY[key[:2]].reply
    if key[2] < 400:
        model.model_validate(reply.json())
    else:
        assert isinstance(reply.json()["detail"], str) and list(reply.json()) == ["detail"]


@pytest.mark.parametrize("op", OPERATIONS, ids=_name)
def test_a_foreign_host_gets_403(op: Operation, world: Any) -> None:
    reply = world.http.request(op.method, _filled(op), headers={"Host": "evil.example:8080"})
    assert reply.status_code == 403 and "evil.example" in reply.json()["detail"]


@pytest.mark.parametrize("op", OPERATIONS, ids=_name)
def test_without_an_api_server_all_answer_503(op: Operation, dead_api: httpx.Client, world: Any) -> None:
    body = {
        "/createpool": world.pool_body(),
        "/deploy": {"pool_id": _nobody(), "model_name": "m", "configuration": {"engine": "vllm"}},
        "/terminate": {"deployment_id": _nobody()},
        "/start": {"deployment_id": _nobody()},
        "/inventory/heartbeat": {"provider": "p", "provider_instance_id": "i", "state": "ready"},
    }.get(op.path, {})
    reply = dead_api.request(op.method, _filled(op), json=body if op.body else None)
    assert reply.status_code == 503, reply.text
    assert int(reply.headers["retry-after"]) > 0 and reply.json()["detail"]


@pytest.mark.parametrize("op", _WITH_BODY, ids=_name)
def test_a_body_that_is_not_declared_as_json_gets_415(op: Operation, world: Any) -> None:
    reply = world.http.request(op.method, _filled(op), content=b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415 and "application/json" in reply.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "chunked"])
@pytest.mark.parametrize("op", _WITH_BODY, ids=_name)
def test_ten_megabytes_get_413(op: Operation, chunked: bool, world: Any) -> None:
    body = b'{"pool_name": "' + b"x" * 10_000_000 + b'"}'
    content = (body[i : i + 65536] for i in range(0, len(body), 65536)) if chunked else body
    with httpx.Client(base_url=world.http.base_url, trust_env=False) as once:
        reply = once.request(op.method, _filled(op), content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413 and "1048576 bytes" in reply.json()["detail"]


def test_logs_that_cannot_be_fetched_are_a_500_as_documented(lone_api: httpx.Client, code_world: Any) -> None:
    deployment = _logged(code_world)
    code_world.eventually(lambda: lone_api.get(f"/status/{deployment}").json().get("state") == "STOPPED")
    reply = lone_api.get(f"/logs/{deployment}")
    assert reply.status_code == 500 and reply.json()["detail"].startswith("Failed to fetch logs")


def test_every_documented_code_has_a_row() -> None:
    made = {(op.method, op.public_path, code) for op in OPERATIONS for code in (403, 503)}
    made |= {(op.method, op.public_path, code) for op in _WITH_BODY for code in (413, 415)}
    made.add(("GET", "/logs/{deployment_id}", 500))
    documented = {(op.method, op.public_path, code) for op in OPERATIONS for code in codes(op)}
    assert documented == made | set(ROWS)
