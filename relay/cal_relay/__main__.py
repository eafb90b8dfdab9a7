"""`python -m cal_relay`: runs until SIGTERM or SIGINT, then ends with 0. Bad flags: 2. Port in use, no kubeconfig: 1."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys

from cal_crds.serving import CannotServe, Server, configuration, connect, listen, log_to_stderr
from cal_relay.app import create_app
from cal_relay.frames import MAX_FRAME
from cal_relay.settings import Settings, parse

_log = logging.getLogger("cal_relay")


async def _serve(settings: Settings) -> int:
    try:
        async with await connect(settings.kubeconfig) as cluster:
            with listen(settings.host, settings.port) as listener:
                _log.info("listening on %s port %d", *listener.getsockname()[:2])
                served = configuration(create_app(cluster, settings), **_websockets(settings))
                await Server(served).serve(sockets=[listener])
    except CannotServe as error:
        _log.error("%s", error)
        return 1
    return 0


def _websockets(settings: Settings) -> dict[str, object]:
    """What uvicorn is told about them."""
    return {
        "ws": "websockets-sansio",
        "ws_max_size": MAX_FRAME,
        "ws_ping_interval": settings.ping_interval,
        "ws_ping_timeout": settings.ping_timeout,
        # Log lines are small and many, and each compressor would keep its own window per client.
        "ws_per_message_deflate": False,
    }


def _allow_many_connections() -> None:
    """The usual soft limit of 1,024 open files is less than the clients that we take."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Parse, then serve until a signal; the exit code."""
    settings = parse(sys.argv[1:], os.environ)
    log_to_stderr()
    _allow_many_connections()
    return asyncio.run(_serve(settings))


if __name__ == "__main__":
    sys.exit(main())
