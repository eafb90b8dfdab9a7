"""How an HTTP service of ours starts, logs and ends: the api and the relay differ in what they serve, not in this."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from cal_crds.cluster import NO_ACCESS, Cluster


class CannotServe(Exception):
    """The service can't start: no cluster, or no port. The message is for its log."""


class Server(uvicorn.Server):
    """uvicorn raises a signal again once it is down, which would end us with -15 in place of 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def configuration(app: Any, **own: Any) -> uvicorn.Config:
    """How an ASGI application is served; `own` are further settings of uvicorn's."""
    return uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        # Its lines hold whole URLs, and clients put tokens there.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        **own,
    )


async def connect(kubeconfig: str | None) -> Cluster:
    """The API server by that file, else in-cluster. It need not answer yet. `CannotServe` where nothing names one."""
    try:
        return await Cluster.connect(kubeconfig)
    except NO_ACCESS as error:
        raise CannotServe(f"no access to a cluster: {error}") from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, `CannotServe` if it can't be had. Port 0: a free one."""
    # The protocol is named: asyncio sets TCP_NODELAY only where it is, and without it small answers wait 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotServe(f"can't listen on {host} port {port}: {error.strerror}") from error
    return listener


class _OneLine(logging.Formatter):
    """A traceback, or a line end that somebody else put into a message, stays within its line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def log_to_stderr() -> None:
    """One line per record; chatty libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
