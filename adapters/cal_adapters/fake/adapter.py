"""The demo market as an adapter: the contract's verbs over the books in `ledger.py`.

Its nouns are the contract's own. Calls are single SQLite transactions of some microseconds, so they run on the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from cal_adapters.contract import Account, Context, Instance, LaunchRequest, Mark, Observation, Stop, Traits
from cal_adapters.errors import CredentialsRefused, InstanceNotFound, NoCapacity, OutcomeUnknown
from cal_adapters.fake import translate
from cal_adapters.fake.catalogue import CATALOGUE, Shape
from cal_adapters.fake.faults import ANSWER_LOST, raise_for, unknown
from cal_adapters.fake.ledger import Entry, Ledger, SoldOut
from cal_adapters.unusable import Unusable
from cal_crds.node import Offer
from cal_crds.provider import Capabilities, DemoSettings, Support

TRAITS: Final = Traits(
    capabilities=Capabilities(
        adapter_type="on_prem",
        supports=[
            Support.LOG_STREAMING,
            Support.MULTI_GPU,
            Support.SPOT_INSTANCES,
            Support.DIRECT_PROVISIONING,
            Support.EPHEMERAL,
            Support.READINESS_POLL,
        ],
        readiness_timeout_seconds=300,
        polling_interval_seconds=5,
        features=["made_up", "market_based_pricing"],
        pool_type="job",
    ),
    observe_seconds=20.0,
    poll_seconds=1.0,
    launch_timeout_seconds=3.0,
    concurrency=64,
    calls_per_second=5000.0,
    needs_credentials=False,
)
_FOLLOW_SECONDS: Final = 0.2


def ledger_path(state_dir: Path, provider: str) -> Path:
    """Where the books of the market that this ComputeProvider stands for are kept."""
    return state_dir / "demo" / f"{provider}.sqlite"


def create(context: Context, clock: Callable[[], float] = time.time) -> DemoAdapter | Unusable:
    """The demo adapter. Unusable if the operator has no folder for adapters' state, or the settings name unknown faults."""
    if context.state_dir is None:
        return Unusable(TRAITS, "the demo market needs a folder to keep its books in (--adapter-state-dir)")
    settings = context.settings.demo or DemoSettings()
    if complaint := unknown(settings.faults):
        return Unusable(TRAITS, complaint)
    return DemoAdapter(context, settings, Ledger(ledger_path(context.state_dir, context.provider), clock))


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _told(verb: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """The one place where errors of the file (locked for too long, disk full) become errors of the contract."""

    @functools.wraps(verb)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await verb(*args, **kwargs)
        except sqlite3.Error as error:
            raise OutcomeUnknown(f"the books of the demo market: {error}") from error

    return call


class DemoAdapter:
    """The made-up market. `ledger` is open to tests: it scripts faults, time and what happens to instances."""

    traits = TRAITS

    def __init__(self, context: Context, settings: DemoSettings, ledger: Ledger) -> None:
        self._context, self._settings, self.ledger = context, settings, ledger
        self._account = f"demo-{context.provider}"

    @_told
    async def check(self) -> Account:
        self._meet_faults("check")
        return Account(id=self._account)

    @_told
    async def offers(self) -> Sequence[Offer]:
        self._meet_faults("offers")
        offers = [shape.offer.model_copy(update={"available": self._left(shape)}) for shape in CATALOGUE.values()]
        return sorted(offers, key=lambda offer: (Decimal(offer.price_per_hour), offer.id))

    @_told
    async def find(self, mark: Mark) -> Sequence[Instance]:
        self._meet_faults("find")
        now = self.ledger.now()
        return [translate.instance(entry, self._account) for entry in self.ledger.of_mark(mark) if entry.live(now)]

    @_told
    async def launch(self, request: LaunchRequest) -> Instance:
        answer_lost = self._fault("launch")
        factor = self.ledger.price_factor(request.offer.id)
        purchase = translate.purchase(request, self._settings, factor, self.ledger.now())
        if delay := self.ledger.delay():
            await asyncio.sleep(delay)
        try:
            entry = self.ledger.buy(purchase)
        except SoldOut:
            raise NoCapacity(f"The demo market has no {purchase.offer} left") from None
        if delay:
            await asyncio.sleep(delay)
        if answer_lost:
            raise_for("OutcomeUnknown", "launch")
        return translate.instance(entry, self._account)

    @_told
    async def observe(self, handle: str) -> Observation:
        self._meet_faults("observe")
        return translate.observation(self._entry(handle), self.ledger.now())

    @_told
    async def stop(self, handle: str) -> Stop:
        answer_lost = self._fault("stop")
        entry = self._known(handle)
        if entry is not None and entry.live(now := self.ledger.now()):
            entry = self.ledger.stop(entry.id, now + self._settings.stop_delay_milliseconds / 1000)
        if answer_lost:
            raise_for("OutcomeUnknown", "stop")
        return Stop.STOPPING if entry is not None and entry.live(self.ledger.now()) else Stop.GONE

    @_told
    async def list_marked(self) -> Sequence[Instance]:
        self._meet_faults("list")
        entries = self.ledger.of_installation(self._context.installation)
        return [translate.instance(entry, self._account) for entry in entries]

    @_told
    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        self._meet_faults("logs")
        return self._lines(self._entry(handle))[-tail:] if tail > 0 else []

    async def follow(self, handle: str, tail: int) -> AsyncGenerator[str, None]:
        """The last lines, then each as it comes, until the instance is over."""
        told = max(0, len(self._lines(self._entry(handle))) - max(0, tail))
        while True:
            # Asked before the lines are read, so that the last ones are not missed.
            over = not self._entry(handle).live(self.ledger.now())
            lines = self._lines(self._entry(handle))
            for line in lines[told:]:
                yield line
            told = len(lines)
            if over:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)

    async def close(self) -> None:
        self.ledger.close()

    # --- helpers

    def _meet_faults(self, verb: str) -> None:
        """Raises what is scripted or set for a reading verb."""
        if self._fault(verb):
            raise_for("OutcomeUnknown", verb)

    def _fault(self, verb: str) -> bool:
        """Raises what is scripted or set for the verb; True: carry it out, and lose the answer."""
        if self.ledger.revoked():
            raise CredentialsRefused("The demo market refuses these credentials")
        fault = self.ledger.take_fault(verb) or self._chance(verb)
        if fault is not None and fault != ANSWER_LOST:
            raise_for(fault, verb)
        return fault == ANSWER_LOST

    def _chance(self, verb: str) -> str | None:
        shown = (f for f in self._settings.faults if f.verb == verb and random.randrange(100) < f.percent)
        return next((fault.error for fault in shown), None)

    def _left(self, shape: Shape) -> int | None:
        return None if shape.stock is None else max(0, shape.stock - self.ledger.sold(shape.offer.id))

    def _known(self, handle: str) -> Entry | None:
        number = translate.number(handle)
        return self.ledger.entry(number) if number is not None else None

    def _entry(self, handle: str) -> Entry:
        entry = self._known(handle)
        if entry is None:
            raise InstanceNotFound(f"The demo market knows no instance {handle!r}")
        return entry

    def _lines(self, entry: Entry) -> list[str]:
        return translate.log(entry, self.ledger.lines(entry.id), self.ledger.now())
