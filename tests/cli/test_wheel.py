"""The wheel carries all that `calctl up` needs: without the repository beside it, it finds the same things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
REPO = Path(__file__).resolve().parents[2]

SCRIPT = """
import json
from pathlib import Path
from cal_cli.bootstrap import crds, documents, examples
from cal_cli.controlplane.tools import MODULE, key
import cal_cli, cal_operator, cal_api, cal_relay, cal_adapters, cal_crds
print(json.dumps({
    "where": str(Path(cal_cli.__file__).parent.parent),
    "crds": sorted(body["spec"]["names"]["kind"] for body in crds()),
    "examples": sorted(path.name for path in examples().iterdir()),
    "server": (examples() / "tiny-model" / "server.py").is_file(),
    "rights": [body["kind"] for body in documents(Path(cal_cli.__file__).parent / "manifests" / "rbac")],
    "module": (MODULE / "go.mod").is_file() and (MODULE / "cmd" / "kstatus" / "main.go").is_file(),
    "key": key(),
}))
"""


def run(path: str) -> dict[str, object]:
    """What the packages found through `path` have, as seen from an empty directory."""
    env = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run([sys.executable, "-P", "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    content: dict[str, object] = json.loads(result.stdout)
    return content


def test_the_wheel_has_what_the_repository_has(tmp_path: Path) -> None:
    # From a copy of what git tracks: a wheel must not pick up what lies around.
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(tmp_path / "clone")], check=True)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(argv, cwd=tmp_path / "clone", check=True)
    unpacked = tmp_path / "wheel"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)

    carried = run(str(unpacked))
    assert carried["where"] == str(unpacked)
    assert carried["crds"] == ["ComputeNode", "ComputePool", "ComputeProvider", "ModelDeployment"]
    assert carried["server"]
    assert carried["module"]
    original = run(
        os.pathsep.join(
            str(tmp_path / "clone" / root) for root in ("operator", "api", "relay", "cli", "adapters", "crds")
        )
    )
    assert {**carried, "where": None} == {**original, "where": None}
    assert not list(unpacked.rglob("tests"))
