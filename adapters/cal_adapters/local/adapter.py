"""Processes on this machine, as an adapter. An instance is a command with a shim beside it (`shim.py`) and a folder (`home.py`).

Everything that touches files or /proc runs in a thread. A launch first writes the request down, then starts the shim; both can be
done again by anybody, at any later time, and the shim's lock makes the start single. So a caller that is killed half-way leaves an
instance that the next look finds and starts. This is the one adapter that reads the environment: its machine is ours.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final, ParamSpec, TypeVar

from cal_adapters.contract import Account, Context, Instance, LaunchRequest, Mark, Observation, Stop, Traits
from cal_adapters.errors import InstanceNotFound, OutcomeUnknown
from cal_adapters.local import logs, translate
from cal_adapters.local.home import Request
from cal_adapters.local.machine import Free, Machine, offers
from cal_adapters.local.store import Look, NotStarted, Store
from cal_adapters.unusable import Unusable
from cal_crds.node import Offer
from cal_crds.provider import Capabilities, LocalSettings, Support

TRAITS: Final = Traits(
    capabilities=Capabilities(
        adapter_type="on_prem",
        supports=[Support.LOG_STREAMING, Support.MULTI_GPU, Support.DIRECT_PROVISIONING, Support.READINESS_POLL],
        readiness_timeout_seconds=300,
        polling_interval_seconds=5,
        features=["process_based"],
        pool_type="cluster",
    ),
    launch_timeout_seconds=10.0,
    observe_seconds=5.0,
    poll_seconds=0.5,
    offers_seconds=10.0,
    concurrency=4,
    calls_per_second=100.0,
    needs_credentials=False,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class LocalAdapter:
    """The processes of one state directory."""

    traits = TRAITS

    def __init__(self, context: Context, store: Store) -> None:
        self._installation, self._store = context.installation, store
        self._settings = context.settings.local or LocalSettings()
        self._machine: Machine | None = None

    @classmethod
    def open(cls, context: Context) -> LocalAdapter | Unusable:
        if sys.platform != "linux":
            return Unusable(TRAITS, "local needs Linux")
        if context.state_dir is None:
            return Unusable(TRAITS, "local needs a folder to keep its state in (--adapter-state-dir)")
        return cls(context, Store(context.state_dir.absolute()))

    async def check(self) -> Account:
        return Account(id=await _threaded(self._store.account))

    async def offers(self) -> Sequence[Offer]:
        return await _threaded(self._offers)

    async def find(self, mark: Mark) -> Sequence[Instance]:
        look = await _threaded(self._store.look, str(mark))
        return await _threaded(self._instances, [look] if look is not None else [])

    async def launch(self, request: LaunchRequest) -> Instance:
        return await _threaded(self._launch, request)

    async def observe(self, handle: str) -> Observation:
        return await _threaded(self._observe, handle)

    async def stop(self, handle: str) -> Stop:
        return Stop.GONE if await _threaded(self._store.stop, handle) else Stop.STOPPING

    async def list_marked(self) -> Sequence[Instance]:
        await _threaded(self._store.prune, self._installation)
        instances = await _threaded(lambda: self._instances(list(self._store.looks())))
        return [
            found for found in instances if found.mark is not None and found.mark.installation == self._installation
        ]

    async def logs(self, handle: str, tail: int) -> Sequence[str]:
        return await _threaded(lambda: logs.last_lines(self._known(handle).home, tail))

    async def follow(self, handle: str, tail: int) -> AsyncGenerator[str, None]:
        """The last lines, then each as it comes, until the instance has ended (an interruption isn't an end)."""
        look = await _threaded(self._known, handle)
        async with aclosing(logs.follow(look.home, tail, over=lambda: self._silent(handle))) as lines:
            async for line in lines:
                yield line

    async def close(self) -> None:
        """Holds nothing open."""

    # --- in a thread

    def _offers(self) -> list[Offer]:
        self._machine = machine = Machine.measure(self._settings)
        return offers(machine, Free.of(machine, _requests(self._store.looks())))

    def _launch(self, wanted: LaunchRequest) -> Instance:
        # As the offers last saw it: asking for GPUs takes a second or two.
        machine = self._machine or Machine.measure(self._settings)
        handle = str(wanted.mark)
        self._store.make(
            handle, lambda looks: translate.to_run(wanted, machine, [look.request for look in looks], os.environ)
        )
        self._store.tend(handle)
        return translate.instance(self._known(handle), self._store.account())

    def _observe(self, handle: str) -> Observation:
        look = self._known(handle)
        if look.startable:
            self._store.tend(handle)
            look = self._known(handle)
        return translate.observation(look)

    def _instances(self, looks: Sequence[Look]) -> list[Instance]:
        return [translate.instance(look, self._store.account()) for look in looks if not look.over]

    def _known(self, handle: str) -> Look:
        look = self._store.look(handle)
        if look is None:
            raise InstanceNotFound(f"no local instance {handle!r}")
        return look

    def _silent(self, handle: str) -> bool:
        """Whether nobody will write to its log any more."""
        look = self._store.look(handle)
        return look is None or (look.alive is None and not look.startable)


def _requests(looks: Iterable[Look]) -> list[Request]:
    return [look.request for look in looks if not look.over]


async def _threaded(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The one place where errors of the machine become errors of the contract. A cancelled caller doesn't stop the work: it is done whole."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except (NotStarted, OSError) as error:
        raise OutcomeUnknown(f"local: {error}") from error
