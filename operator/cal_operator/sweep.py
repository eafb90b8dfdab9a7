"""Look for what nobody remembers, in both directions (rule 5): instances without a node are stopped, nodes without an instance looked at.

The provider is listed first, then the nodes by a quorum read, so that a node made in between is never taken for missing. An account that
can't be listed is not swept, and says so: *unknown* never acts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client import Counter, Gauge

from cal_adapters.connect import choose_credential
from cal_adapters.contract import Instance
from cal_adapters.errors import AdapterError
from cal_crds.meta import PROVIDER
from cal_operator.accounts import Account, AccountMissing
from cal_operator.known import Known, read
from cal_operator.nodes.act import undo
from cal_operator.world import World

log = logging.getLogger(__name__)

ORPHANS = Counter("cal_orphans_stopped_total", "Instances stopped because no node knew them.", ["provider"])
BLIND = Gauge("cal_sweep_blind", "1 where an account could not be swept.", ["provider", "credential"])


class Sweep:
    """Remembers suspects between two rounds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._suspects: dict[tuple[str, str], float] = {}
        #: Orphans that are being stopped already, for as long as that takes.
        self._ending: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """One round over all accounts."""
        found: list[tuple[Account, Instance]] = []
        listed: list[Account] = []
        seen_all = True
        for provider in self._world.store.providers.all():
            for credential, account in (await self._world.accounts.all_of(provider)).items():
                bought = await _list(account)
                if isinstance(account, AccountMissing) or isinstance(bought, str):
                    seen_all = False
                    BLIND.labels(provider.metadata.name, credential or "").set(1)
                    words = "%s can't be swept, nothing is known of its orphans: %s"
                    log.warning(words, provider.metadata.name, bought)
                    continue
                listed.append(account)
                found += [(account, instance) for instance in bought]
        known = await read(self._world.cluster) if found or self._world.store.facts() else Known()
        for account in listed:
            self._say_what_is_seen(account, known)
        if found or seen_all:
            await self._judge(found, known)

    def _say_what_is_seen(self, account: Account, known: Known) -> None:
        """A list out of another account than the one that nodes bought from is no sight of what they bought."""
        provider = self._world.store.providers.named(None, account.provider)
        default = choose_credential(provider, None) if provider is not None else None
        names = {account.credential} | ({None} if default is None or default.name == account.credential else set())
        bought_from = {owner for name in names for owner in known.accounts.get((account.provider, name), ())}
        unseen = bought_from - {account.opened.id} if account.opened is not None else set()
        BLIND.labels(account.provider, account.credential or "").set(1 if unseen else 0)
        if unseen:
            words = "%s: the credential %s opens account %s, but nodes bought from %s: that can't be swept"
            opened = account.opened.id if account.opened else None
            log.warning(words, account.provider, account.credential, opened, ", ".join(sorted(unseen)))

    async def _judge(self, found: list[tuple[Account, Instance]], known: Known) -> None:
        now, still = self._world.clock.monotonic(), {}
        for account, instance in found:
            key = (account.provider, instance.handle)
            if instance.mark is None or instance.mark.installation != self._world.installation or known.has(instance):
                continue
            if key in self._ending:
                continue
            since = self._suspects.get(key, now)
            if now - since >= self._world.settings.orphan_grace_seconds:
                await self._stop(account, instance)
            else:
                still[key] = since
        self._suspects = still

    async def _stop(self, account: Account, instance: Instance) -> None:
        ORPHANS.labels(account.provider).inc()
        log.warning("%s: instance %s bears our mark and no node knows it: it is stopped", account.provider, instance.id)
        provider = self._world.store.providers.named(None, account.provider)
        if provider is not None:
            text = f"instance {instance.id} bears this installation's mark and no ComputeNode knows it: it is stopped"
            await self._world.events.say(provider, PROVIDER.name, "OrphanStopped", text, warning=True)
        self._world.background(self._end(account, instance), f"stop orphan {instance.id}")

    async def _end(self, account: Account, instance: Instance) -> None:
        key = (account.provider, instance.handle)
        self._ending.add(key)
        try:
            await undo(account, instance.handle)
        finally:
            self._ending.discard(key)


async def _list(account: Account | AccountMissing) -> Sequence[Instance] | str:
    """What bears our mark there, or why that can't be told."""
    if isinstance(account, AccountMissing):
        return account.message
    try:
        return await account.gate.call("list", account.adapter.list_marked)
    except AdapterError as error:
        return error.message
