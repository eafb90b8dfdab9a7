"""From what can go wrong on the wire to the contract's errors: the one place. Pure, and total (a test proves it).

The rule behind the table: what certainly had no effect is a NothingBought; where there is any doubt it is OutcomeUnknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import httpx
from pydantic import ValidationError

from cal_adapters.akash.wire import Failure
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

#: What httpx raises before a byte of the request has gone out. Everything else of its tree may have had an effect.
UNSENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
    httpx.CookieConflict,
)
_POOR: Final = re.compile(
    r"insufficient (funds|balance)|not enough balance|deposit too low|trial expired", re.IGNORECASE
)
_NO_WALLET: Final = re.compile(r"wallet", re.IGNORECASE)
_NO_DEPLOYMENT: Final = re.compile(r"^deployment not found\.?$", re.IGNORECASE)
_SECRETS: Final = re.compile(r"ac\.sk\.[^\s\"']+|eyJ[\w\-]+\.[\w\-]+\.[\w\-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


def of_exception(
    error: httpx.HTTPError | httpx.InvalidURL | httpx.CookieConflict | httpx.StreamError, what: str
) -> AdapterError:
    """The contract's error for an exception of httpx. `what` was being asked, for people."""
    said = quoted(f"{type(error).__name__}: {error}")
    if isinstance(error, UNSENT):
        return NotSent(f"Akash can't be reached to {what} ({said})")
    return OutcomeUnknown(f"Akash gave no whole answer when asked to {what} ({said})")


def of_status(status: int, body: bytes, headers: Mapping[str, str], what: str) -> AdapterError:
    """The contract's error for an answer that isn't a 2xx."""
    failure = _failure(body)
    said = quoted(failure.message) if failure else "no reason that can be read"
    told = f"Akash, asked to {what}, answers {status}: {said}"
    if status in (401, 403):
        return CredentialsRefused(told)
    if status == 429:
        return RateLimited(told, retry_after=_seconds(headers.get("retry-after")))
    if status == 402:
        return InsufficientFunds(told)
    if failure is not None and 400 <= status < 500:
        return _refusal(status, failure, told)
    return OutcomeUnknown(told)


def of_garbage(error: ValidationError | ValueError, what: str) -> OutcomeUnknown:
    """An answer that can't be read. It isn't quoted: it may hold anything."""
    where = ""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = f": {'.'.join(str(part) for part in first['loc'])} {first['msg']}"
    return OutcomeUnknown(f"Akash, asked to {what}, gave an answer that can't be read{quoted(where)}")


def quoted(text: str) -> str:
    """Foreign words made fit for a message: one line, of bounded length, without anything that looks like a key or a token."""
    return _CONTROL.sub(" ", _SECRETS.sub("***", text))[:500]


def _refusal(status: int, failure: Failure, told: str) -> AdapterError:
    if status == 404:
        if _NO_DEPLOYMENT.match(failure.message):
            return InstanceNotFound(told)
        if _NO_WALLET.search(failure.message):
            return CredentialsRefused(told)
        return OutcomeUnknown(told)
    if _POOR.search(failure.message):
        return InsufficientFunds(told)
    return Refused(told)


def _failure(body: bytes) -> Failure | None:
    try:
        return Failure.model_validate_json(body)
    except ValidationError:
        return None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text) else None
