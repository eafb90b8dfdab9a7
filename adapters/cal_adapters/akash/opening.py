"""Opening a deployment: at most one for a mark, as far as one process can see to it, and under its cap.

What is remembered here saves requests: a new process finds the deployment by its mark, and makes the order anew from the request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final
from weakref import WeakValueDictionary

from cal_adapters.akash import manifest, sdl, translate
from cal_adapters.akash.account import Holdings
from cal_adapters.akash.bidding import Order, order_of
from cal_adapters.akash.client import Console
from cal_adapters.akash.wire import Created
from cal_adapters.contract import Instance, LaunchRequest, Mark
from cal_adapters.errors import InstanceNotFound, NotSent, OutcomeUnknown, PriceAboveCap, Refused

#: The price that is asked for where there is no cap: Akash wants one, and the cheapest bid is taken anyway.
_UNCAPPED_FACTOR: Final = 4
#: How long a launch may look for what bears its mark already. With the purchase itself it stays below `launch_timeout_seconds`.
_LOOK_SECONDS: Final = 2.0
#: How a Console that checks strictly says that it knows no `name`.
_NO_NAMES: Final = re.compile(r"unrecognized|unknown|additional|not allowed|unexpected", re.IGNORECASE)
_REMEMBERED: Final = 1000


async def marked(holdings: Holdings) -> Sequence[Instance]:
    """The account's active deployments that bear a mark, of any installation."""
    marks = await holdings.marks((await holdings.active()).values())
    return [_instance(item.deployment.id.owner, item.deployment.id.dseq, mark) for mark, item in marks]


class Opening:
    """Opens one account's deployments. `deposit`: US dollars, for accounts that must tell."""

    def __init__(self, console: Console, holdings: Holdings, deposit: str | None) -> None:
        self._console, self._holdings, self._deposit = console, holdings, deposit
        self._orders: dict[str, Order] = {}
        self._launched: dict[Mark, Instance] = {}
        self._locks: WeakValueDictionary[Mark, asyncio.Lock] = WeakValueDictionary()
        self._named = True

    async def launch(self, request: LaunchRequest) -> Instance:
        """The deployment that bears the mark already, else a new one."""
        order = order_of(request)
        async with self._locks.setdefault(request.mark, asyncio.Lock()):
            known = await self._adopted(request.mark)
            return known or await self._bought(request, order)

    def order(self, handle: str) -> Order | None:
        """The order behind a deployment, if it was opened here and isn't forgotten."""
        return self._orders.get(handle)

    def forget(self, handle: str) -> None:
        """It runs, or is gone: no step follows that needs the order."""
        self._orders.pop(handle, None)

    async def _adopted(self, mark: Mark) -> Instance | None:
        """The instance that bears the mark already; of several the oldest. If this can't be told, nothing was bought."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                known = self._launched.get(mark)
                if known is not None and (await self._holdings.show(known.handle)).deployment.state != "closed":
                    return known
                found = [item for item in await marked(self._holdings) if item.mark == mark]
                return min(found, key=lambda instance: int(instance.id), default=None)
        except (OutcomeUnknown, InstanceNotFound) as error:
            raise NotSent(f"Nothing was bought, as it can't be told what was bought before: {error.message}") from error
        except TimeoutError as error:
            raise NotSent("Nothing was bought, as Akash took too long to tell what was bought before") from error

    async def _bought(self, request: LaunchRequest, order: Order) -> Instance:
        owner, text = await self._holdings.owner(), await self._sdl(request)
        made = await self._created(text, str(request.mark))
        _check_mark(made, request.mark)
        self._holdings.remember(made.dseq, owner, [str(request.mark)])
        instance = _instance(owner, made.dseq, request.mark)
        # The Console's own manifest, should it ever make another one of the SDL than we do.
        self._remember(instance, request.mark, replace(order, manifest=made.manifest))
        return instance

    async def _created(self, text: str, name: str) -> Created:
        """With the name where the Console takes one. One that doesn't may drop it, or refuse the request, which then had no effect."""
        try:
            return await self._console.create(text, name if self._named else None, self._deposit)
        except Refused as error:
            if not self._named or not _NO_NAMES.search(error.message):
                raise
        made = await self._console.create(text, None, self._deposit)
        self._named = False
        return made

    async def _sdl(self, request: LaunchRequest) -> str:
        coin = await self._holdings.coin()
        highest = request.max_price_per_hour
        if highest is None:
            highest = max(Decimal(request.offer.price_per_hour) * _UNCAPPED_FACTOR, Decimal(1))
        try:
            amount = (await self._holdings.rates(coin)).per_block(highest, coin)
        except OutcomeUnknown as error:
            raise NotSent(f"Nothing was bought, as the worth of {coin} isn't known: {error.message}") from error
        if not amount:
            raise PriceAboveCap(f"Akash has nothing for {highest} USD per hour: every bid costs something")
        return sdl.dump(sdl.build(request, coin, format(amount.normalize(), "f")))

    def _remember(self, instance: Instance, mark: Mark, order: Order) -> None:
        while len(self._orders) >= _REMEMBERED:
            del self._orders[next(iter(self._orders))]
        while len(self._launched) >= _REMEMBERED:
            del self._launched[next(iter(self._launched))]
        self._orders[instance.handle], self._launched[mark] = order, instance


def _instance(owner: str, dseq: str, mark: Mark) -> Instance:
    return Instance(translate.handle(owner, dseq), dseq, mark, owner, started=translate.created(dseq))


def _check_mark(made: Created, mark: Mark) -> None:
    """Rule 3: what the Console made must bear the mark. OutcomeUnknown if it doesn't."""
    try:
        names = manifest.group_names(made.manifest)
    except ValueError as error:
        raise OutcomeUnknown(f"Akash made the deployment {made.dseq} with a manifest that can't be read") from error
    if names != [str(mark)]:
        raise OutcomeUnknown(f"Akash made the deployment {made.dseq} without the name {mark}")
