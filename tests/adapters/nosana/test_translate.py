"""Workloads to job definitions, markets to offers, deployments to observations: pure, checked against the provider's own schemas."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds.nosana_schemas import folder, job_definition, openapi

from cal_adapters.contract import ENDED_STATES, EnvValue, LaunchRequest, Mark, Readiness, RegistryLogin, State
from cal_adapters.errors import Refused
from cal_adapters.nosana import translate
from cal_adapters.nosana.answers import Deployment, Job, JobDetail, Market
from cal_adapters.nosana.states import RESULT_WINDOW, STATUSES, current_job, observation, split_lines
from cal_crds.engines import ENGINES, expand
from cal_crds.node import Offer, OfferAttribute
from cal_crds.pool import Tenancy
from cal_crds.workload import HTTPGet, Port, PortProtocol, Probe, ServedModel, Workload, WorkloadType

ADDRESS = "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def request(workload: Workload, **changes: Any) -> LaunchRequest:
    attributes = [
        OfferAttribute(name="market_address", value=ADDRESS),
        OfferAttribute(name="pool", value=f"{ADDRESS},nvidia-3060"),
    ]
    made = LaunchRequest(
        mark=Mark("0a1b2c3d4e", "abcdefgh1234"),
        node="n",
        namespace="default",
        deployment_uid="u",
        pool_uid="p",
        offer=Offer(id="nvidia-3060", gpu_type="nvidia-rtx-3060", gpu_count=1, attributes=attributes),
        provider_pool_id=None,
        tenancy=Tenancy.SHARED,
        gpu_count=1,
        max_price_per_hour=Decimal("1.00"),
        model=ServedModel(name="m"),
        workload=workload,
    )
    return replace(made, **changes)


def arguments(made: LaunchRequest) -> dict[str, Any]:
    found: dict[str, Any] = translate.job_definition(made)["ops"][0]["args"]
    return found


# --- definitions


MODEL = ServedModel(name="qwen", id="Qwen/Qwen2.5-0.5B-Instruct")
WORKLOADS = {
    **{name: expand(Workload(engine=name), MODEL) for name in ENGINES},
    "image": Workload(image="ghcr.io/acme/server@sha256:" + "a" * 64, ports=[Port(name="http", port=80)]),
    "bare": Workload(image="busybox"),
    "training": Workload(
        type=WorkloadType.TRAINING,
        image="acme/train:2",
        command=["python", "-m", "train"],
        args=["--epochs", "3"],
        working_dir="/work dir",
    ),
    "websocket": Workload(
        image="acme/ws", ports=[Port(name="a", port=1, protocol=PortProtocol.WEBSOCKET), Port(name="b", port=2)]
    ),
}


def full(name: str) -> LaunchRequest:
    return request(
        WORKLOADS[name],
        env=[EnvValue("PLAIN", "x"), EnvValue("TOKEN", "t0ken", secret=True)],
        logins=[RegistryLogin("ghcr.io", "me", "pass"), RegistryLogin("https://index.docker.io/v1/", "me", "pass")],
    )


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_kind_of_workload_is_a_valid_job_definition(name: str) -> None:
    definition = translate.job_definition(full(name))
    assert [error.message for error in job_definition().iter_errors(definition)] == []


def test_the_providers_own_validator_accepts_them_all() -> None:
    """Its rules beyond the schema (unique ports, no unknown fields) are only in its JavaScript."""
    script = (
        "import { validateJobDefinition } from '@nosana/types';"
        "import { readFileSync } from 'node:fs';"
        "const all = JSON.parse(readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(all.map((one) => validateJobDefinition(one))));"
    )
    definitions = [translate.job_definition(full(name)) for name in WORKLOADS]
    definitions.append({**definitions[0], "unknown": 1})
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        cwd=folder(),
        input=json.dumps(definitions),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verdicts = json.loads(done.stdout)
    assert [verdict.get("errors") for verdict in verdicts[:-1] if not verdict["success"]] == []
    assert not verdicts[-1]["success"], "the validator accepts anything"


def test_an_engine_keeps_its_command_arguments_port_and_health_check() -> None:
    made = arguments(full("vllm"))
    workload = WORKLOADS["vllm"]
    assert made["image"] == workload.image
    assert made["cmd"] == workload.args
    assert made["gpu"] is True
    check = {"type": "http", "path": "/health", "method": "GET", "expected_status": 200, "continuous": False}
    assert made["expose"] == [{"port": workload.ports[0].port, "type": "api", "health_checks": [check]}]


def test_command_and_arguments_stay_lists() -> None:
    """A string would be given to a shell."""
    made = arguments(request(Workload(image="x", command=["a; rm -rf /"], args=["$(id)"])))
    assert (made["entrypoint"], made["cmd"]) == (["a; rm -rf /"], ["$(id)"])


def test_what_is_absent_is_left_out() -> None:
    assert arguments(request(WORKLOADS["bare"], gpu_count=0)) == {"image": "busybox", "gpu": False}


def test_the_timeout_is_minutes_and_the_strategy_extends() -> None:
    body = translate.create_body(request(WORKLOADS["bare"]), ADDRESS, translate.Minutes(90))
    assert (body["timeout"], body["strategy"], body["replicas"]) == (90, "SIMPLE-EXTEND", 1)
    assert body["name"] == "cal-0a1b2c3d4e-abcdefgh1234"


@pytest.mark.parametrize(
    ("changes", "confidential"),
    [
        ({}, None),
        ({"env": [EnvValue("A", "b")]}, None),
        ({"env": [EnvValue("A", "b", secret=True)]}, True),
        ({"logins": [RegistryLogin("ghcr.io", "me", "pass")]}, True),
    ],
)
def test_a_definition_with_secrets_is_confidential(changes: dict[str, Any], confidential: bool | None) -> None:
    body = translate.create_body(request(WORKLOADS["bare"], **changes), ADDRESS, translate.Minutes(60))
    assert body.get("confidential") is confidential


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("nginx", "https://index.docker.io/v1/"),
        ("acme/x", "docker.io"),
        ("ghcr.io/acme/x:1", "ghcr.io"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000"),
    ],
)
def test_the_login_is_that_of_the_images_registry(image: str, server: str) -> None:
    logins = [RegistryLogin("other.example", "no", "no"), RegistryLogin(server, "me", "pass")]
    made = arguments(request(Workload(image=image), logins=logins))
    assert made["authentication"] == {"docker": {"username": "me", "password": "pass", "server": server}}
    assert "authentication" not in arguments(request(Workload(image=image), logins=logins[:1]))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (request(WORKLOADS["bare"], gpu_count=2), "one GPU per job; 2"),
        (request(Workload(command=["x"])), "names none"),
        (request(Workload(image="x", ports=[Port(name="p", port=1, protocol=PortProtocol.TCP)])), "raw TCP"),
        (request(Workload(image="x", args=["%%global.project%%"])), "placeholder"),
        (request(Workload(image="x"), env=[EnvValue("A", "see %%ops.main.host%%")]), "placeholder"),
        (request(Workload(image="x", args=["__spread__"])), "placeholder"),
        (request(Workload(image="x"), env=[EnvValue("A", "a\0b")]), "NUL"),
    ],
)
def test_what_nosana_can_not_run_is_refused_with_the_reason(made: LaunchRequest, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        translate.job_definition(made)


def test_a_refusal_does_not_tell_the_value() -> None:
    with pytest.raises(Refused) as raised:
        translate.job_definition(request(Workload(image="x"), env=[EnvValue("A", "hunter2 %%ops.x.y%%", secret=True)]))
    assert "hunter2" not in raised.value.message


# --- injection


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
nasty = st.sampled_from(
    [
        "$(reboot)",
        "`id`",
        "'; rm -rf / #",
        '"}]}',
        "a\nb: c",
        "\r\n",
        "&& true",
        "- x",
        "!!python",
        "\u2028",
        "\U0001d54f",
        "../..",
        "%s{}",
    ]
)
words = st.one_of(text, nasty, st.builds(lambda a, b: a + b, nasty, text))


@settings(deadline=None)  # the machine may be busy
@given(
    command=st.lists(words, max_size=4),
    args=st.lists(words, max_size=4),
    env=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), words, max_size=4),
    model=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60),
    path=st.from_regex(r"/[!-~]{0,40}", fullmatch=True),
)
def test_no_words_of_a_user_change_the_shape_of_a_definition(
    command: list[str], args: list[str], env: dict[str, str], model: str, path: str
) -> None:
    workload = Workload(
        image="x",
        command=command,
        args=args,
        ports=[Port(name="http", port=80)],
        readiness_probe=Probe(http_get=HTTPGet(path=path, port="http")),
    )
    made = request(workload, model=ServedModel(name=model), env=[EnvValue(*item) for item in env.items()])
    try:
        definition = translate.job_definition(made)
    except Refused:
        assert any("%%" in value or value.startswith("__") for value in (*command, *args, *env.values(), path))
        return
    sent = json.loads(json.dumps(definition))
    assert list(job_definition().iter_errors(sent)) == []
    (operation,) = sent["ops"]
    found = operation["args"]
    assert (found.get("entrypoint", []), found.get("cmd", []), found.get("env", {})) == (command, args, env)
    assert found["expose"][0]["health_checks"][0]["path"] == path
    assert set(found) <= {"image", "gpu", "entrypoint", "cmd", "env", "expose"}


@settings(deadline=None)  # the machine may be busy
@given(st.one_of(words, st.builds("acme/{}:1".format, words)))
def test_an_image_is_an_image_or_refused_before_it_comes_here(image: str) -> None:
    try:
        workload = Workload(image=image)
    except ValidationError:
        return
    made = arguments(request(workload))
    assert made == {"image": image, "gpu": True}
    assert not set(image) & set("$`'\"\\;&|<>(){}!#*? \t\r\n")


@settings(deadline=None)  # the machine may be busy
@given(text)
def test_a_handle_is_ours_or_refused(handle: str) -> None:
    with pytest.raises(Refused):
        translate.read_handle(handle)


# --- markets


def market(**changes: Any) -> Market:
    fields = {
        "address": ADDRESS,
        "slug": "nvidia-3060",
        "type": "PREMIUM",
        "usd_reward_per_hour": Decimal("0.048"),
        "network_fee_percentage": 10,
        "gpu_types": ["NVIDIA GeForce RTX 3060"],
        "lowest_vram": 12,
    }
    return Market.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("price", "fee", "wanted"),
    [
        (Decimal("0.048"), 10, "0.0528"),
        ("0.048", 10, "0.0528"),
        (1, 0, "1"),
        (Decimal("0.1"), Decimal("12.5"), "0.1125"),
        (0, 10, "0"),
        (None, 10, None),
        ("free", 10, None),
        ("NaN", 10, None),
        ("Infinity", 10, None),
        (-1, 10, None),
        ({}, 10, None),
    ],
)
def test_a_price_has_the_networks_fee(price: object, fee: object, wanted: str | None) -> None:
    found = translate.price_of(market(usd_reward_per_hour=price, network_fee_percentage=fee))
    assert found == (Decimal(wanted) if wanted else None)
    offers = translate.offers_of([market(usd_reward_per_hour=price, network_fee_percentage=fee)])
    assert [offer.price_per_hour for offer in offers] == ([wanted] if wanted else [])


def test_an_offer_is_one_gpu_with_a_normal_name_and_its_market() -> None:
    (offer,) = translate.offers_of([market()])
    assert (offer.id, offer.gpu_type, offer.gpu_count, offer.gpu_memory_gb) == (
        "nvidia-3060",
        "nvidia-rtx-3060-12gb",
        1,
        12,
    )
    attributes = {item.name: item.value for item in offer.attributes}
    assert attributes["pool"] == f"{ADDRESS},nvidia-3060"
    assert attributes["market_address"] == ADDRESS


def test_a_market_without_gpu_types_is_known_by_its_slug() -> None:
    (offer,) = translate.offers_of([market(gpu_types=[], slug="nvidia-3090", lowest_vram=None)])
    assert offer.gpu_type == "nvidia-rtx-3090"


# --- observations


def deployment(status: str, **changes: Any) -> Deployment:
    fields = {
        "id": "D" * 44,
        "name": "cal-0a1b2c3d4e-abcdefgh1234",
        "owner": "A" * 44,
        "status": status,
        "replicas": 1,
        "created_at": NOW - timedelta(hours=1),
        "updated_at": NOW,
        "endpoints": [{"opId": "main", "port": 80, "url": "https://x.invalid"}],
    }
    return Deployment.model_validate({**fields, **changes})


def job(state: str) -> Job:
    return Job(job="J" * 44, state=state, time_start=1700000000, created_at=NOW)


def detail(status: str = "success", exit_code: int | None = 0, ended: datetime | None = None, **more: Any) -> JobDetail:
    operation = {"status": "finished", "exitCode": exit_code, "logs": [], "diagnostics": {"reason": {}}, **more}
    end = ended or NOW - timedelta(hours=1)
    return JobDetail.model_validate(
        {"jobResult": {"status": status, "opStates": [operation]}, "timeEnd": int(end.timestamp())}
    )


def reason(**flags: Any) -> dict[str, Any]:
    return {"diagnostics": {"reason": flags}}


def _words(path: str, name: str) -> set[str]:
    """The closed word list of a query parameter, in the provider's own document."""
    parameters = openapi()["paths"][path]["get"]["parameters"]
    (schema,) = [item["schema"] for item in parameters if item["name"] == name]
    return set(schema["anyOf"][0]["enum"])


