"""The fixtures of the Akash tests: the stand-in on a port of its own, adapters on it, and requests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worlds import akash_package
from worlds.akash import Akash, served
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter, create
from cal_adapters.contract import Context, LaunchRequest, Mark
from cal_crds.names import new_token

_HERE = Path(__file__).resolve().parent

#: Answers of the provider's own code to a list of SDL texts: {"manifest", "hash", "groups"} or {"errors"} each; to claims {"errors"}.
Oracle = Callable[[list[Any]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def sdl_schema() -> Path:
    """The provider's schema of an SDL, out of its package."""
    return akash_package.schema()


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """The provider's own manifest code, run on node."""
    command = ["node", str(_HERE / "manifest.cjs"), str(akash_package.folder())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        lines_in, lines_out = process.stdin, process.stdout

        def ask(texts: list[Any]) -> list[dict[str, Any]]:
            lines_in.write(json.dumps(texts) + "\n")
            lines_in.flush()
            answers: list[dict[str, Any]] = json.loads(lines_out.readline())
            return answers

        yield ask
        lines_in.close()
        process.wait(20)


@pytest.fixture
async def world(anyio_backend: str, sdl_schema: Path) -> AsyncIterator[AkashWorld]:
    """An Akash of its own for each test, which checks SDLs against the provider's schema. It must not have met a broken contract."""
    akash = Akash(sdl_schema, page=3)
    async with served(akash) as url:
        yield AkashWorld(akash, url)
    assert akash.violations == []


@pytest.fixture
async def make(world: AkashWorld) -> AsyncIterator[Callable[..., AkashAdapter]]:
    """make(**changes of the Context): an adapter on the world, closed afterwards."""
    made: list[AkashAdapter] = []

    def one(context: Context | None = None) -> AkashAdapter:
        made.append(create(context or world.context()))
        return made[-1]

    yield one
    for adapter in made:
        await adapter.close()


@pytest.fixture
def adapter(make: Callable[..., AkashAdapter]) -> AkashAdapter:
    return make()


@pytest.fixture
def new_request(world: AkashWorld) -> Callable[..., Any]:
    """await new_request(**changes): a purchase under a mark of its own."""

    async def one(**changes: Any) -> LaunchRequest:
        mark = changes.pop("mark", None) or Mark("0a1b2c3d4e", new_token())
        return await world.request(mark, **changes)

    return one
