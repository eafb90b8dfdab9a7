"""The build from Go modules, for real, with the smallest of the programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cal_cli.controlplane.tools import key

pytestmark = pytest.mark.timeout(900)
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "status": {"phase": "Succeeded"}}


def start(cache: Path) -> subprocess.Popen[str]:
    """`python -m cal_cli.controlplane kstatus` with a cache of its own and nothing to be found anywhere else."""
    env = {k: v for k, v in os.environ.items() if k != "KUBEBUILDER_ASSETS"}
    env |= {"XDG_CACHE_HOME": str(cache), "CAL_ENVTEST_INDEX": "off"}
    argv = [sys.executable, "-m", "cal_cli.controlplane", "kstatus"]
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_interrupted_build_resumes_and_two_at_once_build_once(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    root = tmp_path / "compute-abstraction-layer" / "controlplane"
    first = start(tmp_path)
    eventually(lambda: len(list((root / "gocache").glob("*/*-d"))) > 50, timeout=300)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (root / key() / "kstatus").exists()
    assert (root / "gocache").is_dir(), "what was compiled is kept"

    both = [start(tmp_path), start(tmp_path)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("another process is building" in err for _, err in said) == 1
    assert sum("built " in err for _, err in said) == 1
    assert not (root / "gocache").exists(), "the compiler's cache goes when all is there"

    program = root / key() / "kstatus"
    answer = subprocess.run([program], input=json.dumps(POD), capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("Current\t")


def test_an_unknown_program_is_refused() -> None:
    argv = [sys.executable, "-m", "cal_cli.controlplane", "kube-unknown"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "kube-unknown" in result.stderr
