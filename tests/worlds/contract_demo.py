"""The world of `demo`: its books, opened a second time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb

from cal_adapters.contract import Context, EnvValue, LaunchRequest, Mark
from cal_adapters.fake import Ledger, ledger_path
from cal_adapters.fake.catalogue import CATALOGUE
from cal_crds.pool import Tenancy
from cal_crds.provider import DemoSettings, ProviderSpec
from cal_crds.workload import Port, ServedModel, Workload

_PROVIDER: Final = "demo"
_OFFER: Final = CATALOGUE["rtx-4090-x1-eu-north"].offer
_VERBS: Final = {Verb.LIST_MARKED: "list"}
_FAULTS: Final = {Fault.SERVER_ERROR: "OutcomeUnknown", Fault.GARBAGE: "OutcomeUnknown"}
_READING: Final = frozenset(
    {Fault.CREDENTIALS_REFUSED, Fault.RATE_LIMITED, Fault.NOT_SENT, Fault.SERVER_ERROR, Fault.GARBAGE}
)


class DemoWorld:
    """Two seconds until an instance runs, one more until it answers, one until a stop is done; by the market's clock."""

    name = "demo"
    lacks: Mapping[Power, str] = {}
    faults: Mapping[Verb, Collection[Fault]] = {
        **dict.fromkeys(Verb, _READING),
        Verb.STOP: _READING | {Fault.ANSWER_LOST},
        Verb.LAUNCH: frozenset(Fault),
    }
    crowd = 25

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._ledger = Ledger(ledger_path(state_dir, _PROVIDER))

    def close(self) -> None:
        self._ledger.close()

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        delays = DemoSettings(
            launch_delay_milliseconds=2000, ready_delay_milliseconds=1000, stop_delay_milliseconds=1000
        )
        settings = ProviderSpec(adapter="demo", demo=delays)
        return Context(_PROVIDER, settings, installation, state_dir=self._state_dir)

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": "default",
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": _OFFER,
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": 1,
            "max_price_per_hour": Decimal(_OFFER.price_per_hour) * 2,
            "model": ServedModel(name="tiny"),
            "workload": Workload(image="example/tiny:1", ports=[Port(name="http", port=8000)]),
            "env": [EnvValue("CAL_TEST_SECRET", SECRET, secret=True)],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return "demo-999999"

    async def billing(self) -> Collection[Mark | None]:
        return self._ledger.billing()

    async def advance(self, seconds: float) -> None:
        self._ledger.pass_time(seconds)

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        self._ledger.fail_next(_VERBS.get(verb, str(verb)), _FAULTS.get(fault, str(fault)))

    async def add_foreign(self) -> None:
        self._ledger.add_foreign(Mark(FOREIGN, "foreigntoken"), _OFFER.id)
        self._ledger.add_foreign(None, _OFFER.id)

    async def revoke_credentials(self) -> None:
        self._ledger.revoke()

    async def reprice(self, offer_id: str, factor: int) -> None:
        self._ledger.reprice(offer_id, str(factor))

    async def end(self, mark: Mark, exit_code: int) -> None:
        self._ledger.end(mark, "Failed" if exit_code else "Succeeded", exit_code)

    async def lose(self, mark: Mark) -> None:
        self._ledger.end(mark, "Lost")

    async def strange_state(self, mark: Mark) -> None:
        self._ledger.strange(mark, "Levitating")

    async def say(self, mark: Mark, line: str) -> None:
        self._ledger.say(mark, line)


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DemoWorld]:
    world = DemoWorld(tmp_path)
    try:
        yield world
    finally:
        world.close()
