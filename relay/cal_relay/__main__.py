"""`python -m cal_relay`: runs until SIGTERM or SIGINT, then ends with 0. Bad flags: 2. Port in use, no kubeconfig: 1."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from kubernetes.aio.config import ConfigException

from cal_crds.cluster import Cluster
from cal_relay.app import create_app
from cal_relay.frames import MAX_FRAME
from cal_relay.settings import Settings, parse

_log = logging.getLogger("cal_relay")


class _Server(uvicorn.Server):
    """uvicorn raises a signal again once it is down, which would end us with -15 in place of 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _configuration(settings: Settings, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        # Log lines are small and many, and each compressor would keep its own window per client.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        # Its lines hold whole URLs, and clients put tokens there.
        access_log=False,
        timeout_graceful_shutdown=5,
    )


async def _serve(settings: Settings) -> int:
    try:
        cluster = await Cluster.connect(settings.kubeconfig)
        listener = _listen(settings)
    except (ConfigException, OSError) as error:
        _log.error("%s", error)
        return 1
    async with cluster:
        _log.info("listening on %s port %d", *listener.getsockname()[:2])
        await _Server(_configuration(settings, create_app(cluster, settings))).serve(sockets=[listener])
    return 0


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"can't listen on {settings.host} port {settings.port}: {error.strerror}") from error
    return listener


class _OneLine(logging.Formatter):
    """A traceback, or a line end that somebody else put into a message, stays within its line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _allow_many_connections() -> None:
    """The usual soft limit of 1,024 open files is less than the clients that we take."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Parse, then serve until a signal; the exit code."""
    settings = parse(sys.argv[1:], os.environ)
    _log_to_stderr()
    _allow_many_connections()
    return asyncio.run(_serve(settings))


if __name__ == "__main__":
    sys.exit(main())
