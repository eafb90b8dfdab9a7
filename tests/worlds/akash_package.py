"""Akash's own package: its SDL schema, and the code with which it makes a manifest. Fetched by npm from what hack/schemas/akash pins (with
the lock file's hashes), kept in the user's cache, never committed.

    python tests/worlds/akash_package.py        prints where the schema is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parents[2] / "hack" / "schemas" / "akash"
_FILES: Final = ("package.json", "package-lock.json")
_SCHEMA: Final = Path("node_modules/@akashnetwork/chain-sdk/dist/sdl-schema.yaml")


class Unavailable(Exception):
    """npm can't deliver the package. The message says why."""


@cache
def folder() -> Path:
    """The folder with the package in its node_modules; made now if it isn't there. Its name tells the pinned versions apart."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = home / "compute-abstraction-layer" / "schemas" / f"akash-{digest}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".akash.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _make(target)
    return target


def schema() -> Path:
    """The schema of an SDL: YAML, JSON Schema draft 7."""
    return folder() / _SCHEMA


def _make(target: Path) -> None:
    """Beside the target, then renamed: nobody ever sees half of it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch) / "work"
        work.mkdir()
        for name in _FILES:
            shutil.copy(SOURCE / name, work)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=work, check=True, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            raise Unavailable(f"npm can't fetch the Akash package: {str(said).strip()[-500:]}") from error
        work.rename(target)


if __name__ == "__main__":
    try:
        print(schema())
    except Unavailable as missing:
        sys.exit(str(missing))
