"""What an account holds at Akash: whose it is, what it can pay, and which of its deployments bear a mark of ours.

Akash lists deployments without names. The mark is the name of a deployment's only group, which the chain keeps and the Console shows
in its public view of a deployment. A group's name never changes: once read it is remembered, which saves requests and loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final

from cal_adapters.akash import translate
from cal_adapters.akash.client import Console
from cal_adapters.akash.translate import UACT, UAKT, Rates
from cal_adapters.akash.wire import Deployment, User, Wallet
from cal_adapters.contract import Mark
from cal_adapters.errors import AdapterError, CredentialsRefused, InstanceNotFound, OutcomeUnknown

#: Look-ups of names at once.
_AT_ONCE: Final = 8
#: Names that are remembered; beyond it the oldest are read again.
_REMEMBERED: Final = 20000
#: How often a list that changes under our eyes is read before we say that we can't see.
_PASSES: Final = 4
#: How long the price of AKT counts.
_PRICE_SECONDS: Final = 60.0


class Holdings:
    """The account behind one key. Every answer is checked to be this account's own."""

    def __init__(self, console: Console, denom: str) -> None:
        self._console, self._configured = console, denom
        self._owner: str | None = None
        self._coin = denom
        self._akt, self._akt_until = Decimal(0), 0.0
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}

    async def wallet(self) -> Wallet:
        """The wallet that pays, asked anew. CredentialsRefused if the key opens none."""
        user: User = await self._console.user()
        wallets = await self._console.wallets(user.id)
        if len(wallets) != 1:
            raise CredentialsRefused(
                f"The Console account has {len(wallets)} wallets instead of one; finish its set-up in the Console"
            )
        self._owner = wallets[0].address
        # The Console prices every deployment in the wallet's own coin, whatever the SDL says.
        self._coin = wallets[0].denom or self._configured
        return wallets[0]

    async def owner(self) -> str:
        """The account's address. A key never changes hands, so it is asked for once."""
        return self._owner or (await self.wallet()).address

    async def coin(self) -> str:
        """The denomination that the account pays in."""
        await self.owner()
        return self._coin

    async def balance(self) -> Decimal | None:
        """US dollars left; None in a coin whose price isn't known."""
        coin = await self.coin()
        left = (await self._console.balances()).balance
        rate = (await self.rates(coin)).usd.get(coin)
        return None if rate is None else left * rate / 1_000_000

    async def rates(self, *coins: str) -> Rates:
        """What these coins are worth now; the price of AKT is asked for only where it is needed."""
        known = {UACT: Decimal(1)}
        if UAKT in coins:
            if time.monotonic() > self._akt_until:
                self._akt, self._akt_until = (await self._console.akt()).price, time.monotonic() + _PRICE_SECONDS
            known[UAKT] = self._akt
        return Rates(known)

    async def rates_if_known(self, *coins: str) -> Rates:
        """The same for what is only shown: without a coin whose price can't be had just now."""
        try:
            return await self.rates(*coins)
        except AdapterError:
            return Rates()

    async def own(self, handle: str) -> str:
        """The number in a handle of this account. CredentialsRefused for another account's."""
        owner, dseq = translate.read_handle(handle)
        mine = await self.owner()
        if owner != mine:
            raise CredentialsRefused(f"The deployment {dseq} belongs to the account {owner}, but this key opens {mine}")
        return dseq

    async def show(self, handle: str) -> Deployment:
        """A deployment with its leases. InstanceNotFound only beside a fresh proof that the key opens the account it belongs to."""
        dseq = await self.own(handle)
        try:
            shown = await self._console.deployment(dseq)
        except InstanceNotFound:
            self._owner = None
            await self.own(handle)
            raise
        if translate.handle(shown.deployment.id.owner, shown.deployment.id.dseq) != handle:
            raise OutcomeUnknown(f"Akash answers with another deployment than {dseq}")
        return shown

    async def active(self) -> Mapping[str, Deployment]:
        """Every active deployment, by number. OutcomeUnknown if it can't be read whole.

        Pages are by position, so what ends meanwhile moves others across a page's edge, unseen: a list of several pages counts only
        when two readings in a row agree.
        """
        owner, before = await self.owner(), None
        for _ in range(_PASSES):
            found, pages, whole = await self._read_list()
            if any(item.deployment.id.owner != owner for item in found.values()):
                raise OutcomeUnknown("Akash lists deployments of another account")
            if whole and (pages == 1 or found.keys() == before):
                return found
            before = found.keys() if whole else None
        raise OutcomeUnknown("The list of deployments changed each time that it was read")

    async def _read_list(self) -> tuple[dict[str, Deployment], int, bool]:
        """What is listed, on how many pages, and whether it is as many as the list says."""
        found: dict[str, Deployment] = {}
        pages = read = total = 0
        while True:
            page = await self._console.deployments(read)
            pages, read, total = pages + 1, read + len(page.deployments), page.pagination.total
            found |= {item.deployment.id.dseq: item for item in page.deployments}
            if not page.deployments or read >= total:
                return found, pages, len(found) == total

    async def marks(self, deployments: Collection[Deployment]) -> Sequence[tuple[Mark, Deployment]]:
        """Those that bear a mark of any installation. OutcomeUnknown if one can't be told: none is passed over."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def named(item: Deployment) -> tuple[Mark | None, Deployment]:
            async with gate:
                return translate.mark_of(await self._group_names(item)), item

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(named(item)) for item in deployments]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        return [(mark, item) for mark, item in (task.result() for task in tasks) if mark is not None]

    def remember(self, dseq: str, owner: str, names: Sequence[str]) -> None:
        """Notes the names of a deployment's groups."""
        while len(self._names) >= _REMEMBERED:
            del self._names[next(iter(self._names))]
        self._names[owner, dseq] = tuple(names)

    async def _group_names(self, item: Deployment) -> Sequence[str]:
        owner, dseq = item.deployment.id.owner, item.deployment.id.dseq
        if (owner, dseq) in self._names:
            return self._names[owner, dseq]
        try:
            seen = (await self._console.on_chain(owner, dseq)).other
        except InstanceNotFound as error:
            raise OutcomeUnknown(f"Akash lists the deployment {dseq}, but doesn't show its groups yet") from error
        names = [group.group_spec.name for group in seen.groups]
        if (
            not names
            or translate.UNKNOWN_VALUE in names
            or (seen.deployment.id.owner, seen.deployment.id.dseq) != (owner, dseq)
        ):
            raise OutcomeUnknown(
                f"Akash doesn't tell the groups of the deployment {dseq} just now: it answers without the chain"
            )
        self.remember(dseq, owner, names)
        return names
