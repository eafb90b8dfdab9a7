"""`Idempotency-Key`: whoever lost the answer to a deploy asks again, and gets what the first request made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cal_crds.meta import DEPLOYMENT

Eventually = Callable[..., Any]


def _deploy(world: Any, pool: str, key: str | None, http: httpx.Client | None = None, **fields: Any) -> httpx.Response:
    body = {"pool_id": pool, "model_name": "m", "configuration": {"image": "example/model:1"}, **fields}
    headers = {} if key is None else {"Idempotency-Key": key}
    reply: httpx.Response = (http or world.http).post("/deploy", json=body, headers=headers)
    return reply


def _ids(world: Any, pool: str) -> list[str]:
    return [item["deployment_id"] for item in world.get(f"/listDeployments/{pool}").json()["deployments"]]


def test_asked_again_it_is_the_same_deployment_as_it_is_now(world: Any, eventually: Eventually) -> None:
    pool, key = world.pool(), str(uuid4())
    first = _deploy(world, pool, key)
    assert first.status_code == 200 and "Idempotency-Replayed" not in first.headers
    uid = first.json()["deployment_id"]
    world.reach(uid, "FAILED", eventually)
    again = _deploy(world, pool, f'"{key}"')  # quoted, as the draft has it
    assert again.json() == {**first.json(), "status": "FAILED", "state": "FAILED"}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert _ids(world, pool) == [uid]


def test_without_a_key_two_requests_are_two_deployments(world: Any) -> None:
    pool = world.pool()
    _deploy(world, pool, None), _deploy(world, pool, None)
    assert len(_ids(world, pool)) == 2


def test_twenty_at_once_are_one_through_two_processes(world: Any, lone_api: httpx.Client) -> None:
    pool, key = world.pool(), str(uuid4())
    lone_api.get(f"/pool/{pool}").raise_for_status()
    with ThreadPoolExecutor(20) as crowd:
        replies = list(crowd.map(lambda n: _deploy(world, pool, key, lone_api if n % 2 else None), range(20)))
    assert {reply.status_code for reply in replies} == {200}, [reply.text for reply in replies]
    assert len({reply.json()["deployment_id"] for reply in replies}) == 1
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1


def test_another_request_under_the_same_key_is_refused(world: Any) -> None:
    pool, key = world.pool(), str(uuid4())
    uid = _deploy(world, pool, key).json()["deployment_id"]
    other = _deploy(world, pool, key, replicas=2)
    assert other.status_code == 422 and uid in other.json()["detail"]
    assert _ids(world, pool) == [uid]


def test_a_key_counts_in_its_pool_only(world: Any) -> None:
    key = str(uuid4())
    ids = {_deploy(world, world.pool(), key).json()["deployment_id"] for _ in range(2)}
    assert len(ids) == 2


def test_in_an_organization_a_repeat_is_no_second_model(world: Any) -> None:
    pool, key, organization = world.pool(), str(uuid4()), f"acme-{uuid4()}"
    first = _deploy(world, pool, key, org_id=organization)
    assert _deploy(world, pool, key, org_id=organization).json() == first.json()
    assert _deploy(world, pool, str(uuid4()), org_id=organization).status_code == 409
    assert _deploy(world, pool, None, org_id=organization).status_code == 409


def test_a_secret_that_the_first_try_could_not_write_is_written_by_the_second(world: Any) -> None:
    pool, key = world.pool(), str(uuid4())
    configuration = {"image": "example/model:1", "env": {"HF_TOKEN": "hunter2"}}
    uid = _deploy(world, pool, key, configuration=configuration).json()["deployment_id"]
    made = world.resource(DEPLOYMENT, uid)
    name = made["spec"]["workload"]["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    path = f"/api/v1/namespaces/{made['metadata']['namespace']}/secrets/{name}"
    world.call("delete", path)
    assert _deploy(world, pool, key, configuration=configuration).json()["deployment_id"] == uid
    assert world.call("get", path)["metadata"]["ownerReferences"][0]["uid"] == uid
    assert _deploy(world, pool, key, configuration=configuration).status_code == 200, "and one that is there stays"


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a b", "caf\xe9", "a\tb"])
def test_a_key_that_can_not_be_one_is_refused(world: Any, key: str) -> None:
    body = {"pool_id": world.pool(), "model_name": "m", "configuration": {"image": "example/model:1"}}
    reply = world.http.post("/deploy", json=body, headers={"Idempotency-Key": key.encode("latin-1")})
    assert reply.status_code == 400 and reply.json()["detail"].startswith("Idempotency-Key: ")


def test_once_its_deployment_is_forgotten_a_key_is_new(world: Any, eventually: Eventually) -> None:
    pool, key = world.pool(), str(uuid4())
    uid = _deploy(world, pool, key).json()["deployment_id"]
    world.reach(uid, "STOPPED", eventually)
    assert world.delete(f"/delete/{uid}").status_code == 200
    again = _deploy(world, pool, key)
    assert again.status_code == 200 and again.json()["deployment_id"] != uid
