"""The fixtures of the contract suite: one world and one adapter for every name in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from worlds.contract_world import World

from cal_adapters.contract import Adapter
from cal_adapters.registry import ADAPTERS, load


@pytest.fixture(params=sorted(ADAPTERS))
async def world(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[World]:
    """A fresh provider, for each adapter in turn. An adapter without a world fails."""
    module = f"worlds.contract_{request.param}"
    if find_spec(module) is None:
        pytest.fail(f"the adapter {request.param!r} has no world: tests/worlds/contract_{request.param}.py is missing")
    async with import_module(module).open_world(request, tmp_path) as world:
        yield world


@pytest.fixture
async def adapter(world: World) -> AsyncIterator[Adapter]:
    """The adapter of the world, for the installation INSTALLATION."""
    made = load(world.name, ADAPTERS)(world.context())
    yield made
    await made.close()
