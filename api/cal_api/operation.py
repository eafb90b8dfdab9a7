"""One route as data: what Starlette serves and what the OpenAPI document says come from the same lines."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cal_api.bodies import explain
from cal_api.errors import BadRequest

Q = TypeVar("Q", bound=BaseModel)

#: Prefixes under which clients of this API call the same routes.
DEPLOYMENT_PREFIXES = ("/deployment", "/v1/deployment", "/api/v1/deployment")
INVENTORY_PREFIXES = ("/v1", "/api/v1")

_CONVERTER = re.compile(r":[a-z]+}")


@dataclass(frozen=True)
class Operation:
    """A method of a path. `codes`: what it may answer besides success and what every route may answer."""

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    summary: str
    reply: type[BaseModel]
    codes: Mapping[int, str] = field(default_factory=dict)
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    #: Headers that it looks at, and what each means.
    headers: Mapping[str, str] = field(default_factory=dict)
    success: int = 200
    prefixes: tuple[str, ...] = ()

    @property
    def public_path(self) -> str:
        """The path as documents write it: without converters."""
        return _CONVERTER.sub("}", self.path)

    @property
    def parameters(self) -> list[str]:
        """Names of the path's parameters."""
        return re.findall(r"{(\w+)}", self.public_path)


def routes(operations: Iterable[Operation]) -> list[Route]:
    """One route per path, so that a 405 names all of its methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for op in operations:
        by_path.setdefault(op.path, {})[op.method] = op
    return [Route(path, _handler(methods), methods=list(methods)) for path, methods in by_path.items()]


def _handler(methods: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    first = next(iter(methods.values())).handler
    if len(methods) == 1:
        return first

    @wraps(first)  # requests are counted by the name
    async def by_method(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await methods[method].handler(request)

    return by_method


def query_of(request: Request, model: type[Q]) -> Q:
    """The query as `model`; unknown parameters are ignored."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise BadRequest(explain(error)) from error


def raw(body: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """JSON that is bytes already."""
    return Response(body, status, headers, "application/json")


def rendered(reply: BaseModel, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """A reply model as JSON."""
    return raw(reply.model_dump_json().encode(), headers, status)
