"""The fixtures of the Akash tests: the stand-in on a port of its own, adapters on it, and requests."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from worlds.akash import Akash, served
from worlds.contract_akash import AkashWorld

from cal_adapters.akash import AkashAdapter, create
from cal_adapters.contract import Context, LaunchRequest, Mark
from cal_crds.names import new_token

_HERE = Path(__file__).resolve().parent
_SCRIPT = _HERE.parents[2] / "hack" / "schemas" / "akash.py"

#: Answers of the provider's own code to a list of SDL texts: {"manifest", "hash", "groups"} or {"errors"} each.
Oracle = Callable[[list[str]], list[dict[str, Any]]]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("akash_schema_script", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sdl_schema() -> Path:
    """The provider's schema of an SDL, out of its package."""
    path: Path = _script().schema()
    return path


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """The provider's own manifest code, run on node."""
    folder: Path = _script().sdk()

    def ask(texts: list[str]) -> list[dict[str, Any]]:
        command = ["node", str(_HERE / "manifest.cjs"), str(folder)]
        run = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        answers: list[dict[str, Any]] = json.loads(run.stdout)
        return answers

    return ask


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
