"""The gate in front of one provider account: concurrency, rate limit, timeouts, and a circuit instead of a retry storm.

Whoever fails repeatedly is left alone for a growing, jittered while; one call then tries whether it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import Counter, Histogram

from cal_adapters.contract import Traits
from cal_adapters.errors import AdapterError, CredentialsRefused, NotSent, OutcomeUnknown, RateLimited
from cal_operator.clock import Clock

T = TypeVar("T")

CALLS = Counter("cal_adapter_calls_total", "Calls to providers.", ["provider", "verb"])
ERRORS = Counter("cal_adapter_errors_total", "Calls to providers that failed.", ["provider", "verb", "error"])
SECONDS = Histogram("cal_adapter_call_seconds", "Duration of calls to providers.", ["provider", "verb"])

_OPEN_AFTER = 5
_BACKOFF_BASE = 2.0
_BACKOFF_MAX = 120.0
#: For no longer is an account left alone because the provider asks for it: stops go through the gate too, and what isn't stopped bills.
_TOLD_MAX = 600.0


class CircuitOpen(RateLimited):
    """The account is left alone for `retry_after` seconds; nothing was sent."""

    provider_fault = False
    #: What closed it.
    cause: AdapterError | None = None


class LineTooLong(NotSent):
    """The time for the call was over before its turn came; nothing was sent."""

    provider_fault = False


class Gate:
    """Lets calls through to one account. Times in seconds."""

    def __init__(self, provider: str, traits: Traits, clock: Clock) -> None:
        self._provider, self._traits, self._clock = provider, traits, clock
        self._slots = asyncio.Semaphore(traits.concurrency)
        self._interval = 1.0 / traits.calls_per_second
        self._next_call = 0.0
        self._faults = 0
        self._open_until = 0.0
        self._last_error = ""
        self._closed_by: AdapterError | None = None

    def closed_for(self) -> float:
        """For how many seconds nothing is let through; 0 when it is open for calls."""
        return max(0.0, self._open_until - self._clock.monotonic())

    @property
    def last_error(self) -> str:
        return self._last_error

    async def call(
        self,
        verb: str,
        call: Callable[[], Awaitable[T]],
        timeout: float | None = None,
        *,
        bound: Callable[[], float] | None = None,
    ) -> T:
        """Let one call through. CircuitOpen if the account is left alone; the adapter's own errors otherwise.

        `bound` is asked for the timeout when the call's turn has come: what spends must end before the lease does, however long it
        stood in line. LineTooLong if there is no time left.
        """
        self._refuse_while_closed()
        async with self._slots:
            await self._take_turn()
            self._refuse_while_closed()  # it may have closed meanwhile: who stands in line is no reason for a storm
            timeout = bound() if bound is not None else timeout or self._traits.call_timeout_seconds
            if timeout <= 0:
                raise LineTooLong(f"{verb} at {self._provider} stood in line for too long; nothing was sent")
            CALLS.labels(self._provider, verb).inc()
            try:
                with SECONDS.labels(self._provider, verb).time():
                    async with asyncio.timeout(timeout):
                        result = await call()
            except TimeoutError as error:
                raise self._failed(verb, OutcomeUnknown(f"{self._provider} did not answer {verb} in time")) from error
            except AdapterError as error:
                raise self._failed(verb, error) from None
        self._faults = 0
        return result

    def _refuse_while_closed(self) -> None:
        if wait := self.closed_for():
            shut = CircuitOpen(
                f"{self._provider} fails ({self._last_error}); it is left alone for {wait:.0f} s", retry_after=wait
            )
            shut.cause = self._closed_by
            raise shut

    async def _take_turn(self) -> None:
        now = self._clock.monotonic()
        turn = max(now, self._next_call)
        self._next_call = turn + self._interval
        if turn > now:
            await asyncio.sleep(turn - now)

    def _failed(self, verb: str, error: AdapterError) -> AdapterError:
        ERRORS.labels(self._provider, verb, type(error).__name__).inc()
        if error.retry_after is not None:
            error.retry_after = min(error.retry_after, _TOLD_MAX) if error.retry_after > 0 else None
        if isinstance(error, RateLimited) and error.retry_after:
            self._close(error.retry_after, error)
        elif isinstance(error, CredentialsRefused):
            self._close(_BACKOFF_BASE * 5, error)
        elif error.provider_fault:
            self._faults += 1
            if self._faults >= _OPEN_AFTER or isinstance(error, NotSent):
                exponent = max(0, self._faults - _OPEN_AFTER)
                self._close(min(_BACKOFF_BASE * 2**exponent, _BACKOFF_MAX) * random.uniform(0.75, 1.25), error)
        else:
            self._faults = 0
        return error

    def _close(self, wait: float, error: AdapterError) -> None:
        self._open_until = self._clock.monotonic() + wait
        self._last_error, self._closed_by = error.message, error
