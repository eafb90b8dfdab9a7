"""`python -m cal_relay` as a process: flags, signals, ports, and an API server that comes later."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.anyio


async def test_sigterm_ends_with_0_and_tells_the_clients(
    start_relay: Any, free_port: int, market: Any, follow: Any
) -> None:
    relay = start_relay(free_port)
    node = await market.node()
    client = await follow(node.uid, "/?token=hunter2", to=relay)
    await client.frame()
    relay.process.send_signal(signal.SIGTERM)
    assert (await client.rest())[0] == 1012
    assert relay.stop() == 0
    log = relay.log.read_text()
    assert "hunter2" not in log
    assert "Traceback" not in log and "ERROR" not in log


BAD_STARTS = {
    "unknown-flag": (["--colour=red"], "unrecognized arguments"),
    "port-word": (["--port=http"], "isn't a port"),
    "port-large": (["--port=65536"], "isn't a port"),
    "port-negative": (["--port=-1"], "isn't a port"),
    "open-to-all": (["--host=0.0.0.0"], "isn't a loopback address"),
    "host-name": (["--host=example.com"], "isn't a loopback address"),
    "no-clients": (["--max-clients=0"], "whole number from 1"),
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_bad_flags_end_with_2(relay_command: Callable[..., Any], name: str) -> None:
    flags, said = BAD_STARTS[name]
    result = _run(relay_command(*flags))
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_port_in_use_ends_with_1(relay_command: Callable[..., Any], kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = _run(relay_command(f"--port={port}", f"--kubeconfig={kubeconfig}"))
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in result.stderr


def test_without_a_kubeconfig_it_ends_with_1(relay_command: Callable[..., Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("clusters: [")
    for flags in ([], [f"--kubeconfig={tmp_path}/none"], [f"--kubeconfig={broken}"]):
        result = _run(relay_command("--port=0", *flags))
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "ERROR cal_relay: no access to a cluster: " in result.stderr


def _run(command: tuple[list[str], dict[str, str]]) -> subprocess.CompletedProcess[str]:
    argv, env = command
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_an_api_server_that_is_away_is_said_and_awaited(
    relay_command: Callable[..., Any], kubeconfig: Path, tmp_path: Path, free_ports: Any, eventually: Any
) -> None:
    """The relay starts without it, answers that it isn't ready, and is once the API server is there."""
    port, nobody = free_ports(2)
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{nobody}"
    away = tmp_path / "kubeconfig"
    away.write_text(yaml.safe_dump(config))
    argv, env = relay_command(f"--port={port}", f"--kubeconfig={away}")
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            get = _getter(port)
            eventually(lambda: "could not be asked" in get("/readyz")[1])
            assert get("/healthz") == (200, "ok\n")
            for path in ("/readyz", "/tail/default/1"):
                status, body = get(path)
                assert status == 503
                assert json.loads(body)["detail"].startswith("the nodes aren't known just now:")
        finally:
            process.terminate()
            _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert log.count("nodes can't be watched") == 1, "said once, not each second"


def _getter(port: int) -> Callable[[str], tuple[int, str]]:
    def get(path: str) -> tuple[int, str]:
        """Status and body; (0, "") while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    return get