def test_every_status_and_every_job_state_of_the_providers_document_has_its_meaning() -> None:
    statuses = _words("/api/deployments", "status")
    jobs = _words("/api/deployments/{deployment}/jobs", "state")
    assert statuses == STATUSES, "the provider has a status that we don't map, or no longer has one that we do"
    for status in statuses:
        for state in (None, *jobs):
            seen = observation(deployment(status), job(state) if state else None, detail() if state else None, "", NOW)
            assert seen.state is not State.UNKNOWN, (status, state)


@pytest.mark.parametrize(
    ("status", "state", "wanted"),
    [
        ("DRAFT", None, State.STARTING),
        ("STARTING", None, State.STARTING),
        ("RUNNING", None, State.STARTING),
        ("RUNNING", "QUEUED", State.STARTING),
        ("RUNNING", "RUNNING", State.RUNNING),
        ("INSUFFICIENT_FUNDS", None, State.STARTING),
        ("INSUFFICIENT_FUNDS", "RUNNING", State.RUNNING),
        ("ERROR", None, State.FAILED),
        ("ERROR", "RUNNING", State.RUNNING),
        ("STOPPING", "RUNNING", State.TERMINATED),
        ("STOPPED", None, State.TERMINATED),
        ("STOPPED", "STOPPED", State.TERMINATED),
        ("ARCHIVED", None, State.TERMINATED),
        ("ARCHIVED", "RUNNING", State.TERMINATED),
        ("PAUSED", "RUNNING", State.UNKNOWN),
        ("RUNNING", "DREAMING", State.UNKNOWN),
    ],
)
def test_each_status_has_its_state(status: str, state: str | None, wanted: State) -> None:
    seen = observation(deployment(status), job(state) if state else None, None, "no such image", NOW)
    assert seen.state is wanted
    assert status in seen.message
    assert (seen.readiness is Readiness.PROBE) == (wanted is State.RUNNING)
    if status == "ERROR" and state is None:
        assert "no such image" in seen.message


