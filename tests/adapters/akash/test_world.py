"""The stand-in itself: it keeps to its own description whatever is asked, runs as a program, bills, and fails as it is told."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from worlds.akash import KEY, Akash, serving
from worlds.akash_calls import sign
from worlds.akash_faults import Fault, Plan
from worlds.akash_schema import document
from worlds.akash_state import address
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter, logs
from cal_adapters.akash.wire import LeaseId
from cal_adapters.contract import Mark, State, Stop
from cal_adapters.errors import OutcomeUnknown

_PROGRAM = Path(__file__).resolve().parents[2] / "worlds" / "akash.py"
_HEADERS = {"x-api-key": KEY}

schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[tuple[Akash, str]]:
    """A world that everything is thrown at, with something in it."""
    akash = Akash()
    sdl = {"services": {"http-80": {"expose": []}}, "profiles": {"compute": {"http-80": {"resources": {}}}}}
    akash.state.open(address("owner"), ["dcloud"], "c29tZWJvZHkgZWxzZSdz", sdl, ("uact", Decimal(1000)))
    with serving(akash) as url:
        yield akash, url


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One for all requests, and closed: a socket that is collected while Python 3.11 compiles something breaks the compiler."""
    gc.collect()
    with requests.Session() as made:
        yield made


def test_its_description_is_valid_openapi() -> None:
    validate(document())


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_it_keeps_to_its_description_whatever_is_asked(
    case: Any, fuzzed: tuple[Akash, str], session: requests.Session
) -> None:
    akash, url = fuzzed
    answer = case.call(base_url=url, headers=_HEADERS, session=session)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    case.validate_response(answer, checks=checks, headers=_HEADERS)
    assert [each for each in akash.violations if "our answer" in each] == []


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ("/v1/user/me", 401),
        ("/v1/deployments", 401),
        ("/v1/balances", 401),
        ("/v1/gpu-prices", 200),
        ("/v1/market-data/akt", 200),
    ],
)
def test_it_asks_for_a_key_where_the_real_one_does(fuzzed: tuple[Akash, str], operation: str, status: int) -> None:
    for headers in ({}, {"x-api-key": "ac.sk.test.nobody"}):
        answer = httpx.get(fuzzed[1] + operation, headers=headers, trust_env=False)
        assert answer.status_code == status
        if status == 401:
            assert answer.json()["code"] == "unauthorized"
    both = {**_HEADERS, "authorization": "Bearer x"}
    if status == 401:
        assert httpx.get(fuzzed[1] + operation, headers=both, trust_env=False).status_code == 400


def test_it_runs_as_a_program_and_ends_when_it_is_told(free_port: int, eventually: Callable[..., Any]) -> None:
    process = subprocess.Popen([sys.executable, str(_PROGRAM), "--port", str(free_port)], stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{free_port}"

    def answers() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return bool(httpx.get(f"{url}/_world/billing", trust_env=False).json() == [])
        except httpx.TransportError:
            return False

    try:
        eventually(answers)
        assert httpx.get(f"{url}/v1/user/me", headers=_HEADERS, trust_env=False).status_code == 200
        assert httpx.post(f"{url}/_world/advance", json={"seconds": "x"}, trust_env=False).status_code == 400
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.anyio
async def test_it_bills_from_the_lease_to_the_end_and_tells_so(world: AkashWorld, adapter: AkashAdapter) -> None:
    request = await world.request(Mark("0a1b2c3d4e", "billedbilled"))
    instance = await adapter.launch(request)
    await world.advance(100)
    await adapter.advance(instance.handle, request)
    await world.advance(3600)
    assert (await adapter.observe(instance.handle)).state is State.RUNNING
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as client:
        (billing,) = (await client.get("/_world/billing")).json()
        assert billing["groups"] == [str(instance.mark)] and billing["billing"]
        assert await adapter.stop(instance.handle) is Stop.GONE
        await world.advance(3600)
        assert (await client.get("/_world/billing")).json() == []
        (record,) = (await client.get("/_world/deployments")).json()
    assert 3600 <= record["billed_seconds"] < 3660
    assert record["price"] == "0.40"


@pytest.mark.anyio
async def test_its_gateways_want_a_token_that_is_theirs_fits_and_is_young(
    world: AkashWorld, adapter: AkashAdapter
) -> None:
    request = await world.request(Mark("0a1b2c3d4e", "loggedlogged"))
    instance = await adapter.launch(request)
    await world.advance(21)
    await adapter.advance(instance.handle, request)
    await world.advance(4)
    cheap, fast, now = address("cheap"), address("fast"), int(world.akash.state.now())
    lease = LeaseId(dseq=instance.id, gseq=1, oseq=1, provider=cheap)

    def token(provider: str = cheap, scope: str = "logs", age: int = 0) -> str:
        permission = {"provider": provider, "access": "scoped", "scope": [scope]}
        leases = {"access": "granular", "permissions": [permission]}
        born = now - age
        return sign(
            {"iss": address("owner"), "iat": born, "nbf": born, "exp": born + 60, "version": "v1", "leases": leases}
        )

    def source(with_token: str) -> logs.Source:
        return logs.Source(
            world.url.replace("http", "ws") + "/provider-proxy", f"{world.url}/gateway/cheap", lease, with_token
        )

    assert list(await logs.tail(source(token()), 5)) == []
    for bad in (token(provider=fast), token(scope="shell"), token(age=100), token()[:-2] + "xx", "", "a.b.c"):
        with pytest.raises(OutcomeUnknown):
            await logs.tail(source(bad), 5)


def test_without_npm_the_package_is_said_to_be_missing(tmp_path: Path) -> None:
    program = _PROGRAM.with_name("akash_package.py")
    env = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    assert run.stderr.startswith("npm can't fetch the Akash package")


@pytest.mark.anyio
async def test_a_purchase_that_hangs_is_given_up_in_time_and_its_outcome_unknown(
    world: AkashWorld, adapter: AkashAdapter
) -> None:
    world.akash.plan.faults.append(Fault("createDeployment", "hang", seconds=60))
    async with asyncio.timeout(adapter.traits.launch_timeout_seconds):
        with pytest.raises(OutcomeUnknown):
            await adapter.launch(await world.request(Mark("0a1b2c3d4e", "hanginghanging")))


# --- faults


def test_the_dice_fall_the_same_way_for_the_same_seed() -> None:
    def fall(seed: int) -> list[str | None]:
        plan = Plan()
        plan.roll(0.5, seed)
        faults = [plan.next("getDeployment") for _ in range(50)]
        return [f"{fault.kind} {fault.status} {fault.after}" if fault else None for fault in faults]

    assert fall(7) == fall(7)
    assert fall(7) != fall(8)
    assert None in fall(7) and len(set(fall(7))) > 4


def test_only_reads_are_told_stale() -> None:
    plan = Plan([Fault("*", "stale", times=3)])
    assert plan.next("createDeployment") is None
    assert plan.next("getDeployment") is not None
    plan = Plan()
    plan.roll(1.0, 1)
    assert {fault.kind for fault in (plan.next("createLeases") for _ in range(200)) if fault} == {
        "status",
        "cut",
        "garbage",
    }


def test_a_fault_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        Fault("*", "meteor")
