"""The short run of the chaos harness: the same as `make chaos`, with 25 kills."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import run

#: Most of it is waiting: after an unknown outcome the slowest adapter wants 100 s of look-ups that find nothing.
_SECONDS = 560


@pytest.mark.timeout(_SECONDS + 60)
def test_kills_and_faults_leak_nothing_double_nothing_and_lose_nothing(binaries: dict[str, Path]) -> None:
    argv = [sys.executable, "-P", str(Path(run.__file__)), "--kills=25", "--seed=7"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=_SECONDS)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # it takes its children with it
    last = said.strip().splitlines()[-1]
    assert process.returncode == 0, said[-8000:]
    assert re.fullmatch(r"kills=25 faults=\d+ leaked=0 doubled=0 lost=0", last), said[-8000:]
