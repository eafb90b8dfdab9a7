"""Waiting for something to become true, with a deadline. Nobody sleeps for a guessed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], timeout: float = 90, interval: float = 0.05) -> T:
    """The first truthy value of `check()`; `timeout` and `interval` in seconds.

    An AssertionError in `check` counts as not yet; the last one is raised when the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        problem: AssertionError | None = None
        value: T | None = None
        try:
            value = check()
        except AssertionError as error:
            problem = error
        if value:
            return value
        if time.monotonic() > deadline:
            raise problem or AssertionError(f"not within {timeout} s; last value: {value!r}")
        time.sleep(interval)


async def until(check: Callable[[], Awaitable[T]], timeout: float = 90, what: str = "it", interval: float = 0.05) -> T:
    """As `eventually`, for an async `check`; `what` is its name in the error."""
    deadline = time.monotonic() + timeout
    while True:
        problem: AssertionError | None = None
        value: T | None = None
        try:
            value = await check()
        except AssertionError as error:
            problem = error
        if value:
            return value
        if time.monotonic() > deadline:
            raise problem or AssertionError(f"{what} did not come within {timeout} s; last value: {value!r}")
        await asyncio.sleep(interval)
