"""Finds the programs of the control plane: the environment, PATH, our cache, the official archive, a build; in this order.

Each step says what it looked for and what it found, so that nobody has to guess why a build of ten minutes begins.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from cal_cli.controlplane import envtest, gobuild
from cal_cli.controlplane.tools import SERVERS, key

#: Takes one line for a person.
Say = Callable[[str], None]


class BinariesNotFound(Exception):
    """No source has what is needed; the message says what was tried."""


def cache_root() -> Path:
    """Where built and downloaded programs live, after the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "compute-abstraction-layer" / "controlplane"


def find(names: Iterable[str], say: Say) -> dict[str, Path]:
    """The path of every program in `names`. May download or build what is missing, which takes minutes the first time.

    Raises `BinariesNotFound` when a program is nowhere and can't be built.
    """
    wanted = list(dict.fromkeys(names))
    found: dict[str, Path] = {}
    for label, look in _places():
        missing = [name for name in wanted if name not in found]
        if not missing:
            break
        new = _pairs(missing, look(missing))
        found |= new
        say(f"{label}: {_found_words(new)}")
    missing = [name for name in wanted if name not in found]
    if missing:
        found |= _obtain(missing, say)
    return found


def _obtain(missing: list[str], say: Say) -> dict[str, Path]:
    new = _pairs(missing, envtest.download(missing, cache_root(), say))
    rest = [name for name in missing if name not in new]
    if not rest:
        return new
    try:
        return new | gobuild.build(rest, cache_root(), say)
    except gobuild.BuildFailed as error:
        raise BinariesNotFound(f"{', '.join(rest)} not found, and not built: {error}") from error


def _places() -> list[tuple[str, Callable[[list[str]], dict[str, Path]]]]:
    places: list[tuple[str, Callable[[list[str]], dict[str, Path]]]] = []
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        places.append((f"KUBEBUILDER_ASSETS={assets}", lambda names: _in_directory(Path(assets), names)))
    built, official = cache_root() / key(), envtest.directory(cache_root())
    return [
        *places,
        ("PATH", _on_path),
        (f"cache {built}", lambda names: _in_directory(built, names)),
        (f"cache {official}", lambda names: _in_directory(official, names)),
    ]


def _in_directory(directory: Path, names: list[str]) -> dict[str, Path]:
    paths = {name: directory / name for name in names}
    return {name: path for name, path in paths.items() if os.access(path, os.X_OK) and path.is_file()}


def _on_path(names: list[str]) -> dict[str, Path]:
    paths = {name: shutil.which(name) for name in names}
    return {name: Path(path) for name, path in paths.items() if path}


def _pairs(missing: list[str], new: dict[str, Path]) -> dict[str, Path]:
    """Without half a pair: an etcd of a distribution beside our kube-apiserver may be years apart from it."""
    pair = [name for name in SERVERS if name in missing]
    if all(name in new for name in pair):
        return new
    return {name: path for name, path in new.items() if name not in pair}


def _found_words(new: dict[str, Path]) -> str:
    return "has " + ", ".join(new) if new else "has none of what is missing"
