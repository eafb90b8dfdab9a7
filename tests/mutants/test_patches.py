"""The mutants fit the code as it stands, and name tests that exist; `make mutants` shows each of them red."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted(Path(__file__).parent.glob("*.patch"))


def test_there_is_one_for_each_rule() -> None:
    assert [path.stem[:6] for path in PATCHES] == [f"rule-{number}" for number in range(1, 8)]


@pytest.mark.parametrize("path", PATCHES, ids=[path.stem for path in PATCHES])
def test_it_fits(path: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "operator", tmp_path / "operator")
    result = subprocess.run(
        ["patch", "-p1", "--forward", "--fuzz=0", "-i", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", PATCHES, ids=[path.stem for path in PATCHES])
def test_it_names_tests_that_exist(path: Path) -> None:
    red = re.search(r"^Red: (.+)$", path.read_text(), re.MULTILINE)
    assert red is not None
    assert (ROOT / shlex.split(red[1])[0]).exists()
