"""An Akash to test against: a real server with the Console API, providers that bid and serve logs, a clock, and faults on demand.

    python tests/worlds/akash.py --port 8098 [--sdl-schema FILE] [--page 1000] [--fault-rate 0.1 --seed 1]

Both directions are checked against `akash_openapi.yaml` (served at /openapi.json); what breaks it is listed under /_world/violations.
Logs: WebSocket /provider-proxy, before /gateway/{provider}/... . The workloads' host name is the server itself: any other path under it
answers 404. /_world/ is for tests and the chaos harness:

    GET  deployments, billing, violations, faults     all there is; groups' names of what isn't closed; broken contracts; faults shown
    POST advance {seconds}; faults [{operation, kind, ...}] or {rate, seed} (see akash_faults.py); DELETE faults
    POST account {owner, key, credits?, denom?}; revoke {key}; reprice {model, factor}; akt {price}
    POST lease {dseq, state?, reason?, word?, reclaim?, up?, seen?}; say {dseq, line}; open {owner, name}; bid {dseq, provider, usd, gpu}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

if not __package__:  # run as a program
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from worlds import akash_gateway
from worlds.akash_admin import admin_routes
from worlds.akash_calls import CALLS, Call, Refusal
from worlds.akash_faults import Fault, Plan, failure
from worlds.akash_schema import Operations, SDLSchema, document
from worlds.akash_state import Account, World

#: The key of the first account, and that of another one.
KEY, OTHER_KEY = "ac.sk.test.owner", "ac.sk.test.other"
#: What the Console's database doesn't know.
_UNKNOWN = "unknown_value"


class Akash:
    """The world behind the server."""

    def __init__(self, schema: Path | None = None, **settings: Any) -> None:
        self.state = World(**settings)
        self.plan = Plan()
        self.schema = SDLSchema(schema)
        self.operations = Operations()
        self.violations: list[str] = []
        self.requests: dict[str, int] = {}
        #: Public operations to which a key was shown.
        self.shown_keys: set[str] = set()
        #: What happens just before an operation's answer, for what only goes wrong between two requests.
        self.before: dict[str, Callable[[], None]] = {}

    def app(self) -> Starlette:
        described = [
            Route(
                path,
                self._endpoint(operation["operationId"], public=operation.get("security") == []),
                methods=[method.upper()],
            )
            for path, item in document()["paths"].items()
            for method, operation in item.items()
            if method in ("get", "post", "put", "delete")
        ]
        served = Route("/openapi.json", lambda _: JSONResponse(document()))
        return Starlette(
            routes=[*described, served, *akash_gateway.routes(self.state), *admin_routes(self)],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def _endpoint(self, name: str, *, public: bool) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.requests[name] = self.requests.get(name, 0) + 1
            if public and "x-api-key" in request.headers:
                self.shown_keys.add(name)
            self.before.get(name, lambda: None)()
            fault = self.plan.next(name)
            if fault is not None and not fault.after and fault.kind not in ("stale", "unchained"):
                return await _wrong(fault)
            try:
                status, body = self._answer(name, request, await request.body(), fault, public)
            except Refusal as refusal:
                status, body = refusal.status, failure(refusal.status, refusal.message)
            if wrong := self.operations.wrong_answer(name, status, body):
                self.violations += [f"{name}: our answer {status}: {each}" for each in wrong]
            if fault is not None and fault.kind == "unchained":
                body = _without_chain(body)
            if fault is not None and fault.after:
                return await _wrong(fault)
            return JSONResponse(body, status, headers=self._date())

        return endpoint

    def _answer(
        self, name: str, request: Request, raw: bytes, fault: Fault | None, public: bool
    ) -> tuple[int, dict[str, Any]]:
        account = None if public else self._account(request)
        body = _parsed(raw)
        path, query = {key: str(value) for key, value in request.path_params.items()}, dict(request.query_params)
        if wrong := self.operations.wrong_request(name, path, query, body):
            self.violations += [f"{name}: a request: {each}" for each in wrong]
            return 400, failure(400, "Validation error", data=wrong) | {"code": "validation_error"}
        at = self.state.now() - (fault.seconds if fault is not None and fault.kind == "stale" else 0)
        origin = str(request.base_url).rstrip("/")
        return CALLS[name](Call(self.state, self.schema, account, path, query, body, at, origin))

    def _account(self, request: Request) -> Account:
        if "authorization" in request.headers:
            raise Refusal(400, "Authorization and X-Api-Key headers are mutually exclusive")
        account = self.state.by_key(request.headers.get("x-api-key"))
        if account is None:
            raise Refusal(401, "Invalid API key" if "x-api-key" in request.headers else "Unauthorized")
        return account

    def _date(self) -> dict[str, str]:
        return {"date": formatdate(self.state.now(), usegmt=True)}


def _parsed(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Refusal(400, "Malformed JSON in request body") from error


def _without_chain(body: Any) -> Any:
    """As the Console answers when no node of the chain does: out of its database, which knows neither hashes nor names."""
    if isinstance(body, dict):
        return {key: _UNKNOWN if key in ("hash", "name") else _without_chain(value) for key, value in body.items()}
    return [_without_chain(item) for item in body] if isinstance(body, list) else body


async def _wrong(fault: Fault) -> Response:
    match fault.kind:
        case "status":
            headers = {"retry-after": str(fault.retry_after)} if fault.retry_after is not None else {}
            return JSONResponse(failure(fault.status, fault.message), fault.status, headers=headers)
        case "garbage":
            return Response("<html><body>One moment, please</body></html>", 200, media_type="text/html")
        case "hang":
            await asyncio.sleep(fault.seconds)
    return _Broken()


class _Broken(Response):
    """An answer that breaks off: the head of a long one, then the connection ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        # Without what was promised the server cuts the connection.
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


async def _no_route(_: Request, error: Exception) -> Response:
    return JSONResponse(failure(404, "Not Found"), getattr(error, "status_code", 404))


def _config(app: Starlette, port: int) -> uvicorn.Config:
    # date_header off: the date is the world's own.
    return uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", date_header=False, ws="websockets-sansio"
    )


@contextmanager
def serving(world: Akash, port: int = 0) -> Iterator[str]:
    """The world as a server in a thread of its own; its URL."""
    server = uvicorn.Server(_config(world.app(), port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the Akash world did not start")
        thread.join(0.01)
    try:
        yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname()[:2])
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@asynccontextmanager
async def served(world: Akash) -> AsyncIterator[str]:
    """The same, without holding up the event loop."""
    entered = serving(world)
    url = await asyncio.to_thread(entered.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(entered.__exit__, None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--sdl-schema", type=Path, help="the provider's own schema (python tests/worlds/akash_package.py tells where)"
    )
    parser.add_argument("--page", type=int, default=1000, help="how many deployments a list gives at most")
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    world = Akash(options.sdl_schema, page=options.page)
    world.plan.roll(options.fault_rate, options.seed)
    print(f"akash world on http://127.0.0.1:{options.port}, key {KEY}", file=sys.stderr, flush=True)
    uvicorn.Server(_config(world.app(), options.port)).run()


if __name__ == "__main__":
    main()
