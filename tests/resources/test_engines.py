"""What an engine's name implies, and that nothing given is ever overridden."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cal_crds.engines import ENGINES, NoKey, expand, key_variable
from cal_crds.workload import ENGINE_NAMES, ENGINE_PORT, EnvVar, HTTPGet, Port, Probe, ServedModel, Workload

MODEL = ServedModel(name="llama", id="meta-llama/Llama-2-7b", served_name="llama-2")


def test_vllm_and_a_model_are_enough() -> None:
    assert expand(Workload(engine="vllm"), MODEL).dump() == {
        "type": "Inference",
        "engine": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "command": [],
        "args": ["--model", "meta-llama/Llama-2-7b", "--served-model-name", "llama-2", "--port", "8000"],
        "env": [],
        "ports": [{"name": "http", "port": 8000, "protocol": "Http"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3},
        "imagePullSecrets": [],
    }


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_pins_its_image_and_brings_all_that_serving_needs(name: str) -> None:
    full = expand(Workload(engine=name), ServedModel(name="some/model"))
    assert full.image is not None
    assert full.image.rpartition(":")[2][:1] in "v0123456789"
    assert full.ports
    assert full.readiness_probe is not None
    assert full.readiness_probe.http_get is not None
    assert full.readiness_probe.http_get.port == full.ports[0].name
    assert "some/model" in full.args
    assert str(full.ports[0].port) in full.args


def test_the_schema_knows_the_same_engines() -> None:
    assert list(ENGINES) == sorted(ENGINE_NAMES)
    assert expand(Workload(engine="vllm"), MODEL).ports[0].name == ENGINE_PORT


@pytest.mark.parametrize(("engine", "option"), [("vllm", "--tensor-parallel-size"), ("sglang", "--tp")])
def test_several_gpus_are_used_together(engine: str, option: str) -> None:
    args = expand(Workload(engine=engine), MODEL, gpu_count=4).args
    assert args[args.index(option) + 1] == "4"
    assert option not in expand(Workload(engine=engine), MODEL, gpu_count=1).args


def test_the_name_stands_in_for_an_id() -> None:
    args = expand(Workload(engine="vllm"), ServedModel(name="llama")).args
    assert args[:4] == ["--model", "llama", "--served-model-name", "llama"]


def test_a_port_that_is_given_is_the_one_that_is_listened_on_and_probed() -> None:
    full = expand(Workload(engine="vllm", ports=[Port(name="web", port=9000)]), MODEL)
    assert full.args[-2:] == ["--port", "9000"]
    assert full.readiness_probe is not None
    assert full.readiness_probe.http_get == HTTPGet(path="/health", port="web")


def test_a_name_that_no_table_knows_implies_nothing() -> None:
    own = Workload(engine="my-engine", image="acme/engine:1")
    assert expand(own, MODEL) == own
    assert expand(Workload(image="acme/plain:1"), MODEL) == Workload(image="acme/plain:1")


_PROBE = Probe(http_get=HTTPGet(path="/mine", port="mine"))
_GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "image": st.just("acme/own:1"),
        "command": st.just(["./own"]),
        "args": st.just(["--own"]),
        "ports": st.just([Port(name="mine", port=1234)]),
        "readiness_probe": st.just(_PROBE),
    },
)


@given(st.sampled_from(sorted(ENGINES)), _GIVEN)
def test_nothing_given_is_overridden(engine: str, given_fields: dict[str, object]) -> None:
    before = Workload(engine=engine).model_copy(update=given_fields)
    after = expand(before, MODEL)
    for field, value in given_fields.items():
        assert getattr(after, field) == value
    if {"command", "args"} & given_fields.keys():
        assert (after.command, after.args) == (before.command, before.args)
    assert expand(after, MODEL) == after


@given(st.sampled_from(sorted(ENGINES)), st.text(min_size=1, max_size=60).filter(lambda text: "\x00" not in text))
def test_a_model_name_is_one_argument_and_never_part_of_a_script(engine: str, name: str) -> None:
    plain = expand(Workload(engine=engine), ServedModel(name="plain"))
    odd = expand(Workload(engine=engine), ServedModel.model_construct(name=name))
    assert odd.command == plain.command
    assert [name if part == "plain" else part for part in plain.args] == odd.args


STUB = """#!/bin/sh
# Stands in for the ollama program: notes what it is asked, and "serves" until it is told to stop.
echo "$OLLAMA_HOST $*" >> "$NOTES"
case "$1" in
  list) grep -q " serve" "$NOTES" ;;
  pull) [ "$2" != missing ] ;;
  serve) if [ "$OLLAMA_HOST" = 127.0.0.1:11500 ]; then exec sleep 60; fi ;;
