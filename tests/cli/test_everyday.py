"""Everyday commands against a running system: what a person types, and what they read."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cal_cli.bootstrap import examples
from cal_crds import meta
from cal_crds.names import label_hash

pytestmark = pytest.mark.timeout(200)
Calctl = Any
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def pool(system: Calctl) -> str:
    made = system(
        "create", "pool", "rtx", "--provider", "demo", "--owner", "ann", "--max-cost", "2.5", "--strategy", "cheapest"
    )
    found = re.search(UUID, made.stdout)
    assert found
    return found[0]


@pytest.fixture(scope="module")
def llama(system: Calctl, pool: str) -> str:
    made = system("deploy", "llama", "--pool", "rtx", "--gpus", "1", "--image", "x", "--wait", "--timeout", "60")
    assert re.search(r"\d s {2}RUNNING", made.stderr), "--wait shows states and time"
    found = re.search(UUID, made.stdout)
    assert found
    return found[0]


def test_tables_for_people(system: Calctl, pool: str, llama: str) -> None:
    assert re.search(r"^demo +on_prem", system("get", "providers").stdout, re.MULTILINE)
    assert re.search(r"^demo .*nvidia-rtx-4090", system("get", "offers").stdout, re.MULTILINE)
    assert re.search(rf"^rtx +demo +ACTIVE .*{pool}", system("get", "pools").stdout, re.MULTILINE)
    assert re.search(rf"^llama +RUNNING .*{llama}", system("get", "deployments").stdout, re.MULTILINE)
    assert re.search(r"^llama-\S+ +demo +ready +1/1", system("get", "nodes").stdout, re.MULTILINE)


def test_an_owner_sees_their_own(system: Calctl, pool: str) -> None:
    assert pool in system("get", "pools", "--owner", "ann").stdout
    assert system("get", "pools", "--owner", "ben").stdout == "no pools\n"


def test_wide_has_more_columns(system: Calctl, pool: str) -> None:
    assert "OWNER" not in system("get", "pools").stdout
    assert "OWNER" in system("get", "pools", "-o", "wide").stdout


def _cells(text: str, row: str) -> dict[str, str]:
    """The line of a table that has a cell `row`, by heading."""
    lines = [re.split(r" {3,}", line) for line in text.splitlines()]
    return next(dict(zip(lines[0], line, strict=True)) for line in lines[1:] if row in line)


def test_cost_so_far_grows_while_one_looks(
    system: Calctl, pool: str, llama: str, eventually: Callable[..., Any]
) -> None:
    node = json.loads(system("get", "nodes", "-o", "json").stdout)[0]["id"]
    for kind, row in (("pools", pool), ("deployments", llama), ("nodes", node)):

        def cells(kind: str = kind, row: str = row) -> dict[str, str]:
            return _cells(system("get", kind, "-o", "wide").stdout, row)

        assert Decimal(cells()["USD/H"]) > 0
        before = Decimal(cells()["USD SO FAR"])
        eventually(lambda cells=cells, before=before: Decimal(cells()["USD SO FAR"]) > before, timeout=60, interval=0.5)
    told = re.search(
        r"^cost so far +([0-9.]+) USD in 1 pool; now ([0-9.]+) USD/h$", system("status").stdout, re.MULTILINE
    )
    assert told and Decimal(told[1]) > 0 and Decimal(told[2]) > 0


def test_json_for_programs(system: Calctl, pool: str, llama: str) -> None:
    listed = json.loads(system("get", "deployments", "-o", "json").stdout)
    assert llama in [item["deployment_id"] for item in listed]
    one = json.loads(system("get", "deployment", "llama", "-o", "json").stdout)
    assert (one["deployment_id"], one["state"]) == (llama, "RUNNING")


@pytest.mark.parametrize("kind", ["providers", "pools", "deployments", "nodes"])
def test_yaml_is_the_resource_behind(system: Calctl, llama: str, kind: str) -> None:
    body = yaml.safe_load(system("get", kind, "-o", "yaml").stdout)
    assert body["kind"] == "List"
    assert body["items"]
    assert all(item["apiVersion"] == "calayer.dev/v1alpha1" and "spec" in item for item in body["items"])


def test_yaml_of_one_can_be_applied_again(system: Calctl, llama: str) -> None:
    text = system("get", "deployments", llama, "-o", "yaml").stdout
    assert yaml.safe_load(text)["metadata"]["uid"] == llama
    system("kubectl", "apply", "--dry-run=server", "-f", "-", stdin=text)


def test_names_and_ids_mean_the_same(system: Calctl, llama: str) -> None:
    resource = yaml.safe_load(system("get", "deployments", llama, "-o", "yaml").stdout)["metadata"]["name"]
    answers = [
        json.loads(system("get", "deployments", name, "-o", "json").stdout) for name in (llama, "llama", resource)
    ]
    for answer in answers:
        assert Decimal(answer.pop("cost_so_far")) > 0  # grows from one answer to the next
    assert answers[0] == answers[1] == answers[2]


def test_logs_and_their_tail(system: Calctl, llama: str) -> None:
    lines = system("logs", "llama").stdout.splitlines()
    assert len(lines) > 1
    assert system("logs", "llama", "--tail", "1").stdout.splitlines() == lines[-1:]


def test_followed_logs_begin_with_history(system: Calctl, llama: str) -> None:
    history = system("logs", "llama").stdout.splitlines()
    following = subprocess.Popen(
        [*system.argv, "logs", "-f", "llama"], env=system.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    seen = [following.stdout.readline().strip() for _ in history]
    following.terminate()
    following.communicate()
    assert seen == history


def test_every_replica_is_followed(system: Calctl, pool: str) -> None:
    system("deploy", "pair", "--pool", pool, "--gpus", "1", "--replicas", "2", "--image", "x", "--wait")
    assert re.search(r"^pair +RUNNING +2/2 ", system("get", "deployments").stdout, re.MULTILINE)
    history = system("logs", "pair").stdout.splitlines()
    following = subprocess.Popen(
        [*system.argv, "logs", "-f", "pair"], env=system.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    seen = [following.stdout.readline().strip() for _ in history]
    system("terminate", "pair")
    _, said = following.communicate(timeout=60)
    assert sorted(seen) == sorted(history)
    assert len({line.split()[0] for line in seen}) == 2, "each line begins with the name of its replica"
    assert following.returncode == 0 and "following 2 replicas" in said


def test_nothing_is_left_of_a_deployment_that_is_deleted(
    system: Calctl, pool: str, eventually: Callable[..., Any]
) -> None:
    label = f"{meta.LABEL_DEPLOYMENT}={{}}"
    uids = {}
    for name in ("leaves", "stays"):
        made = system("deploy", name, "--pool", pool, "--gpus", "1", "--image", "x", "--env", "MY_TOKEN=t", "--wait")
        uids[name] = made.stdout.split()[1]
        system("terminate", name)

    def left(name: str) -> int:
        kept = system("kubectl", "get", "secrets,configmaps", "-o", "name", "-l", label.format(uids[name])).stdout
        return len(kept.split())

    for name in uids:
        eventually(lambda name=name: left(name) == 2, timeout=60, interval=0.5)
    system("kubectl", "delete", "mdep", "-l", f"{meta.LABEL_MODEL}={label_hash('leaves')}")
    eventually(lambda: left("leaves") == 0, timeout=90, interval=1)
    assert left("stays") == 2 and "running" in system("logs", "stays").stdout


def test_without_a_kubeconfig_the_api_alone_is_enough(system: Calctl, pool: str, llama: str) -> None:
    env = {**system.env, "CAL_STATE_DIR": str(system.state / "none"), "CAL_API_URL": system.api_url}
    far = dataclasses.replace(system, env=env)
    assert pool in far("get", "pools").stdout
    assert far("logs", "llama", "--tail", "1").stdout
    assert json.loads(far("get", "pools", "rtx", "-o", "json").stdout)["pool_id"] == pool


def test_all_examples_apply_beside_what_up_registered(system: Calctl) -> None:
    system("kubectl", "apply", "--server-side", "--dry-run=server", "--recursive", "-f", str(examples()))


def test_why_it_waits_and_what_was_refused(system: Calctl, pool: str) -> None:
    waiting = system(
        "deploy", "huge", "--pool", pool, "--gpus", "8", "--image", "x", "--wait", "--timeout", "2", check=False
    )
    assert waiting.returncode == 1
    assert "still PENDING" in waiting.stderr
    told = system("explain", "huge").stdout
    assert "is PENDING" in told
    assert re.search(r"^a100\S+ +AbovePriceCap +costs 9.20 USD/h", told, re.MULTILINE)
    assert re.search(r"^huge +PENDING .* none of .*$", system("get", "deployments", "-o", "wide").stdout, re.MULTILINE)
    assert re.search(r"^Ready +False +NoOffer", told, re.MULTILINE)


def test_terminate_one_then_all_of_an_owner(system: Calctl, pool: str, eventually: Callable[..., Any]) -> None:
    for name in ("one", "two", "three"):
        system("deploy", name, "--pool", pool, "--gpus", "1", "--image", "x", "--owner", "ann")
    assert "terminat" in system("terminate", "one").stdout

    def states() -> dict[str, str]:
        listed = json.loads(system("get", "deployments", "-o", "json").stdout)
        return {item["model_name"]: item["state"] for item in listed}

    eventually(lambda: states()["one"] == "TERMINATED", timeout=60, interval=0.5)
    assert states()["two"] != "TERMINATED"
    ended = system("terminate", "--all", "--owner", "ann").stdout
    assert len(ended.splitlines()) >= 2
    eventually(lambda: set(states().values()) == {"TERMINATED"}, timeout=60, interval=0.5)
    assert system("terminate", "--all", "--owner", "ben").stdout == "ben has nothing to terminate\n"


def test_all_of_an_owner_end_also_beside_one_that_somebody_else_manages(
    system: Calctl, pool: str, eventually: Callable[..., Any]
) -> None:
    """In a pool that is another owner's: `get` and `terminate` mean the same ones."""
    for name in ("kept", "left", "right"):
        asked: dict[str, Any] = {"pool_id": pool, "model_name": name, "owner_id": "carl", "gpu_per_replica": 1}
        asked["configuration"] = {"image": "x"}
        assert httpx.post(f"{system.api_url}/deploy", json=asked).status_code == 200

    def listed() -> dict[str, dict[str, str]]:
        found = json.loads(system("get", "deployments", "--owner", "carl", "-o", "json").stdout)
        return {item["model_name"]: item for item in found}

    kept = listed()["kept"]
    body: dict[str, Any] = {
        "apiVersion": "calayer.dev/v1alpha1",
        "kind": "ModelDeployment",
        "spec": {"desiredState": "Running"},
    }
    body["metadata"] = {"name": kept["resource_name"], "namespace": kept["namespace"]}
    system("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))

    result = system("terminate", "--all", "--owner", "carl", check=False)
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2
    assert f"deployment {kept['deployment_id']} was not terminated: Another manager owns" in result.stderr
    eventually(lambda: [n for n, i in listed().items() if i["state"] != "TERMINATED"] == ["kept"], timeout=60)


def test_another_api_by_flag_and_by_environment(system: Calctl, new_calctl: Callable[[], Calctl], pool: str) -> None:
    elsewhere = new_calctl()
    assert "demo" in elsewhere("get", "providers", "--api", system.api_url).stdout
    elsewhere.env["CAL_API_URL"] = system.api_url
    assert pool in elsewhere("get", "pools", "--owner", "ann").stdout
    refused = elsewhere("get", "pools", "--owner", "ann", "-o", "yaml", check=False)
    assert refused.returncode == 1
    assert "needs a kubeconfig" in refused.stderr
    shown = elsewhere(
        "get", "pools", "rtx", "--owner", "ann", "-o", "yaml", "--kubeconfig", str(system.state / "kubeconfig")
    )
    assert yaml.safe_load(shown.stdout)["metadata"]["uid"] == pool


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["create", "pool", "rtx", "--provider", "demo", "--owner", "ann"], 1, "already exists", id="409"),
        pytest.param(["create", "pool", "p", "--provider", "nope"], 1, "No adapter registered", id="unknown provider"),
        pytest.param(["create", "pool", "p"], 2, "--provider", id="no provider"),
        pytest.param(
            ["create", "pool", "p", "--provider", "demo", "--max-cost", "-1"], 1, "max_cost_per_hour", id="-1"
        ),
        pytest.param(["create", "pool", "p", "--provider", "demo", "--max-cost", "nan"], 1, "US dollars", id="nan"),
        pytest.param(["create", "pool", "p", "--provider", "demo", "--max-cost", "inf"], 1, "US dollars", id="inf"),
        pytest.param(["create", "pool", "p", "--provider", "demo", "--strategy", "x"], 1, "best_fit", id="strategy"),
        pytest.param(["create", "pool", os.fsdecode(b"\xff"), "--provider", "demo"], 1, "not text", id="no UTF-8"),
        pytest.param(["get", "pools", "--owner", os.fsdecode(b"\xff")], 1, "not text", id="no UTF-8 in a path"),
        pytest.param(["get", "pools", "-o", "yaml", "--kubeconfig", "/nope"], 1, "/nope", id="no kubeconfig"),
        pytest.param(
            ["get", "pools", "-o", "yaml", "--kubeconfig", "/dev/null"], 1, "/dev/null", id="empty kubeconfig"
        ),
        pytest.param(["deploy", "m", "--pool", "none"], 1, "no pool 'none'", id="unknown pool"),
        pytest.param(["deploy", "m", "--pool", "rtx", "--replicas", "-1"], 2, "--replicas", id="replicas"),
        pytest.param(["deploy", "m", "--pool", "rtx", "--env", "NOVALUE"], 1, "NAME=VALUE", id="env"),
        pytest.param(["get", "things"], 2, "things", id="unknown kind"),
        pytest.param(["get", "pools", "none"], 1, "no pool 'none'", id="unknown pool name"),
        pytest.param(["logs", "none"], 1, "no deployment 'none'", id="logs of nothing"),
        pytest.param(["explain", "none"], 1, "no deployment 'none'", id="explain nothing"),
        pytest.param(["terminate"], 2, "--all", id="terminate what"),
        pytest.param(["terminate", "--all"], 2, "--owner", id="terminate whose"),
        pytest.param(["get", "providers", "--api", "x"], 1, "not an http", id="no URL"),
        pytest.param(["get", "providers", "--api", "http://127.0.0.1:1"], 1, "no answer", id="nobody there"),
    ],
)
def test_bad_input_is_one_clear_line(system: Calctl, pool: str, arguments: list[str], code: int, words: str) -> None:
    result = system(*arguments, check=False)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [", "neither YAML nor JSON"), (b"\xff\x00", "neither YAML nor JSON"), (b"[1]", "must hold a mapping")],
)
def test_a_config_file_that_is_none(system: Calctl, pool: str, tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)
    result = system("deploy", "m", "--pool", pool, "--config", str(file), check=False)
    assert result.returncode == 1
    assert words in result.stderr and "Traceback" not in result.stderr


