"""Whose deployments they are and which of them are ours: no answer that could mislead is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from worlds.akash import OTHER_KEY
from worlds.akash_faults import Fault
from worlds.akash_state import address
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter
from cal_adapters.contract import Context, Credentials, Instance, Mark, Stop
from cal_adapters.errors import CredentialsRefused, InstanceNotFound, NotSent, OutcomeUnknown, RateLimited, Refused

pytestmark = pytest.mark.anyio

Make = Callable[..., AkashAdapter]
NewRequest = Callable[..., Any]
_SDL: dict[str, Any] = {"services": {"web": {"expose": []}}, "profiles": {"compute": {"web": {"resources": {}}}}}


def foreign(world: AkashWorld) -> None:
    """One more deployment of somebody else's on the account."""
    world.akash.state.open(address("owner"), ["dcloud"], "c29tZWJvZHkgZWxzZSdz", _SDL, ("uact", Decimal(1)))


def end_oldest(world: AkashWorld) -> None:
    state = world.akash.state
    state.close(next(item for item in state.deployments.values() if item.closed is None and item.groups == ["dcloud"]))


def with_key(world: AkashWorld, key: str) -> Context:
    return replace(world.context(), credentials=Credentials("main", {"apiKey": key}))


async def launched(adapter: AkashAdapter, new_request: NewRequest) -> Instance:
    instance: Instance = await adapter.launch(await new_request())
    return instance


def _mark(instance: Instance) -> Mark:
    assert instance.mark is not None
    return instance.mark


# --- lists


