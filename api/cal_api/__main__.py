"""`python -m cal_api`: serves until SIGTERM or SIGINT, then ends with 0. Bad flags: 2. Port in use, no kubeconfig: 1."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cal_api.app import create_app
from cal_api.settings import Settings
from cal_crds.cluster import Cluster
from cal_crds.loopback import host_argument, port_argument
from cal_crds.serving import CannotServe, Server, configuration, connect, listen, log_to_stderr

_LOG = logging.getLogger("cal_api")


@dataclass(frozen=True)
class Arguments:
    """What the command line and the environment say."""

    host: str
    port: int
    settings: Settings


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Arguments:
    """Flags first, then the environment. Ends the process with 2 where they make no sense."""
    parser = _parser(environment)
    given = parser.parse_args(argv)
    if given.kubeconfig and not os.path.isfile(given.kubeconfig):
        parser.error(f"--kubeconfig {given.kubeconfig}: no such file")
    settings = Settings(
        kubeconfig=given.kubeconfig,
        namespace=given.namespace,
        system_namespace=given.system_namespace,
        relay_url=given.relay_url,
        public_relay_url=given.public_relay_url,
        identity=f"{given.identity}-{given.port}",
        model_key_file=Path(given.model_key_file) if given.model_key_file else None,
    )
    return Arguments(given.host, given.port, settings)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    def default(name: str, otherwise: str) -> str:
        return environment.get(name) or otherwise

    parser = argparse.ArgumentParser("python -m cal_api", description="The REST facade.", allow_abbrev=False)
    flag = parser.add_argument
    flag("--host", type=host_argument, default="127.0.0.1", help="loopback address to listen on")
    flag("--port", type=port_argument, default=8080, help="TCP port; 0: a free one, which the log names")
    flag("--kubeconfig", default=environment.get("KUBECONFIG"), help="absent: in-cluster")
    flag("--namespace", default=default("CAL_NAMESPACE", "default"), help="where objects are created")
    flag("--system-namespace", default=default("CAL_SYSTEM_NAMESPACE", "cal-system"))
    flag("--relay-url", type=_url("http", "https"), default=default("CAL_RELAY_URL", "http://127.0.0.1:3000"))
    flag("--public-relay-url", type=_url("ws", "wss"), default=default("CAL_PUBLIC_RELAY_URL", "ws://localhost:3000"))
    flag("--identity", default=default("CAL_IDENTITY", socket.gethostname()), help="of this replica")
    flag(
        "--model-key-file",
        default=environment.get("CAL_MODEL_KEY_FILE"),
        help="holds the key of the Secret cal-model-key",
    )
    return parser


def _url(*schemes: str) -> Callable[[str], str]:
    def url(text: str) -> str:
        if urlsplit(text).scheme not in schemes or not urlsplit(text).hostname:
            raise ValueError
        return text

    return url


async def _serve(arguments: Arguments) -> int:
    try:
        async with await connect(arguments.settings.kubeconfig) as cluster:
            with listen(arguments.host, arguments.port) as listener:
                return await _answer(cluster, listener, arguments.settings)
    except CannotServe as error:
        _LOG.error("%s", error)
        return 1


async def _answer(cluster: Cluster, listener: socket.socket, settings: Settings) -> int:
    broken: list[bool] = []

    def failed() -> None:
        broken.append(True)
        server.should_exit = True

    server = Server(configuration(create_app(cluster, settings, failed), ws="none"))
    _LOG.info("listening on %s port %d", *listener.getsockname()[:2])
    await server.serve(sockets=[listener])
    return 1 if broken else 0


def main() -> int:
    """Parse, then serve until a signal; the exit code."""
    arguments = parse(sys.argv[1:], os.environ)
    log_to_stderr()
    return asyncio.run(_serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
