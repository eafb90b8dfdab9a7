"""The adapters, one per ComputeProvider and credential, each behind its gate; made when first needed, made anew when a key changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

from cal_adapters.connect import choose_credential, read_credentials
from cal_adapters.contract import Account as Opened
from cal_adapters.contract import Adapter, Context, Credentials, Factory
from cal_adapters.errors import AdapterError, CredentialsRefused
from cal_adapters.registry import UnknownAdapter, load
from cal_crds.cluster import Cluster
from cal_crds.conditions import Reason
from cal_crds.provider import ComputeProvider
from cal_operator.clock import Clock
from cal_operator.gate import CircuitOpen, Gate
from cal_operator.settings import Settings

log = logging.getLogger(__name__)


class AccountMissing(Exception):
    """There is no adapter to ask: why, as a condition's reason and message."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass
class Account:
    """One way into a provider."""

    provider: str
    credential: str | None
    adapter: Adapter
    gate: Gate
    fingerprint: str = field(repr=False)
    #: What the last check said; None before the first, or when it failed.
    opened: Opened | None = None
    error: AdapterError | None = None
    #: The provider's last word on the credential, where that was a refusal: a check without an answer doesn't unsay it.
    refused: CredentialsRefused | None = None
    anonymous: bool = False
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def first_check(self) -> None:
        """Check it unless that was tried before; what came of it stands in `opened` and `error`. However many ask, it is done once."""
        async with self._checking:
            if self.opened is None and self.error is None:
                with suppress(AdapterError):
                    await self.check()

    async def check(self) -> Opened:
        """Whether the credential works; remembered."""
        try:
            self.opened = await self.gate.call("check", self.adapter.check)
            self.error = self.refused = None
        except CredentialsRefused as error:
            self.error = self.refused = error
            raise
        except AdapterError as error:
            if isinstance(error, CircuitOpen) and isinstance(error.cause, CredentialsRefused):
                # Another call was refused just now: that is the answer, too.
                self.error = self.refused = error.cause
                raise error.cause from error
            self.error = error
            raise
        return self.opened


class Accounts:
    """All ways into all providers."""

    def __init__(self, cluster: Cluster, clock: Clock, settings: Settings, installation: str) -> None:
        self._cluster, self._clock, self._settings, self._installation = cluster, clock, settings, installation
        self._accounts: dict[tuple[str, str | None], Account] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def open(self, provider: ComputeProvider, credential: str | None) -> Account:
        """The account; its Secret is read again, and the adapter made anew if it or the provider's spec changed.

        Raises AccountMissing with what a person must do.
        """
        name = provider.metadata.name
        async with self._locks.setdefault(name, asyncio.Lock()):
            name_of_credential, credentials = await self._read(provider, credential)
            key, fingerprint = (
                (name, name_of_credential),
                _fingerprint(provider, credentials.data if credentials else {}),
            )
            known = self._accounts.get(key)
            if known is not None and known.fingerprint == fingerprint:
                return known
            adapter = self._factory(provider)(self._context(provider, credentials))
            account = Account(name, key[1], adapter, Gate(name, adapter.traits, self._clock), fingerprint)
            account.anonymous = credentials is None
            self._accounts[key] = account
            if known is not None:
                log.info("the adapter of %s is made anew: its spec or Secret changed", name)
                await known.adapter.close()
            return account

    async def _read(self, provider: ComputeProvider, credential: str | None) -> tuple[str | None, Credentials | None]:
        """The name of the credential that is meant, and its Secret's content."""
        try:
            chosen = choose_credential(provider, credential)
            found = await read_credentials(self._cluster, provider, credential, self._settings.system_namespace)
        except CredentialsRefused as error:
            raise AccountMissing(Reason.SECRET_MISSING, error.message) from error
        return chosen.name if chosen else None, found

    def _factory(self, provider: ComputeProvider) -> Factory:
        try:
            return load(provider.spec.adapter, self._settings.enabled_adapters)
        except UnknownAdapter as error:
            raise AccountMissing(Reason.UNKNOWN_ADAPTER, str(error.args[0])) from error

    def _context(self, provider: ComputeProvider, credentials: Credentials | None) -> Context:
        return Context(
            provider=provider.metadata.name,
            settings=provider.spec,
            installation=self._installation,
            credentials=credentials,
            state_dir=self._settings.adapter_state_dir,
            kubeconfig=self._settings.kubeconfig,
            system_namespace=self._settings.system_namespace,
        )

    async def get(self, provider: ComputeProvider | None, credential: str | None) -> Account:
        """The account that was opened before, else a fresh one. AccountMissing if there is none."""
        if provider is None:
            raise AccountMissing(Reason.PROVIDER_NOT_READY, "its ComputeProvider doesn't exist")
        try:
            chosen = choose_credential(provider, credential)
        except CredentialsRefused as error:
            raise AccountMissing(Reason.SECRET_MISSING, error.message) from error
        known = self._accounts.get((provider.metadata.name, chosen.name if chosen else None))
        return known if known is not None else await self.open(provider, credential)

    async def all_of(self, provider: ComputeProvider) -> dict[str | None, Account | AccountMissing]:
        """Every account of a provider that something can have been bought through, by its credential, or why it can't be opened."""
        found: dict[str | None, Account | AccountMissing] = {}
        names: list[str | None] = [credential.name for credential in provider.spec.credentials]
        for name in names or [None]:
            try:
                account = await self.get(provider, name)
            except AccountMissing as missing:
                found[name] = missing
                continue
            if not (account.anonymous and account.adapter.traits.needs_credentials):
                found[name] = account
        return found

    async def close(self, provider: str | None = None) -> None:
        """Let go of all accounts, or those of one provider."""
        for key in [key for key in self._accounts if provider is None or key[0] == provider]:
            await self._accounts.pop(key).adapter.close()


def _fingerprint(provider: ComputeProvider, data: Mapping[str, str]) -> str:
    """Changes with whatever the adapter is made from. A hash, so that no key lies about in memory twice."""
    parts = [provider.metadata.uid, provider.spec.model_dump_json(), *(f"{key}={data[key]}" for key in sorted(data))]
    return sha256("\0".join(parts).encode()).hexdigest()
