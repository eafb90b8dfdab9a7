"""The demo market: its settings, its books on disk, and many customers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from worlds.contract_demo import DemoWorld
from worlds.contract_world import INSTALLATION

from cal_adapters.contract import Context, EnvValue, Mark, Readiness, State, Stop
from cal_adapters.errors import AdapterError, NoCapacity, OutcomeUnknown, RateLimited, Refused
from cal_adapters.fake import DemoAdapter, create, ledger_path
from cal_adapters.fake.catalogue import CATALOGUE
from cal_adapters.fake.faults import ERRORS, VERBS
from cal_crds.gpus import normalise
from cal_crds.names import new_token
from cal_crds.provider import DemoFault, DemoSettings, ProviderSpec
from cal_crds.workload import Workload

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
CUSTOMER = Path(__file__).parents[2] / "worlds" / "demo_customer.py"


@pytest.fixture
def market(tmp_path: Path) -> Iterator[DemoWorld]:
    world = DemoWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
async def demo(market: DemoWorld) -> AsyncIterator[DemoAdapter]:
    adapter = create(market.context())
    assert isinstance(adapter, DemoAdapter)
    yield adapter
    await adapter.close()


def with_settings(context: Context, settings: DemoSettings) -> Context:
    return replace(context, settings=ProviderSpec(adapter="demo", demo=settings))


def new_mark() -> Mark:
    return Mark(INSTALLATION, new_token())


# --- settings


async def test_delays_are_kept_by_the_markets_clock(market: DemoWorld, demo: DemoAdapter) -> None:
    instance = await demo.launch(await market.request(new_mark()))
    assert (await demo.observe(instance.handle)).state is State.STARTING
    await market.advance(2)
    seen = await demo.observe(instance.handle)
    assert (seen.state, seen.readiness) == (State.RUNNING, Readiness.NO)
    await market.advance(1)
    assert (await demo.observe(instance.handle)).readiness is Readiness.YES
    assert await demo.stop(instance.handle) is Stop.STOPPING
    assert len(await demo.list_marked()) == 1
    await market.advance(1)
    assert await demo.stop(instance.handle) is Stop.GONE
    assert list(await demo.list_marked()) == []


@pytest.mark.parametrize("error", sorted(ERRORS))
async def test_faults_of_the_settings_are_shown(market: DemoWorld, error: str) -> None:
    faults = [DemoFault(verb="launch", error=error, percent=100), DemoFault(verb="find", error=error, percent=0)]
    adapter = create(with_settings(market.context(), DemoSettings(faults=faults)))
    with pytest.raises(AdapterError) as raised:
        await adapter.launch(await market.request(new_mark()))
    assert type(raised.value).__name__ == error
    assert list(await adapter.find(new_mark())) == []
    await adapter.close()


async def test_a_lost_answer_is_a_purchase_all_the_same(market: DemoWorld) -> None:
    lossy = DemoSettings(faults=[DemoFault(verb="launch", error="AnswerLost")])
    adapter = create(with_settings(market.context(), lossy))
    mark = new_mark()
    with pytest.raises(OutcomeUnknown):
        await adapter.launch(await market.request(mark))
    assert [found.mark for found in await adapter.find(mark)] == [mark]
    await adapter.close()


@pytest.mark.parametrize("fault", [DemoFault(verb="fly", error="Refused"), DemoFault(verb="stop", error="Flat")])
async def test_unknown_faults_are_refused_by_name(market: DemoWorld, fault: DemoFault) -> None:
    adapter = create(with_settings(market.context(), DemoSettings(faults=[fault])))
    for call in (adapter.check(), adapter.launch(await market.request(new_mark())), adapter.stop("demo-1")):
        with pytest.raises(Refused, match=r"fly|Flat"):
            await call
    await adapter.close()


async def test_without_a_folder_it_is_refused() -> None:
    adapter = create(Context("demo", ProviderSpec(adapter="demo"), INSTALLATION))
    with pytest.raises(Refused, match="adapter-state-dir"):
        await adapter.offers()
    assert adapter.traits.capabilities.adapter_type == "on_prem"


async def test_a_scripted_fault_is_shown_once_and_only_to_its_verb(market: DemoWorld, demo: DemoAdapter) -> None:
    demo.ledger.fail_next("list", "RateLimited")
    await demo.check()
    with pytest.raises(RateLimited):
        await demo.list_marked()
    assert list(await demo.list_marked()) == []


def test_verbs_of_faults_are_those_of_the_adapter() -> None:
    assert all(hasattr(DemoAdapter, "list_marked" if verb == "list" else verb) for verb in VERBS)


# --- what it sells


def test_gpu_types_of_the_catalogue_are_normalised() -> None:
    types = {shape.offer.gpu_type for shape in CATALOGUE.values() if shape.offer.gpu_type}
    assert types == {normalise(kind).slug for kind in types}
    assert all(normalise(kind).known for kind in types)


async def test_scarce_offers_run_out_and_come_back(market: DemoWorld, demo: DemoAdapter) -> None:
    scarce = next(shape for shape in CATALOGUE.values() if shape.stock)

    async def left() -> int | None:
        return next(offer.available for offer in await demo.offers() if offer.id == scarce.offer.id)

    wish = {"offer": scarce.offer, "max_price_per_hour": None}
    bought = [await demo.launch(await market.request(new_mark(), **wish)) for _ in range(scarce.stock or 0)]
    assert await left() == 0
    with pytest.raises(NoCapacity):
        await demo.launch(await market.request(new_mark(), **wish))
    await demo.stop(bought[0].handle)
    await market.advance(1)
    assert await left() == 1
    await demo.launch(await market.request(new_mark(), **wish))


async def test_what_isnt_sold_is_refused(market: DemoWorld, demo: DemoAdapter) -> None:
    request = await market.request(new_mark())
    with pytest.raises(Refused):
        await demo.launch(replace(request, gpu_count=2))
    with pytest.raises(Refused):
        await demo.launch(replace(request, offer=request.offer.model_copy(update={"id": "no-such"})))


@pytest.mark.parametrize(("code", "state"), [("0", State.SUCCEEDED), ("7", State.FAILED)])
async def test_a_workload_may_say_how_it_ends(market: DemoWorld, demo: DemoAdapter, code: str, state: State) -> None:
    env = [EnvValue("DEMO_EXIT_CODE", code), EnvValue("DEMO_EXIT_AFTER_SECONDS", "5")]
    instance = await demo.launch(await market.request(new_mark(), env=env))
    await market.advance(4)
    assert (await demo.observe(instance.handle)).state is State.RUNNING
    await market.advance(4)
    seen = await demo.observe(instance.handle)
    assert (seen.state, seen.exit_code) == (state, int(code))
    assert list(await demo.list_marked()) == []


@pytest.mark.parametrize("text", ["soon", "1e999", "NaN", "\N{ARABIC-INDIC DIGIT THREE}x"])
async def test_nonsense_about_the_end_is_refused(market: DemoWorld, demo: DemoAdapter, text: str) -> None:
    env = [EnvValue("DEMO_EXIT_CODE", "0"), EnvValue("DEMO_EXIT_AFTER_SECONDS", text)]
    with pytest.raises(Refused):
        await demo.launch(await market.request(new_mark(), env=env))
    assert list(await market.billing()) == []


async def test_what_has_no_port_has_no_endpoint(market: DemoWorld, demo: DemoAdapter) -> None:
    instance = await demo.launch(await market.request(new_mark(), workload=Workload(image="x")))
    assert (await demo.observe(instance.handle)).endpoint is None


@pytest.mark.parametrize(
    "handle", ["", "demo-", "demo--1", "demo-\N{ARABIC-INDIC DIGIT ONE}", "x-1", "demo-" + "9" * 40]
)
async def test_handles_that_can_not_be(demo: DemoAdapter, handle: str) -> None:
    with pytest.raises(AdapterError):
        await demo.observe(handle)
    assert await demo.stop(handle) is Stop.GONE


# --- the books


async def test_a_killed_customer_loses_nothing_that_was_answered(market: DemoWorld, tmp_path: Path) -> None:
    """kill -9 in the middle of buying: every answer that came out stands in the books, and at most one more purchase."""
    customer = start_customer(tmp_path, 100_000)
    assert customer.stdout is not None
    answered = [(await asyncio.to_thread(customer.stdout.readline)).strip() for _ in range(200)]
    customer.send_signal(signal.SIGKILL)
    rest, _ = customer.communicate()
    answered += [line for line in rest.split("\n")[:-1] if line]
    bought = sorted(map(str, await market.billing()))
    assert set(answered) <= set(bought)
    assert len(bought) <= len(answered) + 1


async def test_several_processes_may_buy_at_once(market: DemoWorld, tmp_path: Path) -> None:
    customers = [start_customer(tmp_path, 300) for _ in range(3)]
    outputs = [(await asyncio.to_thread(customer.communicate))[0].split() for customer in customers]
    assert [customer.returncode for customer in customers] == [0, 0, 0]
    assert sorted(mark for output in outputs for mark in output) == sorted(map(str, await market.billing()))


def start_customer(state_dir: Path, count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, str(CUSTOMER), str(state_dir), str(count)]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)


async def test_five_thousand_instances(market: DemoWorld, demo: DemoAdapter) -> None:
    request = await market.request(new_mark())
    for _ in range(5000):
        await demo.launch(replace(request, mark=new_mark()))
    assert len(await demo.list_marked()) == 5000
    assert len(list(await market.billing())) == 5000


async def test_what_was_over_a_day_ago_is_forgotten(market: DemoWorld, demo: DemoAdapter) -> None:
    kept, over = [await demo.launch(await market.request(new_mark())) for _ in range(2)]
    await demo.stop(over.handle)
    await market.advance(86400 + 10)
    assert [found.handle for found in await demo.list_marked()] == [kept.handle]
    with pytest.raises(AdapterError):
        await demo.observe(over.handle)
    assert await demo.stop(over.handle) is Stop.GONE


async def test_books_that_are_locked_are_an_unknown_outcome(
    market: DemoWorld, demo: DemoAdapter, tmp_path: Path
) -> None:
    request = await market.request(new_mark())
    await demo.close()
    with pytest.raises(OutcomeUnknown):
        await demo.launch(request)
    assert ledger_path(tmp_path, "demo").exists()


async def test_prices_are_told_as_they_were_bought(market: DemoWorld, demo: DemoAdapter) -> None:
    request = await market.request(new_mark(), max_price_per_hour=None)
    await market.reprice(request.offer.id, 3)
    instance = await demo.launch(request)
    assert instance.price_per_hour == Decimal(request.offer.price_per_hour) * 3
    await market.reprice(request.offer.id, 1)
    assert (await demo.observe(instance.handle)).price_per_hour == instance.price_per_hour
