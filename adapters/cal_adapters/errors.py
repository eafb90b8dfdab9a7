"""The closed family of errors of the adapter contract. Adapters translate into it; the operator branches on nothing else.

AdapterError
+-- InstanceNotFound       the provider itself says that this instance doesn't exist (in its own error shape)
+-- NothingBought          the call certainly had no effect
|   +-- NoCapacity         no room just now: try another offer, or later
|   +-- Refused            this request will never be accepted as it stands
|   +-- PriceAboveCap      the final price is above the cap; nothing was bought
|   +-- CredentialsRefused missing, wrong, expired or revoked credentials
|   +-- InsufficientFunds  the account can't pay
|   +-- RateLimited        slow down (`retry_after` seconds, if told)
|   +-- NotSent            the request certainly never reached the provider (connection refused, name not found)
+-- OutcomeUnknown         no answer, or none that can be read: the call may have had its effect
"""

from __future__ import annotations

from typing import ClassVar

from cal_crds.conditions import Reason


class AdapterError(Exception):
    """Something went wrong at a provider. The message is for people and never holds a secret."""

    #: Whether the same call may do better later, without anybody changing anything.
    retryable: ClassVar[bool] = True
    #: Whether the provider itself failed (feeds its circuit), rather than refusing this one request.
    provider_fault: ClassVar[bool] = False
    #: The condition reason that says it.
    reason: ClassVar[Reason] = Reason.UNREACHABLE

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InstanceNotFound(AdapterError):
    """The provider says, in its own error shape and to credentials that work, that the instance doesn't exist."""

    retryable = False
    reason = Reason.GONE


class NothingBought(AdapterError):
    """The call certainly had no effect."""


class NoCapacity(NothingBought):
    """No room just now: another offer may do, or the same one later."""

    reason = Reason.NO_CAPACITY


class Refused(NothingBought):
    """This request will never be accepted as it stands: a bad image, an unknown market, an unsupported port."""

    retryable = False
    reason = Reason.REFUSED


class PriceAboveCap(NothingBought):
    """The final price or bid is above `max_price_per_hour`; nothing was bought, or it was undone and proven gone."""

    reason = Reason.ABOVE_PRICE_CAP


class CredentialsRefused(NothingBought):
    """Missing, wrong, expired or revoked credentials."""

    reason = Reason.CREDENTIALS_REFUSED


class InsufficientFunds(NothingBought):
    """The account can't pay."""

    reason = Reason.INSUFFICIENT_FUNDS


class RateLimited(NothingBought):
    """The provider wants fewer requests; `retry_after` says when, if it told."""

    provider_fault = True
    reason = Reason.PROVIDER_BACKOFF


class NotSent(NothingBought):
    """The request certainly never reached the provider: connection refused, name not found, TLS refused."""

    provider_fault = True


class OutcomeUnknown(AdapterError):
    """No answer, a cut connection, a 5xx, or an answer that can't be read: the call may have had its effect."""

    provider_fault = True
    reason = Reason.OUTCOME_UNKNOWN