def test_output_that_can_not_be_written_is_one_clear_line(system: Calctl) -> None:
    argv = [*system.argv, "get", "offers"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(argv, env=system.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "calctl: [Errno 28] No space left on device\n"


def test_a_terminal_without_unicode_shows_the_rest(system: Calctl) -> None:
    system("create", "pool", "✓", "--provider", "demo", "--owner", "umlaut")
    system.env["PYTHONIOENCODING"] = "latin-1"
    try:
        assert r"\u2713" in system("get", "pools", "--owner", "umlaut").stdout
    finally:
        del system.env["PYTHONIOENCODING"]


def test_who_stops_waiting_is_told_that_the_deployment_goes_on(system: Calctl, pool: str) -> None:
    # Where this run was started in the background, children ignore SIGINT; in somebody's terminal they don't.
    argv = ["env", "--default-signal=INT", *system.argv]
    argv += ["deploy", "patient", "--pool", pool, "--gpus", "64", "--image", "x", "--wait"]
    process = subprocess.Popen(argv, env=system.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert "PENDING" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(rf"deployment ({UUID}) goes on without us; `calctl terminate \1` ends it", told)
    assert "Aborted" not in told, "nothing of it is"
    assert "patient" in system("get", "deployments").stdout


def test_an_ambiguous_name_lists_the_ids(system: Calctl, pool: str) -> None:
    for _ in range(2):
        system("deploy", "twin", "--pool", pool, "--gpus", "1", "--image", "x")
    result = system("explain", "twin", check=False)
    assert result.returncode == 1
    assert len(re.findall(UUID, result.stderr)) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(system: Calctl, shell: str) -> None:
    assert "_CALCTL_COMPLETE" in system("completion", shell).stdout


def test_kubectl_takes_its_own_flags(system: Calctl) -> None:
    assert "ComputeProvider" in system("kubectl", "get", "cprov", "demo", "-o", "yaml").stdout
    assert "kubectl controls" in system("kubectl", "--help").stdout
    assert system("kubectl", "get", "nothing", check=False).returncode == 1
