"""Fetches what tests check Akash documents against: the SDL schema, and (with --sdk) the provider's own manifest code.

Both come from the npm package that the provider publishes, pinned by version and checksum, into the user's cache directory; nothing
of it is committed. Prints the path. Exit code 1 with one line if npm can't deliver it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@akashnetwork/chain-sdk"
VERSION = "1.0.0-alpha.25"
SHA512 = "92E6tKYv6ebNEbTSspYZBKjUFiNj2QnWbwDrdx8E+h2CU+l1i8yfYLGHrRzorPumkHhi38JUXGUCQxkRRvb8dA=="
SCHEMA = "package/dist/sdl-schema.yaml"


def cache() -> Path:
    """Where it is kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "compute-abstraction-layer" / "schemas" / f"akash-{VERSION}"


def schema() -> Path:
    """The SDL schema (YAML, JSON Schema draft 7). OSError if it can't be had."""
    target = cache() / "sdl-schema.yaml"
    if not target.exists():
        with tempfile.TemporaryDirectory() as directory, tarfile.open(_packed(Path(directory))) as package:
            member = package.extractfile(SCHEMA)
            if member is None:
                raise OSError(f"{PACKAGE} {VERSION} holds no {SCHEMA}")
            _write(target, member.read())
    return target


def sdk() -> Path:
    """A folder whose node_modules holds the package with what it needs. OSError if it can't be had."""
    target = cache() / "sdk"
    if not (target / "node_modules" / PACKAGE / "package.json").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            # The package comes from the checked file; npm checks what it depends on against the registry's own checksums.
            archive = _packed(Path(directory))
            _npm("install", "--prefix", directory, "--no-audit", "--no-fund", "--ignore-scripts", str(archive))
            shutil.rmtree(target, ignore_errors=True)
            Path(directory).rename(target)
            Path(directory).mkdir()  # for the context manager to remove
    return target


def _packed(directory: Path) -> Path:
    _npm("pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(directory))
    archive = next(directory.glob("*.tgz"))
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise OSError(f"{PACKAGE} {VERSION} has the checksum {found}, not {SHA512}")
    return archive


def _npm(*arguments: str) -> None:
    try:
        subprocess.run(["npm", *arguments], check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        raise OSError(f"npm {arguments[0]}: {error.stderr.strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"npm {arguments[0]} took more than 300 s") from error


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    part.write_bytes(content)
    part.replace(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk", action="store_true", help="the whole package, to run")
    try:
        print(sdk() if parser.parse_args().sdk else schema())
    except OSError as error:
        print(f"akash schema: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
