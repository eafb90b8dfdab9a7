"""Values that are almost right: taken where they can mean one thing only, else refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from cal_api.values import ZERO_UUID


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("prefix", ["", "/api/v1/deployment"])
def test_a_refused_method_hears_of_all_that_are_allowed(world: Any, method: str, prefix: str) -> None:
    reply = world.http.request(method, f"{prefix}/pool/{ZERO_UUID}")
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


@pytest.mark.parametrize("field", ["endpoint", "engine", "hf_token_name", "workload_type", "model_id", "org_id"])
def test_empty_text_is_absent(world: Any, field: str) -> None:
    body = {"pool_id": world.pool(), "model_name": "m", "configuration": {"engine": "vllm"}, field: ""}
    reply = world.post("/deploy", body)
    assert reply.status_code == 200, reply.text
    shown = world.get(f"/status/{reply.json()['deployment_id']}").json()
    assert (shown["engine"], shown["workload_type"]) == ("vllm", "inference")
    assert shown["model_id"] is None and shown["org_id"] is None


def test_an_empty_endpoint_changes_nothing(world: Any) -> None:
    uid = world.deployment()
    shown = world.get(f"/status/{uid}").json()
    assert world.patch(f"/update/{uid}", {"endpoint": shown["endpoint"], "replicas": 1}).status_code == 200


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"cmd": ["a"], "args": ["b"]}, "configuration.args: says something else than configuration.cmd"),
        (
            {"entrypoint": "a", "command": "b"},
            "configuration.command: says something else than configuration.entrypoint",
        ),
        ({"gpu_count": 4, "gpu": 1}, "configuration.gpu: says something else than configuration.gpu_count"),
    ],
)
def test_two_names_of_one_thing_must_agree(world: Any, configuration: dict[str, Any], words: str) -> None:
    body = {"pool_id": world.pool(), "model_name": "m", "configuration": {"engine": "vllm", **configuration}}
    reply = world.post("/deploy", body)
    assert reply.status_code == 400 and reply.json()["detail"].startswith(words), reply.text
    first = next(iter(configuration.values()))
    body["configuration"] = {"engine": "vllm", **dict.fromkeys(configuration, first)}
    assert world.post("/deploy", body).status_code == 200


@pytest.mark.parametrize("field", ["allowed_gpu_types", "region_constraint"])
def test_an_empty_word_is_no_choice(world: Any, field: str) -> None:
    reply = world.post("/createpool", world.pool_body(**{field: [""]}))
    assert reply.status_code == 400 and reply.json()["detail"].startswith(f"{field}.0: '' is not allowed")


@pytest.mark.parametrize("amount", ["1_0", "\uff11", " 1", "0x1", "1e", "Infinity"])
def test_a_cap_in_doubtful_digits_is_refused(world: Any, amount: str) -> None:
    reply = world.post("/createpool", world.pool_body(max_cost_per_hour=amount))
    assert reply.status_code == 400 and "US dollars" in reply.json()["detail"]


@pytest.mark.parametrize("amount", ["1", "0.50", ".5", "5e-1"])
def test_a_cap_as_decimal_string_is_taken(world: Any, amount: str) -> None:
    shown = world.get(f"/pool/{world.pool(max_cost_per_hour=amount)}").json()
    assert shown["max_cost_per_hour"] == float(amount)


def test_what_is_too_large_to_be_stored_is_the_callers_matter(world: Any) -> None:
    """The API server writes each < as six characters, and etcd takes only so many."""
    env = {f"A{number}": "<" * 32000 for number in range(30)}
    body = {"pool_id": world.pool(), "model_name": "m", "configuration": {"image": "x", "env": env}}
    reply = world.post("/deploy", body)
    assert reply.status_code == 400 and "larger than max" in reply.json()["detail"], reply.text


def test_external_deployments_are_listed_under_the_pool_that_they_show(world: Any) -> None:
    body = {"workload_type": "external", "model_name": "gpt", "endpoint": "https://api.example/v1"}
    uid = world.post("/deploy", {**body, "pool_id": ZERO_UUID}).json()["deployment_id"]
    assert world.get(f"/status/{uid}").json()["pool_id"] == ZERO_UUID
    for path in (f"/listDeployments/{ZERO_UUID}", f"/list?pool_id={ZERO_UUID}"):
        assert uid in [item["deployment_id"] for item in world.get(path).json()["deployments"]]


def test_the_stream_of_one_that_ended_says_where_its_lines_are(world: Any, eventually: Any) -> None:
    uid = world.deployment()
    world.reach(uid, "FAILED", eventually, lastStartTime="2026-01-01T00:00:00Z")
    described = world.get(f"/logs/{uid}/stream").json()
    assert described["message"] == f"It has ended; its last lines are at /logs/{uid}"
