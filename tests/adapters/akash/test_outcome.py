"""Every way in which the wire can fail has its word in the contract, and nothing foreign or secret gets into a message."""

from __future__ import annotations

import inspect
import json

import httpx
import pytest
from pydantic import ValidationError

from cal_adapters.akash import outcome
from cal_adapters.akash.wire import Balances
from cal_adapters.errors import (
    AdapterError,
    CredentialsRefused,
    InstanceNotFound,
    InsufficientFunds,
    NothingBought,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    Refused,
)

_EXCEPTIONS = [
    kind
    for kind in vars(httpx).values()
    if inspect.isclass(kind)
    and issubclass(kind, httpx.HTTPError | httpx.InvalidURL | httpx.CookieConflict | httpx.StreamError)
]
_HARMLESS = {httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError,
             httpx.InvalidURL, httpx.CookieConflict}  # fmt: skip


def _made(kind: type[Exception]) -> Exception:
    if issubclass(kind, httpx.HTTPStatusError):
        request = httpx.Request("GET", "http://x")
        return kind("message", request=request, response=httpx.Response(500, request=request))
    try:
        return kind("message")
    except TypeError:
        return kind()


@pytest.mark.parametrize("kind", _EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_client_library_has_its_word(kind: type[Exception]) -> None:
    failure = outcome.of_exception(_made(kind), "buy")  # type: ignore[arg-type]
    assert type(failure) is (NotSent if kind in _HARMLESS else OutcomeUnknown)
    assert "buy" in failure.message


def _body(message: str) -> bytes:
    return json.dumps({"error": "SomeError", "message": message, "code": "some"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, _body("Invalid SDL: no"), Refused),
        (400, _body("Failed to create deployment: Insufficient funds"), InsufficientFunds),
        (400, _body("Deposit too low"), InsufficientFunds),
        (400, _body("Console trial expired"), InsufficientFunds),
        (400, _body("deposit is required"), Refused),
        (400, b"<html>", OutcomeUnknown),
        (401, _body("Invalid API key"), CredentialsRefused),
        (401, b'"Unauthorized"', CredentialsRefused),
        (402, _body("Not enough balance to cover the deployment deposit."), InsufficientFunds),
        (403, _body("Forbidden"), CredentialsRefused),
        (404, _body("Deployment not found"), InstanceNotFound),
        (404, _body("Deployment Not Found"), InstanceNotFound),
        (404, _body("UserWallet Not Found"), CredentialsRefused),
        (404, _body("Provider akash1x not found"), OutcomeUnknown),
        (404, _body("Not Found"), OutcomeUnknown),
        (404, b"Not Found", OutcomeUnknown),
        (404, b"", OutcomeUnknown),
        (408, b"", OutcomeUnknown),
        (409, _body("conflict"), Refused),
        (422, _body("unprocessable"), Refused),
        (429, b"", RateLimited),
        (301, b"", OutcomeUnknown),
        (500, _body("Internal server error"), OutcomeUnknown),
        (500, _body("Deployment not found"), OutcomeUnknown),
        (502, b"<html>", OutcomeUnknown),
        (503, _body("Service temporarily unavailable"), OutcomeUnknown),
    ],
)
def test_statuses_have_their_words(status: int, body: bytes, kind: type[AdapterError]) -> None:
    assert type(outcome.of_status(status, body, {}, "buy")) is kind


def test_no_status_that_could_hide_an_effect_says_that_nothing_was_bought() -> None:
    for status in range(100, 600):
        failure = outcome.of_status(status, b"?", {}, "buy")
        if status not in (401, 402, 403, 429):
            assert not isinstance(failure, NothingBought | InstanceNotFound), status


@pytest.mark.parametrize(("given", "seconds"), [("7", 7.0), ("soon", None), ("-1", None), ("9" * 30, None)])
def test_the_wait_is_taken_if_it_is_one(given: str, seconds: float | None) -> None:
    assert outcome.of_status(429, b"", {"retry-after": given}, "buy").retry_after == seconds


def test_foreign_words_are_cut_down_and_show_no_key_or_token() -> None:
    nasty = "ac.sk.production.abc123 eyJhbGciOi.eyJpc3Mi.c2ln \x1b[31m\nsecond line " + "x" * 5000
    said = outcome.of_status(400, _body(nasty), {}, "buy").message
    assert "abc123" not in said and "eyJpc3Mi" not in said
    assert "\x1b" not in said and "\n" not in said
    assert len(said) < 700


def test_garbage_is_told_without_being_quoted() -> None:
    with pytest.raises(ValidationError) as caught:
        Balances.model_validate({"balance": "hunter2"})
    said = outcome.of_garbage(caught.value, "tell the balance")
    assert type(said) is OutcomeUnknown
    assert "balance" in said.message and "hunter2" not in said.message
