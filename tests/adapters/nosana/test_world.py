"""The world itself: it keeps to the provider's document, the provider's own client gets along with it, and it notices what breaks it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from openapi_spec_validator import validate
from worlds import nosana, nosana_schemas
from worlds.nosana import KEY, Nosana
from worlds.nosana_calls import CALLS
from worlds.nosana_faults import Fault, Plan

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
#: Operations that the world doesn't have, and why.
ABSENT = {
    "POST /api/jobs/list": "needs a definition that is already on IPFS",
    "GET /api/jobs/{address}": "the chain's own record, which nobody here reads",
    "POST /api/deployments/vaults/create": "for wallets, not for keys",
    "POST /api/deployments/vaults/{vault}/withdraw": "for wallets, not for keys",
    "PATCH /api/deployments/{deployment}/update-active-revision": "nobody here goes back to an older revision",
    "PATCH /api/deployments/{deployment}/update-schedule": "nobody here schedules",
    "GET /api/deployments/jobs/{job}/job-definition": "for hosts",
    "POST /api/deployments/jobs/{job}/results": "for hosts",
}


def test_the_document_is_whole_and_valid() -> None:
    document = nosana_schemas.openapi()
    validate(document)
    assert len(nosana_schemas.Contract().operations()) == 31
    assert document["info"]["version"] == "2.1.8"


def test_every_operation_is_there_or_absent_for_a_reason() -> None:
    assert {str(operation) for operation in nosana_schemas.Contract().operations()} == set(CALLS) | set(ABSENT)


async def test_the_providers_own_client_gets_along_with_it(rig: Any) -> None:
    command = ["node", str(HERE / "drive.mjs"), str(nosana_schemas.folder()), rig.url, KEY]
    done = await to_thread.run_sync(partial(subprocess.run, command, capture_output=True, text=True, timeout=60))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {
        "markets": ["nvidia-3060", "nvidia-3090", "nvidia-4090", "nvidia-a100-80gb"],
        "market": "nvidia-3060",
        "balance": {"assignedCredits": 1000, "reservedCredits": 0, "settledCredits": 0},
        "created": "DRAFT",
        "endpoints": 1,
        "archiveOfDraft": "Deployment must be stopped before archiving",
        "started": "STARTING",
        "running": ["RUNNING", 1, 7200],
        "jobs": [1, 1, "RUNNING"],
        "job": [1, None, "nginx"],
        "header": "DEPLOYMENT_HEADER",
        "tasks": ["EXTEND"],
        "revisions": 1,
        "events": ["DEPLOYMENT_STARTED", "JOB_LIST_CONFIRMED"],
        "ended": [2, "failed", 3],
        "stopped": "STOPPED",
        "stopOfStopped": "Deployment is already stopped",
        "archived": "ARCHIVED",
        "pages": [10, 2, None, 12],
        "distinct": 12,
        "stranger": "Failed to fetch balance: Unauthorized",
        "missing": "Error getting deployment: Deployment not found.",
    }


@pytest.mark.timeout(300)
async def test_it_answers_generated_requests_as_the_document_says(rig: Any, tmp_path: Path) -> None:
    """schemathesis makes the requests; its own copy of the document judges the answers."""
    _, instance = await rig.running()
    job = (await rig.adapter.observe(instance.handle)).id
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(_for_schemathesis({"deployment": instance.id, "job": job, "address": job})))
    checks = "response_schema_conformance,status_code_conformance,content_type_conformance"
    options = ["--checks", checks, "--mode", "positive", "--phases", "coverage,fuzzing", "--max-examples", "4"]
    options += ["--seed", "1", "-H", f"Authorization: Bearer {KEY}", "--suppress-health-check", "all"]
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", str(document), "--url", rig.url, *options]
    run = partial(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    done = await to_thread.run_sync(run)
    assert done.returncode == 0, done.stdout[-6000:]
    rig.odd = "request "


def _for_schemathesis(existing: dict[str, str]) -> dict[str, Any]:
    """The document, without what the world doesn't have; with ids that exist, and with the refusals that the provider gives too."""
    document = copy.deepcopy(nosana_schemas.openapi())
    words: dict[str, Any] = {"application/json": {"schema": {}}}
    for path, methods in list(document["paths"].items()):
        for method, operation in list(methods.items()):
            if f"{method.upper()} {path}" not in CALLS:
                del methods[method]
                continue
            for status in ("400", "401", "404", "500"):
                operation["responses"].setdefault(status, {"description": "Refused.", "content": words})
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"] in existing:
                    # Deleting it would leave nothing for the others to meet.
                    known = [existing[parameter["name"]]] if method != "delete" else []
                    parameter["schema"] = {"enum": [*known, "9" * 44]}
            operation["parameters"] = [p for p in operation.get("parameters", []) if p["in"] != "header"]
    return document


# --- it notices


