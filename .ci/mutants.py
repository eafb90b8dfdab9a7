"""Takes one safety rule out at a time and expects the tests to notice.

Each tests/mutants/*.patch breaks one rule. Before its first `diff` line it says why in free text, and in a line
`Red: <pytest arguments>` which tests must fail. The patch is applied to a copy; the working tree is never touched.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("operator", "api", "relay", "cli", "adapters", "crds")
TESTS_FAILED = 1  # pytest's own exit code; others mean that it could not run, which proves nothing


def main() -> None:
    """Exit code 1 when a mutant survives or can't be tried."""
    wanted = sys.argv[1:]
    patches = [
        path for path in sorted((ROOT / "tests" / "mutants").glob("*.patch")) if not wanted or path.stem in wanted
    ]
    failures = [path.stem for path in patches if not killed(path)]
    print(f"mutants={len(patches)} red={len(patches) - len(failures)} survived={len(failures)}")
    for name in failures:
        print(f"not red: {name}")
    sys.exit(1 if failures or not patches else 0)


def killed(patch: Path) -> bool:
    """Whether the tests that the patch names fail with it."""
    found = re.search(r"^Red: (.+)$", patch.read_text(), re.MULTILINE)
    if found is None:
        print(f"{patch.stem}: has no line `Red: <pytest arguments>`")
        return False
    with tempfile.TemporaryDirectory(prefix="cal-mutant-") as scratch:
        copy = Path(scratch) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache"))
        applied = subprocess.run(
            ["patch", "-p1", "--forward", "-i", str(patch)], cwd=copy, capture_output=True, text=True, check=False
        )
        if applied.returncode != 0:
            print(f"{patch.stem}: does not apply: {applied.stdout.strip()}")
            return False
        return _red(patch.stem, copy, shlex.split(found[1]))


def _red(name: str, copy: Path, arguments: list[str]) -> bool:
    # Child processes must run the copy too, and an editable install points at the original.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / source) for source in SOURCES)}
    argv = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(argv, cwd=copy, env=env, capture_output=True, text=True, check=False)
    red = result.returncode == TESTS_FAILED
    last = (result.stdout.strip().splitlines() or ["no output"])[-1]
    print(f"{name}: {'red' if red else 'NOT RED'}: {last}", flush=True)
    return red


if __name__ == "__main__":
    main()
