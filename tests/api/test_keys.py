"""GET /key: whose key it is, when there is none, and that nothing else ever shows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cal_api.__main__ import parse
from cal_crds.modelkeys import derive

ZERO = "00000000-0000-0000-0000-000000000000"


def test_it_is_derived_from_the_file_for_this_deployment_alone(world: Any, model_key_file: Path) -> None:
    first, second = world.deployment(), world.deployment(configuration={"engine": "sglang"})
    reply = world.get(f"/key/{first}")
    key = derive(model_key_file.read_bytes(), first)
    assert reply.json() == {"deployment_id": first, "api_key": key, "header": f"Authorization: Bearer {key}"}
    assert reply.headers["cache-control"] == "no-store"
    assert world.get(f"/v1/deployment/key/{first.upper()}").json() == reply.json()
    assert world.get(f"/key/{second}").json()["api_key"] == derive(model_key_file.read_bytes(), second) != key


def test_a_deployment_that_has_ended_keeps_its_key(world: Any, eventually: Callable[..., Any]) -> None:
    deployment = world.deployment()
    before = world.get(f"/key/{deployment}").json()
    world.reach(deployment, "STOPPED", eventually)
    assert world.get(f"/key/{deployment}").json() == before


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"image": "acme/plain:1"}, "the workload names no engine"),
        ({"engine": "my-engine", "image": "acme/x:1"}, "the engine 'my-engine' is none that we know"),
        ({"engine": "ollama"}, "ollama knows no API keys"),
        ({"engine": "vllm", "api_key": "hunter2"}, "the workload sets VLLM_API_KEY itself"),
        ({"engine": "tei", "api_key": "hunter2"}, "the workload sets API_KEY itself"),
        ({"engine": "infinity", "env": {"INFINITY_API_KEY": "hunter2"}}, "the workload sets INFINITY_API_KEY itself"),
        ({"engine": "vllm", "cmd": ["--model", "m", "--api-key", "hunter2"]}, "the workload gives --api-key itself"),
        ({"engine": "sglang", "cmd": ["--model-path", "m"]}, "by a command of its own"),
    ],
)
def test_where_there_is_none_of_ours_the_detail_says_why(world: Any, configuration: dict[str, Any], why: str) -> None:
    deployment = world.deployment(configuration=configuration)
    reply = world.get(f"/key/{deployment}")
    assert reply.status_code == 404
    detail = reply.json()["detail"]
    assert deployment in detail and why in detail and "hunter2" not in detail


def test_an_external_endpoint_has_the_key_of_whoever_runs_it(world: Any) -> None:
    body = {"workload_type": "external", "endpoint": "http://127.0.0.1:9/v1", "configuration": {"engine": "vllm"}}
    deployment = world.deployment(pool=ZERO, **body)
    reply = world.get(f"/key/{deployment}")
    assert reply.status_code == 404 and "external endpoint" in reply.json()["detail"]


def test_an_api_that_was_started_without_the_key_says_so(
    lone_api: httpx.Client, world: Any, eventually: Callable[..., Any]
) -> None:
    deployment = world.deployment()
    eventually(lambda: lone_api.get(f"/status/{deployment}").status_code == 200)
    reply = lone_api.get(f"/key/{deployment}")
    assert reply.status_code == 503 and "--model-key-file" in reply.json()["detail"]
    assert lone_api.get(f"/key/{ZERO}").status_code == 404


def test_a_key_that_is_mounted_late_or_goes_is_noticed(
    start_api: Callable[..., Any], world: Any, tmp_path: Path
) -> None:
    deployment, path = world.deployment(), tmp_path / "key"
    api = start_api(f"--model-key-file={path}")
    with httpx.Client(base_url=api.url, trust_env=False) as http:
        missing = http.get(f"/key/{deployment}")
        assert missing.status_code == 503 and "retry-after" in missing.headers
        path.write_bytes(os.urandom(32))
        assert http.get(f"/key/{deployment}").json()["api_key"] == derive(path.read_bytes(), deployment)
        path.write_bytes(b"hunter2")
        assert http.get(f"/key/{deployment}").status_code == 503
    api.stop()
    log = api.log.read_text()
    assert f"{path}: No such file" in log and "must hold 32" in log and "hunter2" not in log


def test_the_flag_wins_over_the_environment() -> None:
    flag, environment = ["--model-key-file=/a"], {"CAL_MODEL_KEY_FILE": "/b"}
    said = [parse(flags, told).settings.model_key_file for flags in (flag, []) for told in (environment, {})]
    assert said == [Path("/a"), Path("/a"), Path("/b"), None]


def test_nothing_else_ever_shows_it(world: Any, api: Any, model_key_file: Path) -> None:
    pool = world.pool()
    deployment = world.deployment(pool=pool)
    node = world.node(deployment, "job-of-a-key")
    key = world.get(f"/key/{deployment}").json()["api_key"]
    paths = (
        *(f"/status/{deployment}", f"/listDeployments/{pool}", "/deployments", f"/list/pool/{pool}/inventory"),
        *(f"/logs/{deployment}", f"/logs/{deployment}/stream", "/inventory/nodes/nosana", "/metrics", "/openapi.json"),
    )
    shown = {path: world.get(path).text for path in paths}
    assert deployment in shown[f"/status/{deployment}"] and node
    assert [path for path, text in shown.items() if key in text] == []
    assert key not in api.log.read_text()
