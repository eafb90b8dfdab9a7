"""Bodies that are small enough to be taken and made to be dear: each is answered in the time that its size warrants.

What takes longer than linear time or room stops the one event loop, and with it the api for everybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

#: Seconds. Each takes far below one; what is quadratic takes from one minute to hours.
_PATIENCE = 15
_MOST = 1 << 20


def _twice_at_the_end(world: Any) -> tuple[str, str]:
    pairs = ",".join(f'"{number}":1' for number in range(90_000))
    return "/createpool", f'{{{pairs},"89999":1}}'


def _long_path(world: Any) -> tuple[str, str]:
    return "/terminate", f'{{"{"k" * 300_000}":[{",".join(["1"] * 300_000)}]}}'


def _many_schemes(world: Any) -> tuple[str, str]:
    return "/createpool", json.dumps(world.pool_body(metadata={"a": "a." * 500_000}))


def _many_dashes(world: Any) -> tuple[str, str]:
    return "/deploy", _deploy(cmd=["-." * 4096] * 120)


def _many_variables(world: Any) -> tuple[str, str]:
    return "/deploy", _deploy(cmd=["TOKEN" * 1600] * 120)


def _long_command_line(world: Any) -> tuple[str, str]:
    return "/deploy", _deploy(cmd="a" * 1_000_000)


def _deploy(**configuration: Any) -> str:
    body = {"workload_type": "external", "model_name": "m", "endpoint": "http://x.example"}
    return json.dumps({**body, "configuration": {"image": "a/b:1", **configuration}})


@pytest.mark.parametrize(
    "made",
    [_twice_at_the_end, _long_path, _many_schemes, _many_dashes, _many_variables, _long_command_line],
)
def test_no_body_holds_the_api_up(world: Any, made: Callable[[Any], tuple[str, str]]) -> None:
    path, body = made(world)
    assert len(body) < _MOST
    headers = {"Content-Type": "application/json"}
    reply = world.http.post(path, content=body.encode(), headers=headers, timeout=_PATIENCE)
    assert reply.status_code in (200, 400), reply.text
    assert len(reply.text) < 1000
    assert world.get("/health", timeout=_PATIENCE).status_code == 200
