"""configuration -> Workload and back: every shape that clients send, and every shape that is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_api import bodies, echo
from cal_api.errors import ApiError
from cal_api.redact import redacted
from cal_api.translate import translate, with_job_definition, workload_of
from cal_crds.workload import Workload

SHAPES: list[Any] = [
    pytest.param(
        {"model_id": "meta/llama", "engine": "vllm", "expose": [{"port": 8000, "health_checks": [{"type": "http", "path": "/health", "method": "GET", "expected_status": 200}]}], "gpu": True},
        {"engine": "vllm", "ports": [{"name": "http", "port": 8000, "protocol": "Http"}], "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}}},
        id="vllm without an image",
    ),
    pytest.param(
        {"image": "ollama/ollama", "cmd": ["serve"], "expose": [{"port": 11434, "type": "http"}], "gpu": True},
        {"image": "ollama/ollama", "args": ["serve"], "ports": [{"name": "http", "port": 11434, "protocol": "Http"}]},
        id="ollama",
    ),
    pytest.param(
        {"image": "a/b", "cmd": "python -m x --name 'two words'", "env": {"A": 1, "B": True, "C": None, "D": Decimal("0.9")}, "expose": 80, "gpu": 2},
        {"image": "a/b", "args": ["python", "-m", "x", "--name", "two words"], "ports": [{"name": "http", "port": 80, "protocol": "Http"}],
         "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "true"}, {"name": "C", "value": ""}, {"name": "D", "value": "0.9"}]},
        id="older",
    ),
    pytest.param(
        {"image": "a/b", "git_repo": "https://g.example/r", "training_script": "t.py", "dataset_url": "s3://d", "base_model": "b", "gpu_count": 4, "workload_type": "TRAINING"},
        {"type": "Training", "image": "a/b", "env": [{"name": "GIT_REPO", "value": "https://g.example/r"}, {"name": "TRAINING_SCRIPT", "value": "t.py"}, {"name": "DATASET_URL", "value": "s3://d"}, {"name": "BASE_MODEL", "value": "b"}]},
        id="training",
    ),
    pytest.param({"entrypoint": ["/bin/x"], "args": ["a", 1]}, {"command": ["/bin/x"], "args": ["a", "1"]}, id="entrypoint"),
    pytest.param(
        {"env": [{"name": "A", "value": "1"}, "B=x=y"], "expose": "8000-8002"},
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}],
         "ports": [{"name": "http", "port": 8000, "protocol": "Http"}, {"name": "port-8001", "port": 8001, "protocol": "Http"}, {"name": "port-8002", "port": 8002, "protocol": "Http"}]},
        id="lists and ranges",
    ),
    pytest.param(
        {"expose": [80, "81", {"port": 82, "type": "websocket", "health_checks": [{"type": "websocket"}]}, {"port": 83, "type": "none"}]},
        {"ports": [{"name": "http", "port": 80, "protocol": "Http"}, {"name": "port-81", "port": 81, "protocol": "Http"}, {"name": "port-82", "port": 82, "protocol": "WebSocket"}, {"name": "port-83", "port": 83, "protocol": "Tcp"}],
         "readinessProbe": {"tcpSocket": {"port": "port-82"}}},
        id="every kind of port",
    ),
    pytest.param({"resources": {"cpu": 4, "memory": "16Gi", "disk": "50Gi"}}, {"resources": {"cpu": "4", "memory": "16Gi", "storage": "50Gi"}}, id="resources"),
    pytest.param({"vcpu": Decimal("1.5"), "ram_gb": 8}, {"resources": {"cpu": "1.5", "memory": "8G"}}, id="flat resources"),
    pytest.param({"image_pull_secrets": ["a", {"name": "b"}, "a"]}, {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}, id="pull secrets"),
    pytest.param(
        {"hf_token_name": "hf", "engine": "vllm", "api_key": "k"},
        {"engine": "vllm", "env": [
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "API_KEY"}}},
            {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "API_KEY"}}}]},
        id="secrets",
    ),
    pytest.param(
        {"engine": "infinity", "api_key": "k"},
        {"engine": "infinity", "env": [
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "API_KEY"}}},
            {"name": "INFINITY_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "API_KEY"}}}]},
        id="a key by the name of its engine",
    ),
]  # fmt: skip

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"image": "a b"}, ["configuration.image", "a b", "image reference"]),
    ({"image": "$(rm -rf /)"}, ["configuration.image"]),
    ({"image": 1}, ["configuration.image", "string"]),
    ({"engine": "v llm"}, ["configuration.engine"]),
    ({"cmd": "a 'b"}, ["configuration.cmd", "quotation"]),
    ({"cmd": {"a": 1}}, ["configuration.cmd", "list"]),
    ({"cmd": [["x"]]}, ["configuration.cmd.0"]),
    ({"cmd": ["x" * 9000]}, ["configuration.cmd", "8192"]),
    ({"cmd": ["x"] * 300}, ["configuration.cmd", "256"]),
    ({"env": {"1A": "x"}}, ["configuration.env", "1A"]),
    ({"env": {"A-B": "x"}}, ["configuration.env", "A-B"]),
    ({"env": {"A": {}}}, ["configuration.env.A"]),
    ({"env": "A=1"}, ["configuration.env", "object"]),
    ({"env": ["A=1", "A=2"]}, ["configuration.env", "A stands there twice"]),
    ({"env": {f"A{i}": "" for i in range(300)}}, ["configuration.env", "256"]),
    ({"expose": 0}, ["configuration.expose", "0", "65535"]),
    ({"expose": 70000}, ["configuration.expose", "65535"]),
    ({"expose": True}, ["configuration.expose"]),
    ({"expose": "http"}, ["configuration.expose", "port"]),
    ({"expose": "1-60000"}, ["configuration.expose"]),
    ({"expose": "9000-8000"}, ["configuration.expose"]),
    ({"expose": [80, 80]}, ["configuration.expose", "port 80 stands there twice"]),
    ({"expose": [{"type": "http"}]}, ["configuration.expose.0.port", "required"]),
    ({"expose": [{"port": 80, "type": "smtp"}]}, ["configuration.expose.0.type", "smtp", "websocket"]),
    ({"expose": [{"port": 80, "health_checks": [{"path": "up"}]}]}, ["health_checks.0.path", "up"]),
    ({"expose": [{"port": 80, "health_checks": {"path": "/"}}]}, ["health_checks", "list"]),
    ({"expose": [[80]]}, ["configuration.expose.0"]),
    ({"gpu": -1}, ["configuration.gpu", "-1", "64"]),
    ({"gpu_count": "4"}, ["configuration.gpu_count", "4"]),
    ({"resources": {"cpu": "lots"}}, ["configuration.resources.cpu", "lots", "16Gi"]),
    ({"resources": {"cpu": -1}}, ["configuration.resources.cpu"]),
    ({"resources": {"gpu": 1}}, ["configuration.resources", "gpu", "cpu"]),
    ({"hf_token_name": "../x"}, ["configuration.hf_token_name", "Secret"]),
    ({"workload_type": "mining"}, ["configuration.workload_type", "mining", "training", "external"]),
    ({"model_id": "a\x1bb"}, ["configuration.model_id", "control"]),
    ({"max_runtime_seconds": 0}, ["configuration.max_runtime_seconds", "1"]),
]  # fmt: skip


@pytest.mark.parametrize(("configuration", "workload"), SHAPES)
def test_known_shapes(configuration: dict[str, Any], workload: dict[str, Any]) -> None:
    assert workload_of(translate(configuration, "s")) == workload


@pytest.mark.parametrize(("configuration", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_unknown_shapes_name_the_field(configuration: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ApiError) as refusal:
        translate(configuration, "s")
    assert refusal.value.status == 400
    assert all(word in refusal.value.detail for word in words), refusal.value.detail


def test_what_beside_the_workload_is_said() -> None:
    draft = translate({"model_id": "m", "gpu": 3, "inference_model": "i", "max_runtime_seconds": 9}, "s")
    assert (draft.model_id, draft.gpus, draft.served_name, draft.max_runtime_seconds) == ("m", 3, "i", 9)
    assert translate({"gpu": False}, "s").gpus == 0
    assert translate({"base_model": "b"}, "s").model_id == "b"
    assert translate({"base_model": "b", "model_id": "m"}, "s").model_id == "m"


def test_what_no_field_holds_is_kept_without_secrets() -> None:
    draft = translate({"tags": ["a"], "hub": {"auth_token": "x", "user": "u"}, "secret_sauce": "y"}, "s")
    assert draft.rest == {"tags": ["a"], "hub": {"auth_token": "***", "user": "u"}, "secret_sauce": "***"}


def test_a_job_definition_lies_under_the_configuration() -> None:
    job = {
        "ops": [
            {"type": "container/create-volume"},
            {"type": "container/run", "args": {"image": "a", "cmd": "x", "gpu": True}},
        ]
    }
    assert with_job_definition({"image": "b"}, job) == {"image": "b", "cmd": "x", "gpu": True}
    assert with_job_definition({"image": "b"}, None) == {"image": "b"}


@pytest.mark.parametrize("ops", [[], 1, None, [{"args": {}}, {"args": {}}], [{"type": "container/run"}], [1]], ids=str)
def test_a_job_definition_of_another_shape_is_refused(ops: Any) -> None:
    with pytest.raises(ApiError, match=r"job_definition\.ops"):
        with_job_definition({}, {"ops": ops})


# --- properties --------------------------------------------------------------------------------------------------------

_names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
_arguments = st.lists(st.text(max_size=20).filter(bool), min_size=1, max_size=4)
_port = st.integers(1, 65535)
_check = st.one_of(
    st.just({"type": "tcp"}),
    st.builds(lambda path: {"type": "http", "path": f"/{path}"}, st.from_regex(r"[a-z]{0,8}", fullmatch=True)),
)
_expose = st.lists(
    st.builds(
        lambda port, kind, checks: {"port": port, "type": kind, **({"health_checks": [checks]} if checks else {})},
        _port,
        st.sampled_from(["http", "websocket", "tcp"]),
        st.one_of(st.none(), _check),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda entry: entry["port"],
)
_configurations = st.fixed_dictionaries(
    {},
    optional={
        "image": st.from_regex(r"[a-z][a-z0-9/._-]{0,20}(:[a-z0-9.]{1,8})?", fullmatch=True),
        "engine": st.sampled_from(["vllm", "sglang", "ollama"]),
        "workload_type": st.sampled_from(["inference", "embedding", "training", "batch"]),
        "cmd": _arguments,
        "entrypoint": _arguments,
        "env": st.dictionaries(_names, st.text(max_size=20), min_size=1, max_size=5),
        "expose": _expose,
        "resources": st.just({"cpu": "500m", "memory": "1Gi"}),
        "work_dir": st.just("/srv"),
    },
)


@given(_configurations)
def test_there_and_back_is_the_same_workload(configuration: dict[str, Any]) -> None:
    first = translate(configuration, "s")
    shown = echo.configuration(Workload.model_validate(workload_of(first)))
    again = translate(shown, "s")
    assert again.workload == {"type": "Inference", **first.workload}
    assert list(again.env) == list(first.env)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from(
    ["image", "engine", "cmd", "entrypoint", "env", "expose", "gpu", "gpu_count", "model_id", "resources", "vcpu", "ram_gb",
     "api_key", "hf_token_name", "image_pull_secrets", "work_dir", "git_repo", "endpoint", "max_runtime_seconds", "x"]
)  # fmt: skip


@given(st.dictionaries(_fields, _json, max_size=4))
def test_anything_is_translated_or_refused(configuration: dict[str, Any]) -> None:
    try:
        draft = translate(configuration, "s")
    except ApiError as refusal:
        assert refusal.status == 400 and refusal.detail.isprintable()
    else:
        Workload.model_validate(workload_of(draft))


@given(st.dictionaries(_names, st.text(alphabet="abcdefgh", min_size=12, max_size=20), min_size=1, max_size=6))
def test_a_secret_value_is_in_secrets_and_nowhere_else(env: dict[str, str]) -> None:
    named = {f"{name}_TOKEN": value for name, value in env.items()}
    draft = translate({"env": named, "other": {"api_key": next(iter(env.values()))}}, "s")
    assert draft.secrets == named
    seen = json.dumps([draft.workload, list(draft.env.values()), draft.rest]) + repr(draft)
    assert not any(value in seen for value in named.values())


@given(_json)
def test_redaction_keeps_the_shape(value: Any) -> None:
    assert type(redacted(value)) is type(value)
    if isinstance(value, dict):
        assert list(redacted(value)) == list(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(bodies.decode(raw), dict)
    except ApiError as refusal:
        assert refusal.status == 400 and refusal.detail.isprintable()


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999999", "80.5"])
def test_a_number_that_is_no_port_is_refused(number: str) -> None:
    with pytest.raises(ApiError, match="whole number"):
        translate({"image": "a", "expose": Decimal(number)}, "s")