async def test_a_request_against_the_document_is_refused_and_noted(rig: Any) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for method, path, body in (
        ("GET", "/api/deployments?limit=7", None),
        ("GET", "/api/deployments?colour=red", None),
        ("POST", "/api/deployments/create", {"name": "x"}),
        ("POST", "/api/deployments/create", None),
    ):
        answer = await rig.http.request(method, path, headers=headers, json=body)
        assert answer.status_code == 400, path
    assert len(await rig.ask("violations")) == 3
    rig.odd = "request "


async def test_an_answer_against_the_document_is_noted(rig: Any) -> None:
    mark, instance = await rig.running()
    rig.odd = "LEVITATING"
    await rig.tell("deployment", name=str(mark), status=rig.odd)
    await rig.adapter.observe(instance.handle)
    assert any("LEVITATING" in found for found in await rig.ask("violations"))


async def test_a_definition_against_the_schema_is_refused(rig: Any, make_mark: Any) -> None:
    operation = {"type": "container/run", "id": "main", "args": {"image": "x", "env": {"A": "b"}}}
    definition = {"version": "0.1", "type": "container", "ops": [operation]}
    market = (await rig.http.get("/api/markets/")).json()[0]["address"]
    body = {"name": "x", "market": market, "replicas": 1, "timeout": 60, "strategy": "SIMPLE"}
    headers = {"Authorization": f"Bearer {KEY}"}

    async def made(definition: Any) -> int:
        answer = await rig.http.post(
            "/api/deployments/create", headers=headers, json={**body, "job_definition": definition}
        )
        return int(answer.status_code)

    assert await made(definition) == 200
    assert await made({**definition, "ops": [operation, operation]}) == 400
    assert await made({**definition, "ops": [{**operation, "args": {"image": "x", "env": {"A": 1}}}]}) == 400
    rig.odd = "request POST"


# --- the state machine


async def test_the_legal_moves_are_the_providers(rig: Any) -> None:
    """start from DRAFT, STOPPED, ERROR, INSUFFICIENT_FUNDS; stop from RUNNING, ERROR, INSUFFICIENT_FUNDS; archive, delete from STOPPED."""
    legal = {
        "start": {"DRAFT", "STOPPED", "ERROR", "INSUFFICIENT_FUNDS"},
        "stop": {"RUNNING", "ERROR", "INSUFFICIENT_FUNDS"},
        "archive": {"STOPPED"},
    }
    _, instance = await rig.launched()
    await rig.tell("delays", start=3600, stop=3600)
    headers = {"Authorization": f"Bearer {KEY}"}
    for move, allowed in legal.items():
        for status in (
            "DRAFT",
            "ERROR",
            "STARTING",
            "RUNNING",
            "STOPPING",
            "STOPPED",
            "INSUFFICIENT_FUNDS",
            "ARCHIVED",
        ):
            await rig.tell("deployment", deployment=instance.id, status=status)
            answer = await rig.http.post(f"/api/deployments/{instance.id}/{move}", headers=headers)
            assert (answer.status_code == 200) == (status in allowed), f"{move} from {status}"


async def test_a_second_is_billed_for_a_second(rig: Any) -> None:
    mark, instance = await rig.running()
    await rig.advance(3600)
    await rig.gone(instance.handle)
    (bill,) = await rig.ask("bills")
    assert bill["name"] == str(mark)
    assert 3600 <= bill["seconds"] < 3650
    assert bill["usd"] == pytest.approx(bill["seconds"] / 3600 * 0.0528)
    assert (await rig.adapter.check()).balance < 1000


async def test_a_full_market_keeps_jobs_waiting(rig: Any) -> None:
    await rig.tell("market", slug="nvidia-3060", machines=1)
    first, _ = await rig.running()
    _, other = await rig.launched()
    await rig.advance(5)
    assert "waits for a machine" in (await rig.adapter.observe(other.handle)).message
    await rig.tell("job", name=str(first), do="end")
    await rig.advance(5)
    assert "job RUNNING" in (await rig.adapter.observe(other.handle)).message


async def test_a_percentage_of_faults_is_repeatable() -> None:
    def drawn() -> list[bool]:
        plan = Plan(seed=7)
        plan.add(Fault(".", "cut", times=0, percent=30))
        return [plan.take("GET /") is not None for _ in range(200)]

    assert drawn() == drawn()
    assert 30 < sum(drawn()) < 90


def test_it_runs_as_a_program(free_port: int, eventually: Any) -> None:
    program = Path(nosana.__file__ or "")
    process = subprocess.Popen([sys.executable, str(program), "--port", str(free_port), "--key", "nos_mine"])
    try:

        def balance() -> Any:
            try:
                headers = {"Authorization": "Bearer nos_mine"}
                return httpx.get(f"http://127.0.0.1:{free_port}/api/credits/balance", headers=headers, trust_env=False)
            except httpx.ConnectError:
                return None

        assert eventually(balance).json()["assignedCredits"] == 1000
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)


def test_two_worlds_with_one_seed_are_alike() -> None:
    def addresses(seed: int) -> list[str]:
        return list(Nosana(seed=seed).provider.markets)

    assert addresses(3) == addresses(3) != addresses(4)
