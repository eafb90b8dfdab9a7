"""`python -m cal_api` as a process: flags, signals, ports, and an API server that comes later or goes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cal_cli.controlplane.plane import free_ports

Eventually = Callable[..., Any]


def _run(environment: dict[str, str], *flags: str, **extra: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cal_api", *flags]
    return subprocess.run(argv, env={**environment, **extra}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host=0.0.0.0"], "isn't a loopback address"),
        (["--host=example.com"], "isn't a loopback address"),
        (["--port=70000"], "--port"),
        (["--port=http"], "--port"),
        (["--relay-url=localhost:3000"], "--relay-url"),
        (["--public-relay-url=http://localhost"], "--public-relay-url"),
        (["--kubeconfig=/nowhere/kubeconfig"], "no such file"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_flags_end_with_2_and_a_word_why(environment: dict[str, str], flags: list[str], words: str) -> None:
    result = _run(environment, *flags)
    assert result.returncode == 2 and words in result.stderr


def test_a_port_in_use_ends_with_1_and_says_so(environment: dict[str, str], kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = _run(environment, f"--port={port}", f"--kubeconfig={kubeconfig}")
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1 port {port}" in result.stderr and len(result.stderr.splitlines()) == 1


def test_no_cluster_at_all_ends_with_1(environment: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "kubeconfig"
    broken.write_text("clusters: [")
    for flags in (["--port=0"], ["--port=0", f"--kubeconfig={broken}"]):
        result = _run(environment, *flags)
        assert result.returncode == 1 and "no access to a cluster" in result.stderr, result.stderr
        assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_0(start_api: Any, number: int) -> None:
    api = start_api()
    with httpx.Client(base_url=api.url, trust_env=False) as open_connection:
        open_connection.get("/health")
        api.process.send_signal(number)
        assert api.process.wait(20) == 0
    assert "Traceback" not in api.log.read_text()


def test_the_environment_counts_where_no_flag_does(environment: dict[str, str], kubeconfig: Path) -> None:
    result = _run(environment, KUBECONFIG=str(kubeconfig), CAL_RELAY_URL="nonsense")
    assert result.returncode == 2 and "--relay-url" in result.stderr


def test_it_comes_up_before_its_api_server(
    start_api: Any, kubeconfig: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """Ready as soon as the API server answers, not before; alive all along."""
    port = free_ports(1)[0]
    real = re.search(r"https://127\.0\.0\.1:(\d+)", kubeconfig.read_text())
    assert real is not None
    config = tmp_path / "kubeconfig"
    config.write_text(kubeconfig.read_text().replace(real[0], f"https://127.0.0.1:{port}"))
    api = start_api(ready=False, config=config)
    assert httpx.get(f"{api.url}/readyz").status_code == 503
    relay = [sys.executable, "-c", _FORWARD, str(port), real[1]]
    with subprocess.Popen(relay) as forward:
        try:
            eventually(lambda: httpx.get(f"{api.url}/readyz").status_code == 200, timeout=60)
        finally:
            forward.kill()
    # Gone again: what is known is still shown; what would have to be asked is a 503.
    eventually(
        lambda: 'cal_api_watch_connected{kind="ComputePool"} 0.0' in httpx.get(f"{api.url}/metrics").text, timeout=60
    )
    assert httpx.get(f"{api.url}/pools").status_code == 200
    reply = httpx.get(f"{api.url}/pool/00000000-0000-0000-0000-000000000001", timeout=60)
    assert reply.status_code == 503 and reply.headers["retry-after"]
    assert api.stop() == 0


#: Forwards TCP from one port to another: an API server that comes and goes.
_FORWARD = """
import asyncio, sys
async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data); await writer.drain()
    writer.close()
async def serve(reader, writer):
    other = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, other[1]), pump(other[0], writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""
