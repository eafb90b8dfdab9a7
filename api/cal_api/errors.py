"""Every refusal of this API: domain errors, and the one place that turns errors into responses.

Bodies are `{"detail": "<string>"}`: clients hand `detail` to a person, so it names the field, the value and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cal_crds import cluster

RETRY_AFTER = "2"


class ApiError(Exception):
    """A request that can't be served; `detail` says why, to a person."""

    status: ClassVar[int] = 400
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ApiError):
    """400: a value that isn't allowed."""


class Forbidden(ApiError):
    """403: not from there, or not allowed here."""

    status = 403


class NotFound(ApiError):
    """404: no such thing."""

    status = 404


class Conflict(ApiError):
    """409: it exists already, or somebody else owns what should change."""

    status = 409


class PreconditionFailed(ApiError):
    """412: something that the request relies on isn't there."""

    status = 412


class TooLarge(ApiError):
    """413: the body is too large."""

    status = 413


class UnsupportedMediaType(ApiError):
    """415: the body isn't declared as JSON."""

    status = 415


class Unprocessable(ApiError):
    """422: not possible in this state."""

    status = 422


class LogsFailed(ApiError):
    """500, as documented: the logs could not be fetched."""

    status = 500


class NotReady(ApiError):
    """503: not now; try again."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": RETRY_AFTER}


def shown(value: object, limit: int = 80) -> str:
    """A value as a message shows it: one line, no control characters, not too long."""
    text = ascii(value) if isinstance(value, str) else ascii(str(value))[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."


def bad(field: str, value: object, allowed: str) -> BadRequest:
    """The refusal of a field's value, with what is allowed."""
    return BadRequest(f"{field}: {shown(value)} is not allowed; {allowed}")


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """`{"detail": ...}` with that status."""
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


Handler = Callable[[Request, Any], Awaitable[Response]]


async def _own(_: Request, error: ApiError) -> Response:
    return response(error.status, error.detail, error.headers)


async def _http(request: Request, error: HTTPException) -> Response:
    words = {
        404: f"No route {request.method} {shown(request.url.path, 200)[1:-1]}; see /openapi.json",
        405: f"{request.method} is not allowed here",
    }
    return response(error.status_code, words.get(error.status_code, str(error.detail)), error.headers)


async def _unavailable(_: Request, error: cluster.ClusterError) -> Response:
    detail = "The Kubernetes API server can't be asked just now; try again"
    return response(503, detail, NotReady.headers)


async def _not_allowed(_: Request, error: cluster.ClusterError) -> Response:
    return response(403, f"The Kubernetes API server doesn't let this API do that: {error.message}")


async def _invalid(_: Request, error: cluster.ClusterError) -> Response:
    return response(400, f"Refused by the Kubernetes API server: {error.message}")


async def _gone(_: Request, error: cluster.ClusterError) -> Response:
    return response(404, f"Not found: {error.message}")


async def _conflict(_: Request, error: cluster.ClusterError) -> Response:
    return response(409, error.message)


async def _internal(_: Request, error: Exception) -> Response:
    # The server logs the error itself; a client learns nothing of our insides.
    return response(500, "Internal error; the log of the API has it")


HANDLERS: Mapping[Any, Handler] = {
    ApiError: _own,
    HTTPException: _http,
    cluster.Forbidden: _not_allowed,
    cluster.Invalid: _invalid,
    cluster.NotFound: _gone,
    cluster.Conflict: _conflict,
    cluster.ClusterError: _unavailable,
    Exception: _internal,
}
