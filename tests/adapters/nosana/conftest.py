"""What the tests of the nosana adapter share: its world as a server, and an adapter that speaks with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from worlds.contract_nosana import NosanaWorld
from worlds.nosana import KEY, Nosana

from cal_adapters.contract import Adapter, Context, Credentials, Instance, Mark, State, Stop
from cal_adapters.nosana import create
from cal_crds.names import new_token
from cal_crds.provider import NosanaSettings, ProviderSpec


@dataclass
class Rig:
    """A world, its server's URL, and an adapter of the account that `KEY` opens."""

    world: NosanaWorld
    adapter: Adapter
    url: str
    http: httpx.AsyncClient
    #: What a violation of the provider's document may mention, because the test wants it so.
    odd: str | None = None

    @property
    def key(self) -> str:
        return KEY

    async def ask(self, what: str) -> Any:
        return (await self.http.get(f"/_world/{what}")).raise_for_status().json()

    async def tell(self, what: str, /, **body: Any) -> Any:
        return (await self.http.post(f"/_world/{what}", json=body)).raise_for_status().json()

    async def fault(self, match: str, kind: str, **more: Any) -> None:
        plan = [{"match": match, "kind": kind, **more}]
        (await self.http.post("/_world/faults", json=plan)).raise_for_status()

    async def advance(self, seconds: float) -> None:
        await self.tell("advance", seconds=seconds)

    async def deployment(self, mark: Mark) -> Any:
        """What the world knows of the mark's only deployment."""
        found = [item for item in await self.ask("deployments") if item["name"] == str(mark)]
        assert len(found) == 1, found
        return found[0]

    def another(self, key: str, **context: Any) -> Adapter:
        """An adapter with another key. The caller closes it."""
        made = self.world.context()
        fields = {"provider": made.provider, "settings": made.settings, "installation": made.installation, **context}
        return create(Context(**fields, credentials=Credentials("other", {"apiKey": key})))

    async def launched(self, **changes: Any) -> tuple[Mark, Instance]:
        mark = new_mark()
        return mark, await self.adapter.launch(await self.world.request(mark, **changes))

    async def running(self, **changes: Any) -> tuple[Mark, Instance]:
        mark, instance = await self.launched(**changes)
        await self.advance(2)
        assert (await self.adapter.observe(instance.handle)).state is State.RUNNING
        return mark, instance

    async def gone(self, handle: str) -> int:
        """Stops until it is proven; how many seconds of the world it took."""
        for seconds in range(0, 600, 5):
            if await self.adapter.stop(handle) is Stop.GONE:
                return seconds
            await self.advance(5)
        raise AssertionError(f"not gone: {await self.ask('deployments')}")


def new_mark() -> Mark:
    return Mark("0a1b2c3d4e", new_token())


@pytest.fixture
def make_mark() -> Callable[[], Mark]:
    return new_mark


@pytest.fixture
async def rig(anyio_backend: str) -> AsyncIterator[Rig]:
    with Nosana().serve() as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            world = NosanaWorld(url, http)
            await world.start()
            adapter = create(world.context())
            rig = Rig(world, adapter, url, http)
            yield rig
            await adapter.close()
            assert [found for found in await world.violations() if not (rig.odd and rig.odd in found)] == []


@pytest.fixture
async def at_url(anyio_backend: str) -> AsyncIterator[Callable[[str], Adapter]]:
    """at_url(url): an adapter of whatever listens there."""
    made: list[Adapter] = []

    def make(url: str) -> Adapter:
        settings = ProviderSpec(adapter="nosana", endpoint=url, nosana=NosanaSettings())
        made.append(
            create(Context("nosana", settings, "0a1b2c3d4e", Credentials("main", {"apiKey": "nos_secret_key"})))
        )
        return made[-1]

    yield make
    for adapter in made:
        await adapter.close()