@pytest.mark.parametrize(
    ("result", "wanted", "said"),
    [
        (detail(), State.SUCCEEDED, "exit code 0"),
        (detail("failed", 3), State.FAILED, "exit code 3"),
        (
            detail("failed", 137, diagnostics={"reason": {}, "state": {"OOMKilled": True}}),
            State.FAILED,
            "out of memory",
        ),
        (detail("failed", None, error={"event": "pull", "message": "no such image"}), State.FAILED, "no such image"),
        (detail("stopped", 0, **reason(hostShutDown=True)), State.LOST, "host shut down"),
        (detail("stopped", 0, **reason(jobExpired=True)), State.TERMINATED, "paid time"),
        (detail("stopped", 0, **reason(jobStopped=True)), State.TERMINATED, "stopped"),
        (
            detail("stopped", 0, **reason(hostShutDown=True, reason="quit by its owner")),
            State.LOST,
            "quit by its owner",
        ),
        (detail("stopped", 0), State.TERMINATED, "stopped"),
        (detail("melted", 0), State.FAILED, "melted"),
        (
            detail("failed", 1, logs=[{"type": "stderr", "log": "Traceback\nValueError: x\n"}]),
            State.FAILED,
            "ValueError: x",
        ),
    ],
)
@pytest.mark.parametrize("status", sorted(STATUSES - {"DRAFT"}))
def test_an_ended_job_says_how_whatever_the_deployment_says(
    result: JobDetail, wanted: State, said: str, status: str
) -> None:
    seen = observation(deployment(status), job("COMPLETED"), result, "", NOW)
    assert seen.state is wanted
    assert said in seen.message


