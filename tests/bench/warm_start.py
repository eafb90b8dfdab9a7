"""How long `calctl up` takes until all of it is ready, on a state directory that has run before. Last line: its row as JSON."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cal_cli.controlplane.plane import free_ports

RUNS = 3
GOAL_SECONDS = 10


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cal-bench-") as scratch:
        env = {**os.environ, "CAL_STATE_DIR": str(Path(scratch) / "state")}
        cold, *warm = [start_and_stop(env) for _ in range(1 + RUNS)]
    print(f"first start {cold} s, then {warm}")
    value = statistics.median(warm)
    row = {
        "name": "warm start of calctl up to ready",
        "value": value,
        "unit": "s",
        "against": None,
        "ratio": None,
        "goal": f"<= {GOAL_SECONDS}",
        "met": value <= GOAL_SECONDS,
    }
    print(json.dumps([row]))


def start_and_stop(env: dict[str, str]) -> float:
    """Seconds to ready, as calctl says."""
    api, relay = free_ports(2)
    up = calctl(env, "up", "--detach", "--offline", f"--api-port={api}", f"--relay-port={relay}")
    calctl(env, "down")
    found = re.search(r"ready in ([0-9.]+) s", up)
    if found is None:
        raise SystemExit(f"calctl up did not say how long it took:\n{up}")
    return float(found[1])


def calctl(env: dict[str, str], *arguments: str) -> str:
    argv = [sys.executable, "-P", "-m", "cal_cli", *arguments]
    result = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"calctl {arguments[0]} failed:\n{result.stderr}")
    return result.stderr


if __name__ == "__main__":
    main()
