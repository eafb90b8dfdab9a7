"""`calctl up --tour`: what `make run` does, from nothing to the answer of a model."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.timeout(300)
Calctl = Any


def test_the_tour_ends_with_an_answer_and_a_running_system(calctl: Calctl) -> None:
    process = subprocess.Popen(
        [*calctl.argv, "up", *calctl.ports, "--tour"],
        env=calctl.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "calctl terminate" in line:
            break
    text = "".join(said)
    answer = re.search(r"model: +(\S.*)", text)
    assert answer and len(answer[1].split()) > 3, text
    endpoint = re.search(r"It runs at (http://127\.0\.0\.1:\d+)", text)
    assert endpoint
    assert httpx.get(f"{endpoint[1]}/v1/models").status_code == 200

    # What it says to try next works as written.
    commands = re.findall(r"^ {2}(curl .*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-c", command.replace("curl ", "curl --fail --silent ")], check=True, capture_output=True)
    assert "listening" in calctl("logs", "tiny-sea").stdout.lower() or calctl("logs", "tiny-sea").stdout
    assert "terminat" in calctl("terminate", "tiny-sea").stdout

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert "tour: tiny-sea is RUNNING" in errors
    assert calctl.processes() == []


def test_a_detached_tour_asks_too(calctl: Calctl) -> None:
    result = calctl.up("--tour")
    assert re.search(r"model: +\S+ \S+", result.stdout)
    again = calctl("up", "--tour", check=False)
    assert again.returncode == 1
    assert "already running" in again.stderr


def test_a_tour_wakes_what_was_terminated_after_the_last_one(calctl: Calctl, eventually: Callable[..., Any]) -> None:
    calctl.up("--tour")
    calctl("terminate", "tiny-sea")
    eventually(lambda: "TERMINATED" in calctl("get", "deployments").stdout, timeout=60, interval=0.5)
    calctl("down")
    again = calctl.up("--tour")
    assert "tiny-sea was terminated; starting it again" in again.stderr
    assert re.search(r"model: +\S+ \S+", again.stdout)


def test_a_tour_starts_again_what_failed_in_the_last_one(calctl: Calctl, tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho no python today >&2; exit 9\n")
    broken.chmod(0o755)
    calctl.env["PATH"] = f"{tmp_path}:{calctl.env['PATH']}"
    first = calctl("up", "--detach", "--tour", *calctl.ports, check=False)
    assert first.returncode == 1 and "tiny-sea is FAILED" in first.stderr, first.stderr
    assert "no python today" in first.stderr
    calctl("down")
    broken.unlink()
    again = calctl.up("--tour")
    assert "tiny-sea failed; starting it again" in again.stderr
    assert re.search(r"model: +\S+ \S+", again.stdout)