def test_a_result_may_come_late_but_not_for_ever() -> None:
    fresh = JobDetail(timeEnd=int((NOW - RESULT_WINDOW / 2).timestamp()))
    old = JobDetail(timeEnd=int((NOW - RESULT_WINDOW * 2).timestamp()))
    for result, wanted in ((fresh, State.UNKNOWN), (old, State.LOST), (None, State.LOST)):
        assert observation(deployment("STOPPED"), job("COMPLETED"), result, "", NOW).state is wanted


def test_only_what_can_come_back_is_not_ended() -> None:
    for status in STATUSES:
        seen = observation(deployment(status), None, None, "", NOW)
        may_return = status in ("DRAFT", "STARTING", "RUNNING", "INSUFFICIENT_FUNDS")
        assert (seen.state not in ENDED_STATES) == may_return, status


def test_without_a_port_running_is_ready() -> None:
    seen = observation(deployment("RUNNING", endpoints=[]), job("RUNNING"), None, "", NOW)
    assert (seen.readiness, seen.endpoint) == (Readiness.YES, None)


def test_the_job_that_counts_is_the_running_one() -> None:
    jobs = [job("STOPPED"), job("QUEUED"), job("RUNNING")]
    assert current_job(jobs) is jobs[2]
    assert current_job(jobs[:2]) is jobs[1]
    assert current_job(jobs[:1]) is jobs[0]
    assert current_job([]) is None


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb", ["a", "b"]),
        ("10%\r20%\r30%\n", ["30%"]),
        ("", []),
        ("a\u2028b", ["a\u2028b"]),
    ],
)
def test_output_becomes_lines(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines
