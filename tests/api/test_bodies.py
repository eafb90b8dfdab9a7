"""Bad bodies at the real server: a 4xx with one clear sentence, never a 500, never a half-written object."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cal_api.app import OPERATIONS
from cal_crds.meta import DEPLOYMENT, POOL

JSON = {"Content-Type": "application/json"}

MALFORMED: list[Any] = [
    pytest.param(b"", "must be a JSON object", id="empty"),
    pytest.param(b"{", "not JSON", id="cut off"),
    pytest.param(b"[]", "must be a JSON object", id="list"),
    pytest.param(b"null", "must be a JSON object", id="null"),
    pytest.param(b'"x"', "must be a JSON object", id="string"),
    pytest.param(b'{"pool_name": NaN}', "NaN is not JSON", id="NaN"),
    pytest.param(b'{"pool_name": -Infinity}', "-Infinity is not JSON", id="infinity"),
    pytest.param(b'{"a": 1, "a": 2}', "'a' stands there twice", id="duplicate key"),
    pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "too many digits", id="number of 5000 digits"),
    pytest.param(b'{"a": 1e999999999}', "within reach", id="number beyond any float"),
    pytest.param(b'{"a": 99999999999999999999}', "below 2^63", id="number beyond 64 bits"),
    pytest.param(b"[" * 500_000, "nested too deeply", id="endless nesting"),
    pytest.param(b'{"a": ' * 40 + b"1" + b"}" * 40, "nested too deeply", id="deep nesting"),
    pytest.param(b'{"a": "\\ud800"}', "surrogate", id="half a surrogate pair"),
    pytest.param(b'{"a": {"b": ["x\\u0000"]}}', "a.b.0: holds a NUL", id="NUL"),
    pytest.param(b'{"\\u0000": 1}', "NUL", id="NUL in a key"),
    pytest.param(b'{"a": "\xff"}', "not UTF-8", id="not UTF-8"),
    pytest.param("﻿{}".encode(), "not JSON", id="byte order mark"),
    pytest.param('{"a": 1}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
]


@pytest.mark.parametrize("path", ["/createpool", "/deploy", "/inventory/heartbeat", "/terminate"])
@pytest.mark.parametrize(("body", "words"), MALFORMED)
def test_malformed_bodies(world: Any, path: str, body: bytes, words: str) -> None:
    reply = world.http.post(path, content=body, headers=JSON)
    assert reply.status_code == 400 and words in reply.json()["detail"], reply.text
    assert "\n" not in reply.json()["detail"] and len(reply.json()["detail"]) < 500


def test_a_refused_request_leaves_nothing_behind(world: Any) -> None:
    pool = world.pool()
    path = f"/api/v1/namespaces/{world.namespace}/secrets"

    def stored() -> list[int]:
        return [len(world.call("list", where)["items"]) for where in (path, DEPLOYMENT.path(), POOL.path())]

    before = stored()
    bad = {"pool_id": pool, "model_name": "m", "configuration": {"engine": "vllm", "env": {"A_KEY": "x"}, "expose": -1}}
    assert world.post("/deploy", bad).status_code == 400
    # Refused by a rule of the resource itself, after everything else was right.
    late = {**bad, "configuration": {"engine": "vllm", "env": {"A_KEY": "x"}}, "policies": {"max_surge": 0}}
    assert world.post("/deploy", late).status_code == 400
    assert world.post("/createpool", world.pool_body(max_cost_per_hour=-1)).status_code == 400
    assert stored() == before


@pytest.mark.parametrize(
    "uid", ["x", "1", "..%2F..", "%00", "ä", "0" * 36, "{uid}", "00000000-0000-0000-0000-00000000000g", "a" * 5000]
)
def test_what_cannot_be_an_id_is_not_found(world: Any, uid: str) -> None:
    for path in (f"/status/{uid}", f"/pool/{uid}", f"/logs/{uid}", f"/list/pool/{uid}/inventory"):
        reply = world.get(path)
        assert reply.status_code == 404 and isinstance(reply.json()["detail"], str), path


def test_unknown_routes_and_methods_carry_a_detail(world: Any) -> None:
    for method, path, code in (
        ("GET", "/nosuch", 404),
        ("PUT", "/createpool", 405),
        ("GET", "/deploy", 405),
        ("GET", "/v1/deployment/nosuch", 404),
    ):
        reply = world.http.request(method, path)
        assert reply.status_code == code and isinstance(reply.json()["detail"], str)
    assert world.http.request("PUT", "/createpool").headers["allow"] == "POST"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_fields = sorted({name for op in OPERATIONS if op.body for name in op.body.model_fields})
_bodies = st.dictionaries(st.sampled_from(_fields), _json, max_size=5)
_routes = st.sampled_from(["/createpool", "/deploy", "/terminate", "/start", "/inventory/heartbeat"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=_routes, body=_bodies)
def test_no_body_gets_a_500(world: Any, route: str, body: dict[str, Any]) -> None:
    valid = world.pool_body() if route == "/createpool" else {}
    reply = world.post(route, {**valid, **body})
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert list(reply.json()) == ["detail"] and isinstance(reply.json()["detail"], str)


@example(name="\U0001f600 {}: #", owner="\x85\u2028\ufeff\uffff")
@example(name="\\ud83d\\", owner="\"'%@`|>&*!-?")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=40), owner=st.text(min_size=1, max_size=40))
def test_any_name_is_stored_as_it_is_or_refused(world: Any, name: str, owner: str) -> None:
    reply = world.post("/createpool", world.pool_body(pool_name=name, owner_id=owner))
    control = any(ord(c) < 32 or ord(c) == 127 for c in name + owner)
    assert reply.status_code in ((400,) if control else (200, 409)), reply.text
    if reply.status_code == 200:
        shown = world.get(f"/pool/{reply.json()['pool_id']}").json()
        assert (shown["pool_name"], shown["owner_id"]) == (name, owner)


@pytest.mark.parametrize("header", ["Host", "Origin"])
@pytest.mark.parametrize(
    "value", ["evil.example", "http://evil.example", "null", "127.0.0.1.evil.example", "http://[::1", "10.0.0.1"]
)
def test_the_door_is_shut_to_other_pages(world: Any, header: str, value: str) -> None:
    reply = world.http.post("/createpool", json=world.pool_body(), headers={header: value})
    assert reply.status_code == 403 and reply.json()["detail"].startswith(header)
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1", "http://[::1]:80"])
def test_pages_of_this_machine_may_ask_but_get_no_cors(world: Any, origin: str) -> None:
    reply = world.get("/health", headers={"Origin": origin})
    assert reply.status_code == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_request_ids_come_in_and_go_out(world: Any) -> None:
    assert world.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [world.get(path).headers["x-request-id"] for path in ("/health", "/nosuch")]
    assert len(set(made)) == 2 and all(len(one) == 16 for one in made)
    assert world.get("/health", headers={"X-Request-ID": "x" * 500}).headers["x-request-id"] != "x" * 500
    assert world.get("/health", headers={"Host": "evil"}).headers["x-request-id"]


def test_json_with_parameters_is_json(world: Any) -> None:
    body = json.dumps(world.pool_body())
    reply = world.http.post("/createpool", content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert reply.status_code == 200


def test_a_raw_request_without_a_host_is_refused(world: Any) -> None:
    import socket

    url = httpx.URL(str(world.http.base_url))
    with socket.create_connection((url.host, url.port), timeout=10) as raw:
        raw.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b" 403 " in raw.recv(4096).split(b"\r\n")[0]
