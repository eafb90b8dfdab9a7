"""What was read is sent back, as clients do that change one thing: what is hidden stays what it was."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from cal_crds.meta import DEPLOYMENT

_CONFIGURATION = {
    "image": "a/b:1",
    "cmd": ["serve", "--api-key", "hidden-1", "--hf-token=hidden-2", "--max-tokens", "5"],
    "entrypoint": [
        "sh",
        "-c",
        "MY_TOKEN=hidden-3 run --password 'hidden-4' --tokenizer t; curl https://u:hidden-5@h/x",
    ],
    "env": {"HF_TOKEN": "hidden-6", "DSN": "pg://u:hidden-7@h/x", "MODE": "fast"},
    "expose": [{"port": 8000, "health_checks": [{"type": "http", "path": "/up"}]}],
    "resources": {"cpu": 4, "memory": "16Gi"},
    "image_pull_secrets": ["reg"],
    "work_dir": "/w",
}


def _workload(world: Any, uid: str) -> dict[str, Any]:
    return dict(world.resource(DEPLOYMENT, uid)["spec"]["workload"])


def _secret(world: Any, uid: str, name: str) -> str:
    env = {var["name"]: var for var in _workload(world, uid)["env"]}
    ref = env[name]["valueFrom"]["secretKeyRef"]
    stored = world.call("get", f"/api/v1/namespaces/{world.namespace}/secrets/{ref['name']}")
    return base64.b64decode(stored["data"][ref["key"]]).decode()


def test_arguments_hide_what_they_hold_in_secret(world: Any) -> None:
    uid = world.deployment(configuration=_CONFIGURATION)
    shown = world.get(f"/status/{uid}").json()["configuration"]
    assert shown["cmd"] == ["serve", "--api-key", "***", "--hf-token=***", "--max-tokens", "5"]
    assert shown["entrypoint"] == [
        "sh",
        "-c",
        "MY_TOKEN=*** run --password *** --tokenizer t; curl https://***@h/x",
    ]
    assert "hidden" not in world.get(f"/status/{uid}").text + world.get("/list").text
    # Shown only: what runs has them.
    assert _workload(world, uid)["args"] == _CONFIGURATION["cmd"]


def test_what_is_sent_back_as_it_was_shown_changes_nothing(world: Any) -> None:
    uid = world.deployment(configuration=_CONFIGURATION)
    before = _workload(world, uid)
    shown = world.get(f"/status/{uid}").json()
    reply = world.patch(f"/update/{uid}", {"configuration": shown["configuration"]})
    assert reply.status_code == 200, reply.text
    assert _workload(world, uid) == before
    assert reply.json()["configuration"] == shown["configuration"]


def test_of_hidden_values_only_the_new_one_is_replaced(world: Any) -> None:
    uid = world.deployment(configuration={"image": "a/b:1", "env": {"A_KEY": "one", "B_KEY": "two", "C": "3"}})
    shown = world.get(f"/status/{uid}").json()["configuration"]
    changed = {**shown, "env": {**shown["env"], "B_KEY": "new", "C": "4"}}
    assert world.patch(f"/update/{uid}", {"configuration": changed}).status_code == 200
    assert (_secret(world, uid, "A_KEY"), _secret(world, uid, "B_KEY")) == ("one", "new")
    assert _workload(world, uid)["env"][2] == {"name": "C", "value": "4"}


@pytest.mark.parametrize(
    ("configuration", "where"),
    [
        ({"env": {"NEW_KEY": "***"}}, "configuration.env.NEW_KEY"),
        ({"api_key": "***"}, "configuration.env.API_KEY"),
        ({"cmd": ["serve", "more", "--api-key", "***"]}, "configuration.cmd"),
        ({"entrypoint": "run --token=***"}, "configuration.entrypoint"),
    ],
)
def test_a_mask_is_no_value(world: Any, configuration: dict[str, Any], where: str) -> None:
    """Copied out of an answer, it would be stored as the secret itself."""
    uid = world.deployment(configuration=_CONFIGURATION)
    new = {"pool_id": world.pool(), "model_name": "m", "configuration": {"image": "a/b:1", **configuration}}
    for reply in (world.patch(f"/update/{uid}", {"configuration": configuration}), world.post("/deploy", new)):
        assert reply.status_code == 400 and reply.json()["detail"].startswith(f"{where}: "), reply.text
        assert "***" in reply.json()["detail"]
    assert _secret(world, uid, "HF_TOKEN") == "hidden-6"


def test_stars_that_hide_nothing_are_a_value(world: Any) -> None:
    uid = world.deployment(configuration={"image": "a/b:1", "cmd": ["--glob", "***"], "env": {"STARS": "***"}})
    assert _workload(world, uid)["args"] == ["--glob", "***"]
    assert _workload(world, uid)["env"] == [{"name": "STARS", "value": "***"}]


def test_a_key_alone_leaves_the_variables_alone(world: Any) -> None:
    uid = world.deployment(configuration={"engine": "vllm", "env": {"MODE": "fast", "HF_TOKEN": "hf"}})
    assert world.patch(f"/update/{uid}", {"configuration": {"api_key": "mine"}}).status_code == 200
    assert [var["name"] for var in _workload(world, uid)["env"]] == ["MODE", "HF_TOKEN", "API_KEY", "VLLM_API_KEY"]
    assert (_secret(world, uid, "HF_TOKEN"), _secret(world, uid, "VLLM_API_KEY")) == ("hf", "mine")


def test_no_variables_take_all_of_them_out(world: Any) -> None:
    uid = world.deployment(configuration={"image": "a/b:1", "env": {"MODE": "fast", "HF_TOKEN": "hf"}})
    nothing: tuple[Any, ...] = ({}, [])
    for none in nothing:
        assert world.patch(f"/update/{uid}", {"configuration": {"env": none}}).status_code == 200
        assert "env" not in world.get(f"/status/{uid}").json()["configuration"]
        assert not _workload(world, uid).get("env")


def test_ports_without_a_check_take_the_check_out(world: Any) -> None:
    checked = [8000, {"port": 9000, "health_checks": [{"type": "http", "path": "/up"}]}]
    uid = world.deployment(configuration={"image": "a/b:1", "expose": checked})
    assert _workload(world, uid)["readinessProbe"]["httpGet"]["port"] == "port-9000"
    reply = world.patch(f"/update/{uid}", {"configuration": {"expose": 8000}})
    assert reply.status_code == 200, reply.text
    assert reply.json()["configuration"]["expose"] == [{"port": 8000, "type": "http"}]
    assert "readinessProbe" not in _workload(world, uid)
