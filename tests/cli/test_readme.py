"""The README's two-minute tour, run as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)
Calctl = Any
REPO = Path(__file__).resolve().parents[2]

#: What the README leaves to the reader's eyes: a curl that is answered with an error fails here.
STRICT = """
set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body "$@"; echo; }
"""


def blocks(title: str) -> list[str]:
    """The indented code blocks of a section."""
    section = (REPO / "README.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", section, re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in found]


def test_the_tour_works_as_written(system: Calctl) -> None:
    first, rest, last = (found := blocks("Two minutes"))[0], found[1:-1], found[-1]
    assert "calctl up --detach --demo" in first, "done by the fixture, on free ports"
    assert last == "calctl down", "done by the fixture"
    script = STRICT + "\n".join(rest).replace("http://localhost:8080", f"http://localhost:{system.api_port}")
    env = {
        **system.env,
        "PATH": f"{Path(sys.executable).parent}:{system.env['PATH']}",
        "KUBECONFIG": str(system.state / "kubeconfig"),
        "KUBECACHEDIR": str(system.state / "kubectl-cache"),
    }
    result = subprocess.run(["bash", "-c", script], cwd=REPO, env=env, capture_output=True, text=True, check=False)
    said = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, said
    for expected in ('"status":"CREATED"', '"status":"PENDING"', '"logs":', "TERMINAT", "tiny-sea condition met"):
        assert expected in said.replace(": ", ":").replace('","', '","'), f"{expected} is missing in {said}"
    assert "scaled" in said