async def test_what_moves_across_a_pages_edge_while_it_is_read_is_still_found(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    for _ in range(3):
        foreign(world)
    instance = await launched(adapter, new_request)
    for _ in range(2):
        foreign(world)
    read = iter(range(100))

    def shift() -> None:
        if next(read) == 1:  # after the first page: one of it ends, another comes, and as many are listed as before
            end_oldest(world)
            foreign(world)

    world.akash.before["listDeployments"] = shift
    assert [found.handle for found in await make().find(_mark(instance))] == [instance.handle]
    assert next(read) == 6, "three readings of two pages: the first was whole by number only"


async def test_a_list_that_never_stays_the_same_is_not_seen(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    for _ in range(5):
        foreign(world)
    instance = await launched(adapter, new_request)

    def shift() -> None:
        end_oldest(world)
        foreign(world)

    world.akash.before["listDeployments"] = shift
    with pytest.raises(OutcomeUnknown, match="changed each time"):
        await adapter.find(_mark(instance))


async def test_names_are_read_once(world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest) -> None:
    for _ in range(4):
        foreign(world)
    instance = await launched(adapter, new_request)
    assert world.akash.requests["getDeploymentByOwnerDseq"] == 4
    for _ in range(3):
        assert [found.handle for found in await adapter.find(_mark(instance))] == [instance.handle]
    assert world.akash.requests["getDeploymentByOwnerDseq"] == 4


async def test_a_deployment_whose_name_cannot_be_told_yet_hides_nothing(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    world.akash.state.lag = 5
    instance = await launched(adapter, new_request)
    other = make()
    for look_up in (other.list_marked(), other.find(_mark(instance))):
        with pytest.raises(OutcomeUnknown, match="doesn't show its groups yet"):
            await look_up
    await world.advance(6)
    assert [found.handle for found in await other.list_marked()] == [instance.handle]


async def test_names_out_of_the_consoles_own_database_are_no_names(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    await launched(adapter, new_request)
    world.akash.plan.faults.append(Fault("getDeploymentByOwnerDseq", "unchained"))
    with pytest.raises(OutcomeUnknown, match="without the chain"):
        await make().list_marked()


async def test_several_that_bear_one_mark_are_all_found(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest
) -> None:
    request = await new_request()
    instance = await adapter.launch(request)
    world.akash.state.open(address("owner"), [str(request.mark)], "YW5vdGhlcg==", _SDL, ("uact", Decimal(1)))
    found = await adapter.find(request.mark)
    assert len(found) == 2
    assert (await make().launch(request)).handle == instance.handle == min(each.handle for each in found)


# --- whose


@pytest.mark.parametrize("verb", ["observe", "stop", "logs"])
async def test_a_key_of_another_account_is_refused_and_frees_nothing(
    world: AkashWorld, adapter: AkashAdapter, make: Make, new_request: NewRequest, verb: str
) -> None:
    instance = await launched(adapter, new_request)
    other = make(with_key(world, OTHER_KEY))
    arguments = [instance.handle] + ([10] if verb == "logs" else [])
    with pytest.raises(CredentialsRefused, match="belongs to the account"):
        await getattr(other, verb)(*arguments)
    assert list(await other.list_marked()) == []
    assert list(await world.billing()) == [instance.mark]


async def test_not_found_counts_only_beside_a_proof_that_the_key_still_works(
    world: AkashWorld, adapter: AkashAdapter
) -> None:
    await adapter.check()
    with pytest.raises(InstanceNotFound):
        await adapter.observe(world.unknown_handle())
    for fault in (Fault("getCurrentUser", "status", status=401), Fault("getWallets", "garbage")):
        world.akash.plan.faults.append(fault)
        with pytest.raises((CredentialsRefused, OutcomeUnknown)):
            await adapter.stop(world.unknown_handle())


async def test_not_found_in_another_shape_is_no_answer(world: AkashWorld, adapter: AkashAdapter) -> None:
    await adapter.check()
    for message in ("Not Found", "UserWallet Not Found"):
        world.akash.plan.faults.append(Fault("getDeployment", "status", status=404, message=message))
        with pytest.raises((OutcomeUnknown, CredentialsRefused)):
            await adapter.stop(world.unknown_handle())


@pytest.mark.parametrize("wallets", [0, 2])
async def test_an_account_without_one_wallet_is_told_so(world: AkashWorld, adapter: AkashAdapter, wallets: int) -> None:
    world.akash.state.accounts[0].wallets = wallets
    with pytest.raises(CredentialsRefused, match=f"{wallets} wallets"):
        await adapter.check()


async def test_check_tells_the_account_and_what_is_left(world: AkashWorld, adapter: AkashAdapter) -> None:
    account = await adapter.check()
    assert (account.id, account.balance) == (address("owner"), Decimal(1000))


@pytest.mark.parametrize("key", ["a\nb", "ключ", "", "a b", "x" * 5000])
async def test_what_can_be_no_key_is_not_sent(world: AkashWorld, make: Make, key: str) -> None:
    with pytest.raises(CredentialsRefused):
        await make(with_key(world, key)).check()
    assert world.akash.requests == {}


async def test_a_key_that_is_revoked_while_we_run_is_refused_everywhere(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    instance = await launched(adapter, new_request)
    await world.revoke_credentials()
    for look in (
        adapter.observe(instance.handle),
        adapter.stop(instance.handle),
        adapter.list_marked(),
        adapter.check(),
    ):
        with pytest.raises(CredentialsRefused):
            await look
    assert len(await world.billing()) == 1


# --- the wire


async def test_the_key_is_shown_only_where_it_is_asked_for(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    foreign(world)
    await adapter.offers()
    await launched(adapter, new_request)
    assert {"getGpuPrices", "getDeploymentByOwnerDseq"} <= world.akash.requests.keys()
    assert world.akash.shown_keys == set()


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        pytest.param({"kind": "status", "status": 503}, 2, id="503"),
        pytest.param({"kind": "cut"}, 2, id="cut"),
        pytest.param({"kind": "status", "status": 500}, None, id="500"),
        pytest.param({"kind": "garbage"}, None, id="garbage"),
        pytest.param({"kind": "status", "status": 429, "retry_after": 3}, None, id="429"),
    ],
)
async def test_a_read_is_asked_twice_only_when_a_gateway_failed(
    world: AkashWorld, adapter: AkashAdapter, fault: dict[str, Any], requests: int | None
) -> None:
    world.akash.plan.faults.append(Fault("getCurrentUser", **fault))
    if requests is None:
        with pytest.raises((OutcomeUnknown, RateLimited)):
            await adapter.check()
    else:
        await adapter.check()
    assert world.akash.requests["getCurrentUser"] == (requests or 1)


@pytest.mark.parametrize("kind", ["cut", "cut_after", "garbage"])
async def test_a_purchase_is_sent_once(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest, kind: str
) -> None:
    world.akash.plan.faults.append(Fault("createDeployment", kind))
    with pytest.raises(OutcomeUnknown):
        await launched(adapter, new_request)
    assert world.akash.requests["createDeployment"] == 1


async def test_where_nobody_listens_nothing_was_sent(
    world: AkashWorld, make: Make, new_request: NewRequest, free_port: int
) -> None:
    context = world.context()
    deaf = context.settings.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port}"})
    adapter = make(replace(context, settings=deaf))
    for call in (adapter.check(), adapter.offers(), launched(adapter, new_request)):
        with pytest.raises(NotSent):
            await call


async def test_proxies_of_the_environment_are_not_used(
    world: AkashWorld, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await make().check()).id == address("owner")


async def test_the_providers_clock_counts_not_ours(
    world: AkashWorld, adapter: AkashAdapter, new_request: NewRequest
) -> None:
    world.akash.state.offset = -86400.0
    request = await new_request()
    instance = await adapter.launch(request)
    assert "collecting bids" in (await adapter.advance(instance.handle, request)).message
    await world.advance(21)
    await adapter.advance(instance.handle, request)
    assert (await adapter.observe(instance.handle)).price_per_hour is not None
    assert await adapter.stop(instance.handle) is Stop.GONE


@pytest.mark.parametrize("endpoint", ["http://[::1", "http://host:99999999", "https://[x]/"])
async def test_an_endpoint_that_is_none_is_told_by_the_calls_not_by_the_making(
    world: AkashWorld, make: Make, endpoint: str
) -> None:
    context = world.context()
    adapter = make(replace(context, settings=context.settings.model_copy(update={"endpoint": endpoint})))
    for call in (adapter.check(), adapter.offers(), adapter.list_marked()):
        with pytest.raises((Refused, NotSent)):
            await call


async def test_a_coin_that_nobody_knows_is_told_when_it_is_needed(
    world: AkashWorld, make: Make, new_request: NewRequest
) -> None:
    world.akash.state.accounts[0].denom = None
    context = world.context()
    assert context.settings.akash is not None
    settings = context.settings.model_copy(
        update={"akash": context.settings.akash.model_copy(update={"denom": "ubtc"})}
    )
    adapter = make(replace(context, settings=settings))
    assert (await adapter.check()).balance is None
    with pytest.raises(Refused, match="ubtc"):
        await launched(adapter, new_request)
    assert world.akash.state.deployments == {}
