"""A deploy whose answer is lost on its way is tried again, and is one deployment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from rig.cutter import Cutter

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]
Calctl = Any


async def test_a_deploy_whose_answer_is_lost_is_one_deployment(system: Calctl, free_port: int) -> None:
    system("create", "pool", "cut", "--provider", "demo", "--owner", "eve")
    cutter = Cutter(system.api_port, only=b"POST /deploy")
    cutter.swallow = 2
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", free_port)
    async with server:
        command = (
            "deploy",
            "once",
            "--pool",
            "cut",
            "--owner",
            "eve",
            "--image",
            "x",
            f"--api=http://127.0.0.1:{free_port}",
        )
        made = await asyncio.to_thread(lambda: system(*command))
    assert cutter.swallow == 0, "no answer was lost: nothing is tested"
    listed = json.loads(system("get", "deployments", "--owner", "eve", "-o", "json").stdout)
    assert [item["deployment_id"] in made.stdout for item in listed] == [True]


async def test_an_api_that_never_answers_is_given_up_and_said(system: Calctl, free_port: int) -> None:
    system("create", "pool", "mute", "--provider", "demo", "--owner", "eve")
    cutter = Cutter(system.api_port, only=b"POST /deploy")
    cutter.swallow = 100
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", free_port)
    async with server:
        command = (
            "deploy",
            "never",
            "--pool",
            "mute",
            "--owner",
            "eve",
            "--image",
            "x",
            f"--api=http://127.0.0.1:{free_port}",
        )
        failed = await asyncio.to_thread(lambda: system(*command, check=False))
    assert failed.returncode == 1 and "no answer from" in failed.stderr
    assert cutter.swallow == 97, "three tries"
