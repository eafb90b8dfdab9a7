"""A deploy whose answer is lost on its way is tried again, and is one deployment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from rig.cutter import Cutter

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Calctl = Any


async def _deploy(system: Calctl, port: int, name: str, swallow: int) -> tuple[Any, int]:
    """What `calctl deploy` ended with over a wire that swallows so many of its answers, and how many it didn't get to swallow."""
    system("create", "pool", name, "--provider", "demo", "--owner", "eve")
    cutter = Cutter(system.api_port, only=b"POST /deploy")
    cutter.swallow = swallow
    command = f"deploy {name} --pool {name} --owner eve --image x --api=http://127.0.0.1:{port}".split()
    async with await asyncio.start_server(cutter.serve, "127.0.0.1", port):
        return await asyncio.to_thread(lambda: system(*command, check=False)), cutter.swallow


async def test_a_deploy_whose_answer_is_lost_is_one_deployment(system: Calctl, free_port: int) -> None:
    made, left = await _deploy(system, free_port, "once", swallow=2)
    assert made.returncode == 0, made.stderr
    assert left == 0, "no answer was lost: nothing is tested"
    listed = json.loads(system("get", "deployments", "--owner", "eve", "-o", "json").stdout)
    assert [item["deployment_id"] in made.stdout for item in listed] == [True]


async def test_an_api_that_never_answers_is_given_up_and_said(system: Calctl, free_port: int) -> None:
    failed, left = await _deploy(system, free_port, "never", swallow=100)
    assert failed.returncode == 1 and "no answer from" in failed.stderr
    assert left == 97, "three tries"