esac
"""


def _run_ollama(tmp_path: Path, model: ServedModel) -> tuple[int, list[str]]:
    stub, notes = tmp_path / "ollama", tmp_path / "notes"
    stub.write_text(STUB)
    stub.chmod(0o755)
    full = expand(Workload(engine="ollama"), model)
    run = subprocess.run(
        [*full.command, *full.args],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "NOTES": str(notes)},
        cwd=tmp_path,
        timeout=30,
        capture_output=True,
        check=False,
    )
    return run.returncode, [line for line in notes.read_text().splitlines() if not line.endswith(" list")]


def test_ollama_opens_its_port_only_once_the_model_is_there(tmp_path: Path) -> None:
    code, asked = _run_ollama(tmp_path, ServedModel(name="llama3.2:1b; touch oops", served_name="mine"))
    assert code == 0
    assert asked[:1] == ["127.0.0.1:11500 serve"]
    assert asked[1:] == [
        "127.0.0.1:11500 pull llama3.2:1b; touch oops",
        "127.0.0.1:11500 cp llama3.2:1b; touch oops mine",
        "0.0.0.0:11434 serve",
    ]
    assert not (tmp_path / "oops").exists()


def test_ollama_fails_when_the_model_can_not_be_pulled(tmp_path: Path) -> None:
    code, asked = _run_ollama(tmp_path, ServedModel(name="missing"))
    assert code != 0
    assert "0.0.0.0:11434 serve" not in asked


# --- API keys

#: As their documentation and sources say; an engine that takes none must not be handed one in a variable that nobody reads.
KEYS = {"infinity": "INFINITY_API_KEY", "sglang": "SGLANG_API_KEY", "tei": "API_KEY", "vllm": "VLLM_API_KEY"}


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_says_how_it_takes_its_key(name: str) -> None:
    for workload in (Workload(engine=name), expand(Workload(engine=name), MODEL)):
        if name in KEYS:
            assert key_variable(workload) == KEYS[name]
            continue
        with pytest.raises(NoKey, match=f"{name} knows no API keys"):
            key_variable(workload)


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (Workload(), "names no engine"),
        (Workload(engine="my-engine", image="acme/engine:1"), "'my-engine' is none that we know"),
        (Workload(engine="vllm", env=[EnvVar(name="VLLM_API_KEY", value="mine")]), "sets VLLM_API_KEY itself"),
        (Workload(engine="vllm", env=[EnvVar(name="VLLM_API_KEY", value="")]), "sets VLLM_API_KEY itself"),
        (Workload(engine="tei", args=["--model-id", "m", "--api-key", "mine"]), "gives --api-key itself"),
        (Workload(engine="tei", args=["--api-key=mine"]), "gives --api-key itself"),
        (Workload(engine="vllm", command=["sh", "-c", "vllm serve m --api-key $MINE"]), "gives --api-key itself"),
        (Workload(engine="sglang", args=["--model-path", "m"]), "by a command of its own"),
        (Workload(engine="sglang", command=["python3", "-m", "sglang.launch_server"]), "by a command of its own"),
    ],
)
def test_what_brings_its_own_key_gets_none_of_ours(workload: Workload, why: str) -> None:
    for seen in (workload, expand(workload, MODEL)):
        with pytest.raises(NoKey, match=why):
            key_variable(seen)


@pytest.mark.parametrize("name", ["infinity", "tei", "vllm"])
def test_an_engine_that_reads_the_variable_itself_may_have_any_command(name: str) -> None:
    own = Workload(engine=name, command=["./serve"], args=["--fast"], env=[EnvVar(name="OTHER", value="1")])
    assert key_variable(own) == key_variable(expand(own, MODEL)) == KEYS[name]


@pytest.mark.parametrize("key", [None, "", "cal-key", "-odd key; touch oops"])
def test_sglang_is_given_its_key_as_one_argument_and_none_without(tmp_path: Path, key: str | None) -> None:
    stub = tmp_path / "python3"
    stub.write_text("""#!/bin/sh\nprintf '%s\\n' "$@"\n""")
    stub.chmod(0o755)
    full = expand(Workload(engine="sglang"), ServedModel(name="a model"))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **({} if key is None else {"SGLANG_API_KEY": key})}
    run = subprocess.run(
        [*full.command, *full.args], env=env, cwd=tmp_path, timeout=30, capture_output=True, check=True
    )
    given_to_it = run.stdout.decode().splitlines()
    assert given_to_it == ["-m", "sglang.launch_server", *full.args, *([f"--api-key={key}"] if key else [])]
    assert "a model" in given_to_it and not (tmp_path / "oops").exists()
