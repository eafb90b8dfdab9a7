"""The yardstick: a Starlette route that returns constant bytes, served as the api is. `python yardstick.py FILE`; prints its port."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cal_crds.serving import configuration, listen


def _app(body: bytes) -> Starlette:
    async def constant(request: Request) -> Response:
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route("/constant/{anything}", constant)])


async def _serve(body: bytes) -> None:
    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(configuration(_app(body), ws="none")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]).read_bytes()))
