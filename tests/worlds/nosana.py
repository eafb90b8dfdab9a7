"""A Nosana to test against: a real server with the provider's state machine, its hosts' log WebSocket, a clock and faults.

    python tests/worlds/nosana.py --port 8099 [--key nos_test] [--seed 1]

REST under /api as the provider's OpenAPI document says (both directions are checked against it; what breaks it is listed under
/_world/violations). Hosts answer under /node/{node}/flog, and workloads,
while they run, any request under /service/{deployment}/. /_world/ is for tests and the chaos harness:

    GET  billing, bills, deployments, violations, stats      what bills now; what was billed; all there is; broken contracts; counters
    POST advance {seconds}; delays {start, list, claim, stop, stragglers, hosts_linger, bare_header}
    POST faults [{match, kind, ...}] (see nosana_faults.py), DELETE faults
    POST account {key, owner?, assigned?, fresh?}; revoke {key}; market {slug, usd_reward_per_hour?, machines?}
    POST job {name | deployment, do: end | lose | expire | vanish | say, exit_code?, line?}
    POST deployment {name | deployment, status?, relist?, delete?}; crowd {key, names, started?, age?}; hosts {drop?, down?, frame?}
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
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
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from worlds.nosana_admin import admin_routes
from worlds.nosana_calls import CALLS, Call, signature_of
from worlds.nosana_faults import Fault, Plan
from worlds.nosana_schemas import Contract, Operation
from worlds.nosana_state import Job, Provider, Refusal

KEY = "nos_test_key"


class Cut(Exception):
    """The connection ends here."""


class Nosana:
    """The world behind the server."""

    def __init__(self, key: str = KEY, seed: int = 0) -> None:
        self.provider = Provider(seed)
        self.provider.add_account(key)
        self.provider.add_market("nvidia-3060", "NVIDIA GeForce RTX 3060", 0.048, 12)
        self.provider.add_market("nvidia-3090", "NVIDIA GeForce RTX 3090", 0.192, 24)
        self.provider.add_market("nvidia-4090", "NVIDIA GeForce RTX 4090", 0.3, 24)
        self.provider.add_market("nvidia-a100-80gb", "NVIDIA A100-SXM4-80GB", 1.1, 80)
        self.provider.on_job = self._wake
        self.contract = Contract()
        self.plan = Plan(seed)
        self.violations: list[str] = []
        self.requests = 0
        self.hosts_down = False
        self.odd_frame: str | None = None
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._drops = 0

    def app(self) -> Starlette:
        routes = [
            Route(path, self._endpoint(key), methods=[key.split()[0]])
            for key in sorted(CALLS, key=lambda key: "{" in key)
            for path in [key.split()[1]]
        ]
        return Starlette(
            routes=[
                *routes,
                *admin_routes(self),
                Route("/service/{deployment}", self._service),
                Route("/service/{deployment}/{rest:path}", self._service),
                WebSocketRoute("/node/{node}/{channel}", self._log),
            ],
            lifespan=self._lifespan,
            exception_handlers={404: _unknown_route, 405: _unknown_route},
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """The clock runs on while nobody asks: who follows a log wants to hear of it."""

        async def run() -> None:
            while True:
                self.provider.tick()
                await asyncio.sleep(0.05)

        clock = asyncio.create_task(run())
        yield
        clock.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clock

    # -- REST

    def _endpoint(self, key: str) -> Any:
        method, path = key.split()
        operation = Operation(path, method.lower())

        async def endpoint(request: Request) -> Response:
            self.provider.tick()
            self.requests += 1
            fault = self.plan.take(f"{method} {request.url.path}")
            early = await self._before(fault)
            if early is not None:
                return early
            response = await self._answer(
                key, operation, request, fault.seconds if fault and fault.kind == "stale" else 0
            )
            if fault and fault.kind == "hang-after":
                await asyncio.sleep(fault.seconds)
            if fault and fault.kind in ("cut-after", "hang-after"):
                return _CutResponse()
            response.headers["Date"] = formatdate(self.provider.now, usegmt=True)
            return response

        return endpoint

    async def _before(self, fault: Fault | None) -> Response | None:
        """What comes in place of an answer, without an effect."""
        match fault.kind if fault else None:
            case "status":
                assert fault
                return JSONResponse(fault.body if fault.body is not None else {"error": "Injected."}, fault.status)
            case "rate":
                assert fault
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return JSONResponse({"error": "Too many requests."}, 429, headers)
            case "garbage":
                return Response(b'{"id": "tru\xff\x00', media_type="application/json")
            case "raw":
                assert fault
                return Response(fault.body, 200, media_type="application/json")
            case "html":
                assert fault
                return Response("<html><h1>502 Bad Gateway</h1></html>", fault.status, media_type="text/html")
            case "hang":
                assert fault
                await asyncio.sleep(fault.seconds)
                return _CutResponse()
            case "cut":
                return _CutResponse()
        return None

    async def _answer(self, key: str, operation: Operation, request: Request, lag: float) -> Response:
        function, needs_key = CALLS[key]
        account = self.provider.account_of(request.headers.get("authorization", "").removeprefix("Bearer "))
        if needs_key and account is None:
            return self._checked(operation, 401, "Unauthorized")
        raw = await request.body()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            return JSONResponse({"error": "Bad Request"}, 400)
        problems = self.contract.request_problems(operation, request.query_params, body)
        if problems:
            self.violations.append(f"request {key}: {problems[0]}")
            return JSONResponse({"error": f"Bad Request: {problems[0]}"}, 400)
        try:
            status, answer = function(
                Call(self.provider, account, request.path_params, request.query_params, body, lag)
            )
        except Refusal as refusal:
            shape = {"name": "Error", "message": refusal.text} if "/markets/" in key else {"error": refusal.text}
            return self._checked(operation, refusal.status, shape)
        return self._checked(operation, status, answer)

    def _checked(self, operation: Operation, status: int, answer: Any) -> Response:
        problems = self.contract.answer_problems(operation, status, answer)
        # The provider's document forgets these for some operations; it gives them all the same.
        if problems and status not in (400, 401, 404):
            self.violations.append(f"answer {operation} {status}: {problems[0]}")
        return Response(status_code=status) if answer is None else JSONResponse(answer, status)

    # -- hosts

    async def _service(self, request: Request) -> Response:
        """What the workload answers, behind the provider's proxy: no job, no service."""
        self.provider.tick()
        active = self.provider.active(request.path_params["deployment"])
        running = any(job.state == "RUNNING" for job in active)
        return Response("it serves" if running else "no such tunnel", 200 if running else 404, media_type="text/plain")

    async def _log(self, socket: WebSocket) -> None:
        """A host's log WebSocket: history first, then what comes. Close codes are the host's."""
        if self.hosts_down:
            await socket.close()
            return
        await socket.accept()
        try:
            job = self._subscription(await socket.receive_json(), socket.path_params["node"])
            await self._stream(socket, job)
        except _Closed as closed:
            await socket.close(closed.code, closed.reason)
        except (WebSocketDisconnect, ValueError):
            pass

    def _subscription(self, asked: Any, node: str) -> Job:
        if asked.get("path") not in ("/flog", "/log"):
            raise _Closed(3003, "Path not found")
        body = asked.get("body") or {}
        if not body.get("jobAddress"):
            raise _Closed(1007, "Expected body to contain jobAddress.")
        job = self.provider.jobs.get(body["jobAddress"])
        if job is None or job.node != node:
            raise _Closed(1008, "Invalid job address")
        owner = self.provider.deployments[job.deployment].owner
        message, colon, signature = str(asked.get("header", "")).partition(":")
        if not (message and colon and signature == signature_of(owner)):
            raise _Closed(3000, "Unauthorized Request")
        return job

    async def _stream(self, socket: WebSocket, job: Job) -> None:
        wake, sent, drops = asyncio.Event(), 0, self._drops
        if self.odd_frame is not None:
            await socket.send_text(self.odd_frame)
        self._listeners.setdefault(job.address, set()).add(wake)
        try:
            while True:
                wake.clear()
                for piece in job.pieces[sent:]:
                    await socket.send_json({"path": "flog", "data": json.dumps(piece)})
                    sent += 1
                if job.state != "RUNNING" and not self.provider.delays.hosts_linger:
                    raise _Closed(1000, "")
                await wake.wait()
                if self._drops != drops:
                    raise _Closed(1011, "Server error")
        finally:
            self._listeners[job.address].discard(wake)

    def drop_listeners(self) -> None:
        self._drops += 1
        for job in self.provider.jobs.values():
            self._wake(job)

    def _wake(self, job: Job) -> None:
        for wake in self._listeners.get(job.address, ()):
            wake.set()

    # -- as a server

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Runs it in a thread on a free port of 127.0.0.1; yields its base URL."""
        server = uvicorn.Server(_config(self.app(), port=0))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the Nosana world did not start")
            thread.join(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        self.provider.url = f"http://{host}:{port}"
        try:
            yield self.provider.url
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


class _Closed(Exception):
    """The host closes the WebSocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _CutResponse(Response):
    """An answer that breaks off: the head of a long one, then the connection ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        raise Cut


async def _unknown_route(_: Request, error: Exception) -> Response:
    return Response("Not Found", getattr(error, "status_code", 404), media_type="text/plain")


def _config(app: Starlette, port: int) -> uvicorn.Config:
    # date_header off: the date is the world's own.
    return uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", date_header=False, ws="websockets-sansio"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default=KEY, help="the API key of the first account")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    world = Nosana(options.key, options.seed)
    world.provider.url = f"http://127.0.0.1:{options.port}"
    print(f"nosana world on {world.provider.url}, key {options.key}", file=sys.stderr, flush=True)
    uvicorn.Server(_config(world.app(), options.port)).run()


if __name__ == "__main__":
    main()
