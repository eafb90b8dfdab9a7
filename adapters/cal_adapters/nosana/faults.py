"""The one place where what goes wrong on the wire becomes an error of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    InsufficientFunds,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Refused,
)


class WrongState(OutcomeUnknown):
    """The deployment's state doesn't allow the call. Nosana says so with a 500; the adapter then looks at the state."""


#: No byte of the request has left, in these and their subclasses. Anything else may have had its effect.
NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
#: Client errors that say nothing of the request's fate, or that a proxy may give.
_UNCLEAR: Final = frozenset({408, 409, 425})
_LENGTH: Final = 300
_WRONG_STATE: Final = re.compile(r"incorrect state|archived deployment", re.IGNORECASE)
_NO_FUNDS: Final = re.compile(r"insufficient (credits|funds)", re.IGNORECASE)
#: Of a thing that was named. A router's own "Not Found", or its "Route GET:/... not found", says nothing of what we have there.
_MISSING: Final = re.compile(r"\b(deployment|market) not found\b", re.IGNORECASE)


def from_exception(what: str, error: Exception) -> AdapterError:
    """What an exception of httpx means for a request. `what` names the request."""
    name = type(error).__name__
    if isinstance(error, NEVER_SENT):
        return NotSent(f"{what}: Nosana was not reached: {name}: {error}"[:_LENGTH])
    # Messages of the others may hold what we sent: their type says enough.
    return OutcomeUnknown(f"{what}: no answer from Nosana: {name}")


def from_response(what: str, response: httpx.Response, secrets: Collection[str]) -> AdapterError:
    """What an answer other than a success means. `secrets` are cut out of the provider's words."""
    status, words = response.status_code, _words(response)
    message = f"{what}: Nosana answered {status}: {_scrub(words or response.reason_phrase, secrets)}"
    if status in (401, 403):
        return CredentialsRefused(message)
    if status == 402 or (words and _NO_FUNDS.search(words)):
        return InsufficientFunds(message)
    if status == 404 and words and _MISSING.search(words):
        return InstanceNotFound(message)
    if status == 429:
        return RateLimited(message, retry_after=_retry_after(response))
    if status == 500 and words and _WRONG_STATE.search(words):
        return WrongState(message)
    if 400 <= status < 500 and status != 404 and status not in _UNCLEAR:
        return Refused(message)
    return OutcomeUnknown(message)


def _words(response: httpx.Response) -> str | None:
    """The provider's own error text, None if the answer isn't in its shape (a proxy's page, say)."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if isinstance(body, dict):
        # The deployments API says `error`, the others `message`.
        body = body.get("error") or body.get("message")
    return body if isinstance(body, str) else None


def _scrub(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LENGTH]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, as `Retry-After` tells in either of its forms."""
    told = response.headers.get("Retry-After", "")
    if told.isdecimal():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
