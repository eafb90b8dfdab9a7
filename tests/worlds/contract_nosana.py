"""The world of `nosana`: the server of `nosana.py`, whose clock and faults the suite moves over /_world/."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb
from worlds.nosana import KEY, Nosana

from cal_adapters.contract import Context, Credentials, EnvValue, LaunchRequest, Mark
from cal_crds.node import Offer, OfferAttribute
from cal_crds.pool import Tenancy
from cal_crds.provider import NosanaSettings, ProviderSpec
from cal_crds.workload import HTTPGet, Port, Probe, ServedModel, Workload

#: Where each verb meets its fault. A lost answer is one of the call that changes something.
_REQUESTS: Final[Mapping[Verb, str]] = {
    Verb.CHECK: r"^GET /api/credits/balance$",
    Verb.OFFERS: r"^GET /api/markets/$",
    Verb.FIND: r"^GET /api/deployments$",
    Verb.LAUNCH: r"^POST /api/deployments/create$",
    Verb.OBSERVE: r"^GET /api/deployments/\w+$",
    Verb.STOP: r"^GET /api/deployments/\w+$",
    Verb.LIST_MARKED: r"^GET /api/deployments$",
    Verb.LOGS: r"^GET /api/deployments/\w+$",
}
_STOP: Final = r"^POST /api/deployments/\w+/stop$"
_READING: Final = frozenset({Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.GARBAGE})
#: Reads are tried twice when no answer can be read: the fault has to outlast both.
_FAULTS: Final[Mapping[Fault, dict[str, Any]]] = {
    Fault.REFUSED: {"kind": "status", "status": 400, "body": {"error": "Invalid request body."}},
    Fault.CREDENTIALS_REFUSED: {"kind": "status", "status": 401, "body": "Unauthorized"},
    Fault.RATE_LIMITED: {"kind": "rate", "retry_after": 7},
    Fault.SERVER_ERROR: {"kind": "status", "status": 500, "times": 2},
    Fault.GARBAGE: {"kind": "garbage", "times": 2},
    Fault.ANSWER_LOST: {"kind": "cut-after"},
}


class NosanaWorld:
    """A tenth of a second for each of the provider's own steps, by its clock."""

    name = "nosana"
    lacks: Mapping[Power, str] = {}
    faults: Mapping[Verb, Collection[Fault]] = {
        **dict.fromkeys(Verb, _READING),
        Verb.STOP: _READING | {Fault.ANSWER_LOST},
        Verb.LAUNCH: _READING | {Fault.REFUSED, Fault.PRICE_ABOVE_CAP, Fault.INSUFFICIENT_FUNDS, Fault.ANSWER_LOST},
    }
    crowd = 105

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url, self._http = url, http
        self._owner = ""
        self._market: dict[str, Any] = {}

    async def start(self) -> None:
        self._owner = (await self._get("stats"))["owners"][0]
        self._market = (await self._http.get("/api/markets/")).json()[0]

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        nosana = NosanaSettings(node_url=f"{self._url}/node/{{node}}")
        return Context(
            provider="nosana",
            settings=ProviderSpec(adapter="nosana", endpoint=self._url, nosana=nosana),
            installation=installation,
            credentials=Credentials("main", {"apiKey": KEY}) if credentials else None,
        )

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        price = Decimal(str(self._market["usd_reward_per_hour"])) * Decimal("1.1")
        attributes = {"market_address": self._market["address"], "pool": self._market["slug"]}
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": "default",
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": Offer(
                id=self._market["slug"],
                gpu_type="nvidia-rtx-3060",
                gpu_count=1,
                price_per_hour=f"{price:f}",
                attributes=[OfferAttribute(name=name, value=value) for name, value in attributes.items()],
            ),
            "provider_pool_id": self._market["slug"],
            "tenancy": Tenancy.SHARED,
            "gpu_count": 1,
            "max_price_per_hour": price * 2,
            "model": ServedModel(name="tiny"),
            "workload": Workload(
                image="example/tiny:1",
                args=["--port", "8000"],
                ports=[Port(name="http", port=8000)],
                readiness_probe=Probe(http_get=HTTPGet(path="/health", port="http")),
            ),
            "env": [EnvValue("CAL_TEST_SECRET", SECRET, secret=True)],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return f"{self._owner}/{'9' * 44}/1700000000"

    async def billing(self) -> Collection[Mark | None]:
        return [Mark.read(found["name"]) for found in await self._get("billing")]

    async def advance(self, seconds: float) -> None:
        await self._post("advance", {"seconds": seconds})

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        if fault is Fault.PRICE_ABOVE_CAP:
            dear = {**self._market, "usd_reward_per_hour": 99}
            plan = {"match": r"^GET /api/markets/\w+/$", "kind": "status", "status": 200, "body": dear}
        elif fault is Fault.INSUFFICIENT_FUNDS:
            spent = {"assignedCredits": 5, "reservedCredits": 1, "settledCredits": 4}
            plan = {"match": _REQUESTS[Verb.CHECK], "kind": "status", "status": 200, "body": spent}
        else:
            lost_stop = verb is Verb.STOP and fault is Fault.ANSWER_LOST
            plan = {"match": _STOP if lost_stop else _REQUESTS[verb], **_FAULTS[fault]}
            if verb is Verb.LAUNCH:
                plan["times"] = 1
        await self._post("faults", [plan])

    async def add_foreign(self) -> None:
        await self._post("crowd", {"key": KEY, "names": [str(Mark(FOREIGN, "foreigntoken")), "somebody-elses"]})

    async def revoke_credentials(self) -> None:
        await self._post("revoke", {"key": KEY})

    async def reprice(self, offer_id: str, factor: int) -> None:
        price = self._market["usd_reward_per_hour"] * factor
        await self._post("market", {"slug": offer_id, "usd_reward_per_hour": price})

    async def end(self, mark: Mark, exit_code: int) -> None:
        await self._post("job", {"name": str(mark), "do": "end", "exit_code": exit_code})

    async def lose(self, mark: Mark) -> None:
        await self._post("job", {"name": str(mark), "do": "lose"})

    async def strange_state(self, mark: Mark) -> None:
        await self._post("deployment", {"name": str(mark), "status": "LEVITATING"})

    async def say(self, mark: Mark, line: str) -> None:
        await self._post("job", {"name": str(mark), "do": "say", "line": line})

    async def violations(self) -> list[str]:
        """Where a request of ours or an answer of the world broke the provider's document."""
        found: list[str] = await self._get("violations")
        return found

    async def _get(self, name: str) -> Any:
        return (await self._http.get(f"/_world/{name}")).raise_for_status().json()

    async def _post(self, name: str, body: Any) -> None:
        (await self._http.post(f"/_world/{name}", json=body)).raise_for_status()


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NosanaWorld]:
    with Nosana().serve() as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            world = NosanaWorld(url, http)
            await world.start()
            yield world
            assert [problem for problem in await world.violations() if "LEVITATING" not in problem] == []
