"""The world of `akash`, for the contract suite: the stand-in, served on a port of its own. Its lists give three at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from worlds import akash_views
from worlds.akash import KEY, Akash, served
from worlds.akash_faults import Fault as Mishap
from worlds.akash_state import Deployment, Lease, address
from worlds.contract_world import FOREIGN, INSTALLATION, SECRET, Fault, Power, Verb

from cal_adapters.akash import translate
from cal_adapters.akash.wire import GpuPrices
from cal_adapters.contract import Context, Credentials, EnvValue, LaunchRequest, Mark
from cal_crds.pool import Tenancy
from cal_crds.provider import AkashSettings, ProviderSpec
from cal_crds.workload import Port, ServedModel, Workload

_OWNER: Final = address("owner")
#: The request of each verb at which its fault shows.
_OPERATIONS: Final = {
    Verb.CHECK: "getCurrentUser",
    Verb.OFFERS: "getGpuPrices",
    Verb.FIND: "listDeployments",
    Verb.LIST_MARKED: "listDeployments",
    Verb.LAUNCH: "createDeployment",
    Verb.OBSERVE: "getDeployment",
    Verb.STOP: "closeDeployment",
    Verb.LOGS: "createJwtToken",
}
_MISHAPS: Final[Mapping[Fault, Mapping[str, Any]]] = {
    Fault.CREDENTIALS_REFUSED: {"kind": "status", "status": 401, "message": "Invalid API key"},
    Fault.RATE_LIMITED: {"kind": "status", "status": 429, "message": "Too many requests", "retry_after": 7},
    Fault.SERVER_ERROR: {"kind": "status", "status": 500},
    Fault.GARBAGE: {"kind": "garbage"},
    Fault.ANSWER_LOST: {"kind": "cut_after"},
    Fault.INSUFFICIENT_FUNDS: {
        "kind": "status",
        "status": 402,
        "message": "Not enough balance to cover the deployment deposit.",
    },
    Fault.REFUSED: {"kind": "status", "status": 400, "message": "Invalid SDL: it is no SDL"},
}
_ANYWHERE: Final = frozenset({Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.GARBAGE})
_OWN: Final = _ANYWHERE | {Fault.CREDENTIALS_REFUSED}


class AkashWorld:
    """Bids come after 4 to 14 seconds and are taken after 20; a workload is up three seconds later."""

    name = "akash"
    lacks: Mapping[Power, str] = {
        Power.CONCURRENT_LAUNCH: "Akash has no idempotency keys: two creates at once make two deployments",
        Power.EXIT_CODES: "Akash starts a container again whenever it exits, and tells no exit code",
        Power.LOGS_AFTER_END: "a provider drops the logs with the lease",
    }
    faults: Mapping[Verb, Collection[Fault]] = {
        **dict.fromkeys(Verb, _OWN),
        Verb.OFFERS: _ANYWHERE,
        Verb.STOP: _OWN | {Fault.ANSWER_LOST},
        Verb.LAUNCH: _OWN | {Fault.ANSWER_LOST, Fault.INSUFFICIENT_FUNDS, Fault.REFUSED},
    }
    crowd = 7

    def __init__(self, world: Akash, url: str) -> None:
        self.akash, self.url = world, url
        self._offers = translate.offers(GpuPrices.model_validate(akash_views.prices(world.state)).models)

    def context(self, *, installation: str = INSTALLATION, credentials: bool = True) -> Context:
        settings = ProviderSpec(
            adapter="akash",
            endpoint=self.url,
            akash=AkashSettings(bid_wait_seconds=20, provider_proxy=f"{self.url}/provider-proxy"),
        )
        key = Credentials("main", {"apiKey": KEY}) if credentials else None
        return Context("akash", settings, installation, credentials=key)

    async def request(self, mark: Mark, **changes: Any) -> LaunchRequest:
        offer = next(each for each in self._offers if each.id == "akash-rtx4090-24gi-pcie")
        values: dict[str, Any] = {
            "mark": mark,
            "node": f"node-{mark.token}",
            "namespace": "default",
            "deployment_uid": "11111111-1111-4111-8111-111111111111",
            "pool_uid": "22222222-2222-4222-8222-222222222222",
            "offer": offer,
            "provider_pool_id": None,
            "tenancy": Tenancy.SHARED,
            "gpu_count": 1,
            "max_price_per_hour": Decimal(offer.price_per_hour) * 2,
            "model": ServedModel(name="tiny"),
            "workload": Workload(image="example/tiny:1", ports=[Port(name="http", port=8000)]),
            "env": [EnvValue("CAL_TEST_SECRET", SECRET, secret=True)],
        }
        return LaunchRequest(**{**values, **changes})

    def unknown_handle(self) -> str:
        return translate.handle(_OWNER, "1700000000000")

    async def billing(self) -> Collection[Mark | None]:
        open_ones = [item for item in self.akash.state.deployments.values() if item.closed is None]
        return [Mark.read(item.groups[0]) for item in open_ones]

    async def advance(self, seconds: float) -> None:
        self.akash.state.advance(seconds)

    async def fail_next(self, verb: Verb, fault: Fault) -> None:
        # A stop looks before it closes: only the loss of its answer shows at the closing itself.
        looks = verb is Verb.STOP and fault is not Fault.ANSWER_LOST
        self.akash.plan.faults.append(Mishap("getDeployment" if looks else _OPERATIONS[verb], **_MISHAPS[fault]))

    async def add_foreign(self) -> None:
        for name in (str(Mark(FOREIGN, "foreigntoken")), "dcloud"):
            sdl = {"services": {"web": {"expose": []}}, "profiles": {"compute": {"web": {"resources": {}}}}}
            self.akash.state.open(_OWNER, [name], "c29tZWJvZHkgZWxzZSdz", sdl, ("uact", Decimal(1)))

    async def revoke_credentials(self) -> None:
        self.akash.state.accounts[0].keys.clear()

    async def reprice(self, offer_id: str, factor: int) -> None:
        self.akash.state.factors[offer_id.split("-")[1]] = Decimal(factor)

    async def end(self, mark: Mark, exit_code: int) -> None:
        raise NotImplementedError(self.lacks[Power.EXIT_CODES])

    async def lose(self, mark: Mark) -> None:
        lease = self._lease(mark)
        lease.ended, lease.reason = self.akash.state.now(), "lease_closed_reason_unstable"

    async def strange_state(self, mark: Mark) -> None:
        self._lease(mark).word = "levitating"

    async def say(self, mark: Mark, line: str) -> None:
        self._of(mark).log.append((self.akash.state.now(), line))

    def _of(self, mark: Mark) -> Deployment:
        return next(item for item in self.akash.state.deployments.values() if item.groups == [str(mark)])

    def _lease(self, mark: Mark) -> Lease:
        lease = self._of(mark).lease
        assert lease is not None
        return lease


@asynccontextmanager
async def open_world(fixtures: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AkashWorld]:
    world = Akash(page=3)
    async with served(world) as url:
        yield AkashWorld(world, url)
    assert world.violations == []
