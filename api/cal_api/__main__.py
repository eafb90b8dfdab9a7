"""`python -m cal_api`: serves until SIGTERM or SIGINT, then ends with 0. Bad flags: 2. Port in use, no kubeconfig: 1."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvicorn
import yaml
from kubernetes.aio.config import ConfigException
from starlette.types import ASGIApp

from cal_api.app import create_app
from cal_api.settings import Settings
from cal_crds.cluster import Cluster

_LOG = logging.getLogger("cal_api")


@dataclass(frozen=True)
class Arguments:
    """What the command line and the environment say."""

    host: str
    port: int
    settings: Settings


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Arguments:
    """Flags first, then the environment. Ends the process with 2 where they make no sense."""

    def default(name: str, otherwise: str) -> str:
        return environment.get(name) or otherwise

    parser = argparse.ArgumentParser("python -m cal_api", description="The REST facade.", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=_port, default=8080, help="TCP port; 0: a free one, which the log names")
    parser.add_argument("--kubeconfig", default=environment.get("KUBECONFIG"), help="absent: in-cluster")
    parser.add_argument("--namespace", default=default("CAL_NAMESPACE", "default"), help="where objects are created")
    parser.add_argument("--system-namespace", default=default("CAL_SYSTEM_NAMESPACE", "cal-system"))
    parser.add_argument(
        "--relay-url", type=_url("http", "https"), default=default("CAL_RELAY_URL", "http://127.0.0.1:3000")
    )
    parser.add_argument(
        "--public-relay-url", type=_url("ws", "wss"), default=default("CAL_PUBLIC_RELAY_URL", "ws://localhost:3000")
    )
    parser.add_argument("--identity", default=default("CAL_IDENTITY", socket.gethostname()), help="of this replica")
    given = parser.parse_args(argv)
    if not _is_loopback(given.host):
        parser.error(f"--host {given.host}: not a loopback address; without key checks nothing else may be served")
    if given.kubeconfig and not os.path.isfile(given.kubeconfig):
        parser.error(f"--kubeconfig {given.kubeconfig}: no such file")
    settings = Settings(
        kubeconfig=given.kubeconfig,
        namespace=given.namespace,
        system_namespace=given.system_namespace,
        relay_url=given.relay_url,
        public_relay_url=given.public_relay_url,
        identity=f"{given.identity}-{given.port}",
    )
    return Arguments(given.host, given.port, settings)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def _url(*schemes: str) -> Callable[[str], str]:
    def url(text: str) -> str:
        if urlsplit(text).scheme not in schemes or not urlsplit(text).hostname:
            raise ValueError
        return text

    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """uvicorn raises a signal again once it is down, which would end us with -15 in place of 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def configuration(app: ASGIApp) -> uvicorn.Config:
    """How the application is served; the benchmark serves its yardstick alike."""
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        # Its lines hold whole URLs, and clients put tokens there.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


async def _serve(arguments: Arguments) -> int:
    try:
        cluster = await Cluster.connect(arguments.settings.kubeconfig)
    except (ConfigException, OSError, yaml.YAMLError) as error:
        _LOG.error("no access to a cluster: %s", error)
        return 1
    async with cluster:
        try:
            listener = listen(arguments.host, arguments.port)
        except OSError as error:
            _LOG.error("can't listen on %s port %d: %s", arguments.host, arguments.port, error.strerror)
            return 1
        with listener:
            return await _answer(cluster, listener, arguments.settings)


async def _answer(cluster: Cluster, listener: socket.socket, settings: Settings) -> int:
    broken: list[bool] = []

    def failed() -> None:
        broken.append(True)
        server.should_exit = True

    server = _Server(configuration(create_app(cluster, settings, failed)))
    _LOG.info("listening on %s port %d", *listener.getsockname()[:2])
    await server.serve(sockets=[listener])
    return 1 if broken else 0


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; OSError if it can't be had. Port 0: a free one."""
    # The protocol is named: asyncio sets TCP_NODELAY only where it is, and without it small answers wait 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
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


def main() -> int:
    """Parse, then serve until a signal; the exit code."""
    arguments = parse(sys.argv[1:], os.environ)
    _log_to_stderr()
    return asyncio.run(_serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
